-- SPDX-License-Identifier: MIT
-- Loads what an operator drops into a directory: backends, policies, tools and stub templates, one
-- Lua file each. It finds, runs and checks the shape; mistakes are told with file and line.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local jit = require("jit")
local schema = require("farcall.schema")

local plugin = {}

---@alias farcall.PluginKind "backend"|"policy"|"tool"|"stub"

local FOLDERS = { backend = "backends", policy = "policies", tool = "tools", stub = "stubs" }

-- The fields that a file of each kind must have, and of what type.
local SHAPES = {
  backend = { name = "string", summary = "string", api = "number", open = "function" },
  tool = { summary = "string", handler = "function" },
  stub = { language = "string", extensions = "table", interpreter = "table", render = "function" },
}

-- The tree that this file is part of holds the built-in ones.
local BUILT_IN = debug.getinfo(1, "S").source:match("^@(.*)/plugin%.lua$") or "lua"

local function directories(kind, search)
  local list = {}
  for _, dir in ipairs(search or {}) do
    list[#list + 1] = dir
  end
  list[#list + 1] = BUILT_IN .. "/" .. FOLDERS[kind]
  return list
end

---Every file of a kind, the operator's before the built-in ones; of one name the first counts.
---@param kind farcall.PluginKind
---@param search? string[] the operator's directories
---@return {name: string, path: string, built_in: boolean}[] sorted by name
function plugin.all(kind, search)
  local found, list = {}, {}
  local dirs = directories(kind, search)
  for i, dir in ipairs(dirs) do
    for _, file in ipairs(fs.list(dir) or {}) do
      local name = file:match("^([%w_%-]+)%.lua$")
      if name and not found[name] then
        found[name] = true
        list[#list + 1] = { name = name, path = dir .. "/" .. file, built_in = i == #dirs }
      end
    end
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

---@param kind farcall.PluginKind
---@param name string
---@param search? string[]
---@return string? path
---@return farcall.Error? err with the nearest name and where it was looked for
---@nodiscard
function plugin.find(kind, name, search)
  local names = {}
  for _, entry in ipairs(plugin.all(kind, search)) do
    if entry.name == name then
      return entry.path
    end
    names[#names + 1] = entry.name
  end
  local near = schema.suggest(name, names)
  return nil, errors.new("not_found", kind .. " " .. name,
    "there is none in " .. table.concat(directories(kind, search), ", "),
    { hint = near and ("did you mean %s?"):format(near) or nil })
end

local function config_error(kind, message)
  return nil, errors.new("config", kind, message)
end

-- What is wrong with the shape of what a file returned; nil when nothing is.
local function misshapen(kind, value)
  if type(value) ~= "table" then
    return "the file must return a table, it returned " .. type(value)
  end
  for field, expected in pairs(SHAPES[kind]) do
    if type(value[field]) ~= expected then
      return ("%s must be a %s, it is %s"):format(field, expected,
        value[field] == nil and "missing" or "a " .. type(value[field]))
    end
  end
  if kind == "backend" and value.api ~= 1 then
    return ("it is written for api %s, this farcall has api 1"):format(tostring(value.api))
  end
  return nil
end

---Runs a Lua file of the operator's and returns what it returned. The compiler stays off in it:
---only so can the watchdog stop what it defines.
---@param path string
---@param environment? table its globals, the ordinary ones unless given
---@param text? string what is in the file, when that has been read already
---@return boolean ok
---@return any value, or the message, which begins with FILE:LINE
function plugin.run(path, environment, text)
  local message
  if not text then
    text, message = fs.read(path, 16 * 1024 * 1024)
  end
  if not text then
    return false, path .. ": " .. message
  end
  if text:byte(1) == 27 then
    return false, path .. ": this is compiled Lua, not a text"
  end
  local chunk, problem = loadstring(text, "@" .. path)
  if not chunk then
    return false, problem
  end
  jit.off(chunk, true)
  if environment then
    setfenv(chunk, environment)
  end
  local ok, value = xpcall(chunk, function(failure)
    return errors.is(failure) and failure or tostring(failure)
  end)
  if not ok and not errors.is(value) and not value:find(path, 1, true) then
    value = path .. ": " .. value
  end
  return ok, value
end

---Loads a backend, tool or stub template. A policy is not run here: it has a state of its own.
---@param kind farcall.PluginKind
---@param path string
---@return table?
---@return farcall.Error? err of kind config, its message begins with FILE:LINE where there is one
---@nodiscard
function plugin.load(kind, path)
  if kind == "policy" then
    local stat, message = fs.stat(path)
    if not stat then
      return config_error(kind, path .. ": " .. message)
    end
    return { path = path }
  end
  local ok, value = plugin.run(path)
  if not ok then
    return config_error(kind, tostring(value))
  end
  local problem = misshapen(kind, value)
  if problem then
    return config_error(kind, path .. ":1: " .. problem)
  end
  value.name = value.name or path:match("([%w_%-]+)%.lua$")
  return value
end

return plugin
