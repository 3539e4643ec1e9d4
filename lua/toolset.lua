-- SPDX-License-Identifier: MIT
-- The tools of one run: those that are listed, from wherever they are. What is not listed is not
-- there, and a listed name that means nothing is an error.

local errors = require("farcall.errors")
local host_command = require("farcall.host_command")
local plugin = require("farcall.plugin")
local schema = require("farcall.schema")

---@class farcall.Toolset
---@field private tools table<string, farcall.Tool>
---@field private sorted string[]
local toolset = {}
toolset.__index = toolset

local BUILT_IN = {
  terminal = true, read_file = true, write_file = true, search_files = true, patch = true,
}

local function config_error(name, message, fields)
  return nil, errors.new("config", "tool " .. name, message, fields)
end

---A tool out of a configuration: with a handler in Lua, or a program.
local function from_config(name, spec, cfg)
  if type(spec) ~= "table" then
    return config_error(name, "a tool is a table")
  end
  local where = spec.origin and spec.origin .. ": " or ""
  if (spec.handler == nil) == (spec.command == nil) then
    return config_error(name, where .. "a tool has either a handler or a command")
  end
  local tool = { origin = spec.origin, name = name }
  for _, field in ipairs({
    "summary", "description", "parameters", "order", "returns", "idempotent", "handler",
  }) do
    tool[field] = spec[field]
  end
  if spec.command then
    local words = type(spec.command) == "table" and spec.command or {}
    for _, word in ipairs(words) do
      if type(word) ~= "string" or word:find("\0", 1, true) then
        return config_error(name, where .. "command is a list of strings")
      end
    end
    if #words == 0 then
      return config_error(name, where .. "command is a list of strings: program, arguments")
    end
    if spec.timeout ~= nil and not (type(spec.timeout) == "number" and spec.timeout > 0) then
      return config_error(name, where .. "timeout is a number of seconds")
    end
    tool.handler = host_command.handler(spec, cfg)
    tool.command = words
  end
  return tool
end

---The operator's own come before the built-in ones: configuration, then tool_path, then ours.
local function find(name, cfg)
  local configured = (cfg.tools or {})[name]
  if configured then
    return from_config(name, configured, cfg)
  end
  if BUILT_IN[name] and #(cfg.tool_path or {}) == 0 then
    return require("farcall.tools." .. name)
  end
  local path, err = plugin.find("tool", name, cfg.tool_path)
  if not path then
    return nil, err
  end
  local tool
  tool, err = plugin.load("tool", path)
  if not tool then
    return nil, err
  end
  if tool.name ~= name then
    return config_error(name, ("%s: its name is %q"):format(path, tostring(tool.name)))
  end
  tool.path = path
  return tool
end

---@return string? problem
local function misshapen(tool)
  if #tool.name > 64 or not tool.name:find("^[%a_][%w_.%-]*$") or tool.name:find("^farcall%.") then
    return "a tool's name has letters, digits, _, - and ., at most 64, and a letter first"
  elseif type(tool.handler) ~= "function" then
    return "handler is a function"
  elseif tool.parameters ~= nil and type(tool.parameters) ~= "table" then
    return "parameters is a JSON Schema, as a table"
  elseif tool.order ~= nil and type(tool.order) ~= "table" then
    return "order is a list of the parameters' names"
  end
  for _, field in ipairs({ "summary", "description", "returns" }) do
    if tool[field] ~= nil and type(tool[field]) ~= "string" then
      return field .. " is a text"
    end
  end
  return nil
end

---A copy of a tool, complete and with its validator.
local function finished(tool)
  local problem = misshapen(tool)
  if problem then
    return config_error(tool.name, problem)
  end
  local own = {}
  for key, value in pairs(tool) do
    own[key] = value
  end
  own.parameters = tool.parameters
    or { type = "object", properties = {}, additionalProperties = false }
  -- An argument that the tool does not know is a mistake, unless the schema says otherwise.
  if own.parameters.properties and own.parameters.additionalProperties == nil then
    local closed = { additionalProperties = false }
    for key, value in pairs(own.parameters) do
      closed[key] = value
    end
    own.parameters = closed
  end
  own.summary = tool.summary or ""
  own.idempotent = tool.idempotent == true
  local reason
  own.validator, reason = schema.compile(own.parameters)
  if not own.validator then
    return config_error(tool.name, "parameters: " .. tostring(reason))
  end
  return own
end

---Every name that could be listed.
---@param cfg farcall.Config
---@return string[] sorted
function toolset.available(cfg)
  local names, seen = {}, {}
  local function add(name)
    if not seen[name] then
      seen[name] = true
      names[#names + 1] = name
    end
  end
  for name in pairs(cfg.tools or {}) do
    add(name)
  end
  for _, entry in ipairs(plugin.all("tool", cfg.tool_path or {}) or {}) do
    add(entry.name)
  end
  for name in pairs(BUILT_IN) do
    add(name)
  end
  table.sort(names)
  return names
end

local function contains(list, name)
  for _, item in ipairs(list or {}) do
    if item == name then
      return true
    end
  end
  return false
end

---Why a name is none of the tools that a script may call, and what to do about it, in words.
---@param cfg farcall.Config
---@param name string
---@return string
function toolset.why_not(cfg, name)
  if contains(cfg.enabled_tools, name) then
    return ("the tool %s is not among those that this run allows"):format(name)
  elseif contains(toolset.available(cfg), name) then
    local origin = (cfg.origins or {}).tools
    return ("there is a tool %s, but it is not listed: put its name into tools { ... }%s"):format(
      name, origin and (" (%s)"):format(origin) or " of the configuration")
  end
  local near = schema.suggest(name, cfg.enabled_tools or {})
  return ("there is no tool %s%s"):format(name, near and (": did you mean %s?"):format(near)
    or "; `farcall tools` lists what there is")
end

---The tools of these names. No names are no tools.
---@param options {cfg: farcall.Config, names: string[]}
---@return farcall.Toolset?
---@return farcall.Error? err
---@nodiscard
function toolset.new(options)
  local cfg, self = options.cfg, setmetatable({ tools = {}, sorted = {} }, toolset)
  for _, name in ipairs(options.names or {}) do
    if not self.tools[name] then
      local tool, err = find(name, cfg)
      if tool then
        tool, err = finished(tool)
      end
      if not tool then
        if errors.is(err) and err.kind == "not_found" then
          local near = schema.suggest(name, toolset.available(cfg))
          return config_error(name, "there is no tool of this name", {
            hint = near and "did you mean " .. near .. "?" or nil, cause = err,
          })
        end
        return nil, err
      end
      self.tools[name] = tool
      table.insert(self.sorted, name)
    end
  end
  table.sort(self.sorted)
  return self
end

---@param name string
---@return farcall.Tool?
function toolset:get(name)
  return self.tools[name]
end

---@return string[] sorted
function toolset:names()
  local names = {}
  for i, name in ipairs(self.sorted) do
    names[i] = name
  end
  return names
end

---What a script is told that calls a tool which is not there.
---@param name string
---@return {error: {kind: string, message: string}}
function toolset:unknown(name)
  local shown = name:sub(1, 64):gsub("[^%w_.%- ]", "?")
  local message
  if #self.sorted == 0 then
    message = "this run has no tools"
  else
    local near = schema.suggest(name, self.sorted)
    message = ("no tool is called %s; "):format(shown)
      .. (near and "did you mean " .. near .. "?" or "there are: "
        .. table.concat(self.sorted, ", ", 1, math.min(20, #self.sorted)))
  end
  return { error = { kind = "not_found", message = message } }
end

return toolset
