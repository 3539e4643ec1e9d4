-- SPDX-License-Identifier: MIT
-- One configuration file: runs it with the words of a configuration as its globals and collects
-- what it declares, each with its file and line. It decides nothing about precedence.

local errors = require("farcall.errors")
local plugin = require("farcall.plugin")
local schema = require("farcall.schema")

local config_file = {}

---@class farcall.ConfigLayer what one file declares
---@field path string
---@field values table<string, {value: any, origin: string}> plain settings by name
---@field limits table<string, {value: any, origin: string}>
---@field backends table<string, table> name -> {use, options, origin}
---@field policies table[] {name or path, options, origin}
---@field tools table<string, table> name -> definition with origin
---@field tool_list? {names: string[], origin: string}
---@field loads string[] other files and directories that it names, for the trust of it

-- Plain settings: name -> type; "path" and "paths" are relative to the file.
config_file.SETTINGS = {
  default_backend = "string", stub_module = "string", stub_errors = "string",
  journal_sync = "string", state_dir = "path", runtime_dir = "path",
  backend_path = "paths", policy_path = "paths", tool_path = "paths", stub_path = "paths",
  passthrough = "list",
}

-- Limits and what they count.
config_file.LIMITS = {
  timeout = "seconds of a script", max_calls = "tool calls of a script",
  parallel_calls = "tool calls at once", stdout_bytes = "bytes of output in a result",
  stderr_bytes = "bytes of errors in a result", spill_bytes = "bytes of output kept in a file",
}

local function is_list_of_strings(value)
  if type(value) ~= "table" then
    return false
  end
  local count = 0
  for key, item in pairs(value) do
    if type(key) ~= "number" or type(item) ~= "string" then
      return false
    end
    count = count + 1
  end
  return count == #value
end

local function unknown(what, name, candidates)
  local near = schema.suggest(name, candidates)
  local hint = near and (": did you mean '%s'?"):format(near) or ""
  return ("unknown %s '%s'%s"):format(what, name, hint)
end

local function keys(map)
  local list = {}
  for key in pairs(map) do
    list[#list + 1] = key
  end
  table.sort(list)
  return list
end

---The words, writing into layer. Levels of error() point at the line of the configuration.
local function words_for(layer, dir)
  local words = {}

  local function origin(level)
    local info = debug.getinfo(level + 1, "Sl")
    return ("%s:%d"):format(info.source:gsub("^@", ""), info.currentline)
  end

  local function absolute(path)
    return path:sub(1, 1) == "/" and path or dir .. "/" .. path:gsub("^%./", "")
  end

  local function check(value, expected, level)
    if expected == "paths" or expected == "list" then
      if not is_list_of_strings(value) then
        error("expected a list of strings, { \"...\" }", level + 1)
      end
    elseif type(value) ~= "string" then
      error("expected a string, got a " .. type(value), level + 1)
    end
  end

  for name, expected in pairs(config_file.SETTINGS) do
    words[name] = function(value)
      check(value, expected, 2)
      if expected == "path" then
        value = absolute(value)
      elseif expected == "paths" then
        local paths = {}
        for i, path in ipairs(value) do
          paths[i] = absolute(path)
          table.insert(layer.loads, paths[i])
        end
        value = paths
      end
      layer.values[name] = { value = value, origin = origin(2) }
    end
  end

  function words.limits(values)
    if type(values) ~= "table" then
      error("limits { name = number }", 2)
    end
    for name, value in pairs(values) do
      if not config_file.LIMITS[name] then
        error(unknown("limit", tostring(name), keys(config_file.LIMITS)), 2)
      end
      if type(value) ~= "number" or value <= 0 then
        error(("limit %s must be a number above 0 (%s)"):format(name, config_file.LIMITS[name]), 2)
      end
      layer.limits[name] = { value = value, origin = origin(2) }
    end
  end

  -- word "name" { fields }
  local function named(word, take)
    words[word] = function(name)
      if type(name) ~= "string" then
        error(("%s \"name\" { ... }"):format(word), 2)
      end
      return function(fields)
        if type(fields) ~= "table" then
          error(("%s \"%s\" { ... }"):format(word, name), 2)
        end
        take(name, fields, origin(2))
      end
    end
  end

  named("backend", function(name, fields, where)
    local options = {}
    for key, value in pairs(fields) do
      if key ~= "use" then
        options[key] = value
      end
    end
    layer.backends[name] = { use = fields.use or name, options = options, origin = where }
  end)

  named("policy", function(name, fields, where)
    local entry = { options = fields, origin = where }
    if name:find("/", 1, true) then
      entry.path = absolute(name)
      table.insert(layer.loads, entry.path)
    else
      entry.name = name
    end
    table.insert(layer.policies, entry)
  end)

  named("tool", function(name, fields, where)
    fields.origin = where
    layer.tools[name] = fields
  end)

  function words.tools(names)
    if not is_list_of_strings(names) then
      error("tools { \"name\", ... }: the whole list of what scripts may call", 2)
    end
    layer.tool_list = { names = names, origin = origin(2) }
  end

  return words
end

---@param path string absolute
---@return farcall.ConfigLayer?
---@return farcall.Error? err its message begins with FILE:LINE
---@nodiscard
function config_file.load(path)
  local layer = {
    path = path, values = {}, limits = {}, backends = {}, policies = {}, tools = {}, loads = {},
  }
  local words = words_for(layer, path:match("^(.*)/") or ".")
  local environment = setmetatable({}, {
    __index = function(_, name)
      local value = words[name]
      if value == nil then
        value = _G[name]
      end
      if value == nil then
        error(unknown("word", tostring(name), keys(words)), 2)
      end
      return value
    end,
    __newindex = function(_, name)
      error(("a configuration sets no globals: %s"):format(tostring(name)), 2)
    end,
  })
  local ok, failure = plugin.run(path, environment)
  if not ok then
    return nil, errors.new("config", "", tostring(failure))
  end
  return layer
end

return config_file
