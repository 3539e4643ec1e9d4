-- SPDX-License-Identifier: MIT
-- One configuration file: runs it with the words of a configuration as its globals and collects
-- what it declares. It decides nothing about precedence.

local config_words = require("farcall.config_words")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local places = require("farcall.places")
local plugin = require("farcall.plugin")
local suggest = require("farcall.suggest")

local config_file = {}

local MAX_FILE = 16 * 1024 * 1024
local MAX_INCLUDES = 20 -- files in files

---@class farcall.ConfigLayer what one file declares, with the files that it includes
---@field path string
---@field values table<string, {value: any, origin: string}> plain settings by name
---@field limits table<string, {value: any, origin: string}>
---@field backends table<string, table> name -> {use, options, origin, dir}
---@field policies table[] {name or path, options, origin}
---@field tools table<string, table> name -> definition with origin
---@field tool_list? {names: string[], origin: string}
---@field loads string[] other files and directories that it names, for the trust of it

-- What of Lua a configuration has. Files, processes and modules are for the files that tool_path,
-- backend_path and so on name: a trusted configuration loads nothing that trust does not know of.
local SAFE = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type",
  "unpack", "xpcall",
}
local LIBRARIES = {
  string = string, table = table, math = math, bit = require("bit"),
  os = { clock = os.clock, date = os.date, difftime = os.difftime, time = os.time },
}

-- Fresh copies, so that a configuration cannot change what others use.
local function safe_globals()
  local globals = {}
  for _, name in ipairs(SAFE) do
    globals[name] = _G[name]
  end
  for library, functions in pairs(LIBRARIES) do
    globals[library] = {}
    for name, value in pairs(functions) do
      globals[library][name] = value
    end
  end
  globals.string.dump = nil
  setmetatable(globals.os, { __index = function(_, name)
    error(("os.%s is not there in a configuration; env \"NAME\" reads the environment")
      :format(tostring(name)), 2)
  end })
  return globals
end

local function missing(words, name)
  if _G[name] ~= nil then
    return name .. " is not there in a configuration; the files in tool_path, backend_path and "
      .. "stub_path have all of Lua"
  end
  return config_words.unknown("word", name, config_words.sorted_keys(words))
end

local function environment_of(words)
  local globals = safe_globals()
  return setmetatable({}, {
    __index = function(_, name)
      local value = words[name]
      if value == nil then
        value = globals[name]
      end
      if value == nil then
        error(missing(words, name), 2)
      end
      return value
    end,
    __newindex = function(_, name, value)
      if words[name] then
        error(("write %s %s, without ="):format(name,
          type(value) == "string" and ("%q"):format(value) or "{ ... }"), 2)
      elseif config_words.LIMITS[name] then
        error(("write limits { %s = %s }"):format(name, tostring(value)), 2)
      end
      local near = suggest.nearest(tostring(name), config_words.sorted_keys(words))
      if near then
        error(("%s; write it without ="):format(config_words.unknown("word", name, { near })), 2)
      end
      error(("a configuration sets no globals; write local %s = ..."):format(tostring(name)), 2)
    end,
  })
end

-- Runs the file at path; `include` runs another in its place.
local function run(path, layer, options, depth)
  local text, message = options.read(path)
  if not text then
    error(message, 0)
  end
  local dir = path:match("^(.*)/") or "."
  local words = config_words.new(layer, dir, options.environ)
  function words.include(name)
    if type(name) ~= "string" or name == "" then
      error("include \"FILE\"", 2)
    elseif depth >= MAX_INCLUDES then
      error("the files include one another without end", 2)
    end
    local other = places.beside(dir, name)
    if not fs.stat(other) then
      error(("include \"%s\": no such file"):format(other), 2)
    end
    table.insert(layer.loads, other)
    run(other, layer, options, depth + 1)
  end
  local ok, failure = plugin.run(path, environment_of(words), text)
  if not ok then
    error(failure, 0)
  end
end

local function read_file(path)
  local text, message = fs.read(path, MAX_FILE)
  if text then
    return text
  end
  return nil, errors.new("config", path, (message:gsub("^.*: ", "")))
end

---@class farcall.config_file.Options
---@field environ? table<string, string> what `env "NAME"` reads
---@field read? fun(path: string): string?, farcall.Error? how a file is read, and whether it may be

---@param path string absolute
---@param options? farcall.config_file.Options
---@return farcall.ConfigLayer?
---@return farcall.Error? err its message begins with FILE:LINE
---@nodiscard
function config_file.load(path, options)
  options = options or {}
  local layer = {
    path = path, values = {}, limits = {}, backends = {}, policies = {}, tools = {}, loads = {},
    unfinished = {},
  }
  local ok, failure = pcall(run, path, layer,
    { environ = options.environ or {}, read = options.read or read_file }, 1)
  if not ok then
    return nil, errors.is(failure) and failure or errors.new("config", "", tostring(failure))
  end
  local entry = next(layer.unfinished)
  if entry then
    return nil, errors.new("config", "", ("%s: expected %s"):format(entry.where, entry.usage))
  end
  return layer
end

return config_file
