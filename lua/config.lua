-- SPDX-License-Identifier: MIT
-- The one resolver of configuration. In this order, the later over the earlier: built-in defaults,
-- /etc/farcall/config.lua, $XDG_CONFIG_HOME/farcall/config.lua, ./farcall.lua (when trusted) or the
-- file that -C names, FARCALL_* variables, flags. Policies of all layers add up; the list of tools
-- and an operator's budget can only be narrowed by a later layer. The only file that reads
-- environment variables.

local config_file = require("farcall.config_file")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local schema = require("farcall.schema")
local system = require("farcall.core.system")
local trust = require("farcall.trust")

local config = {}

local BUILT_IN_TOOLS = { "patch", "read_file", "search_files", "terminal", "write_file" }

local DEFAULT_LIMITS = {
  timeout = 300, max_calls = 50, parallel_calls = 16, stdout_bytes = 50000, stderr_bytes = 10000,
  spill_bytes = 5000000,
}

-- FARCALL_X -> what it sets. FARCALL_LUA is the program's own; the last two are what a script sees.
local VARIABLES = {
  FARCALL_BACKEND = { value = "default_backend" }, FARCALL_TIMEOUT = { limit = "timeout" },
  FARCALL_MAX_CALLS = { limit = "max_calls" }, FARCALL_STATE_DIR = { value = "state_dir" },
  FARCALL_RUNTIME_DIR = { value = "runtime_dir" }, FARCALL_STUB_MODULE = { value = "stub_module" },
  FARCALL_LUA = {}, FARCALL_RUN_DIR = {}, FARCALL_SUPERVISOR = {},
}

---@class farcall.Config
---@field backends table<string, {use: string, options: table, origin: string}>
---@field default_backend? string
---@field policies {name?: string, path?: string, options: table, origin: string}[]
---@field tools table<string, table> the configuration's own tools
---@field enabled_tools string[] all that scripts may call
---@field backend_path string[]
---@field policy_path string[]
---@field tool_path string[]
---@field stub_path string[]
---@field stub_options {module: string, errors?: string}
---@field limits table<string, number>
---@field max_calls_fixed boolean an operator's file set the budget: a flag can only lower it
---@field state_dir string
---@field runtime_dir string private to this user
---@field environ table<string, string>
---@field passthrough string[]
---@field journal_sync "end"|"call"
---@field supervisor string path of farcall-supervisor
---@field files string[] the files that were read
---@field origins table<string, string> where each value comes from

local function failure(message, hint)
  return nil, errors.new("config", "", message, { hint = hint })
end

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then
      return true
    end
  end
  return false
end

local function absolute(path)
  return path:sub(1, 1) == "/" and path or system.cwd() .. "/" .. path:gsub("^%./", "")
end

-- The directory that holds this file, absolute, with no link resolved.
local LUA_DIR = absolute(debug.getinfo(1, "S").source:match("^@(.*)/config%.lua$") or "lua")

---The supervisor is installed beside the program; a host program finds it from the Lua tree.
local function find_supervisor(environ)
  if environ.FARCALL_SUPERVISOR then
    return environ.FARCALL_SUPERVISOR
  end
  local beside = (system.exe() or ""):match("^(.*)/") or "."
  for _, dir in ipairs({ beside, LUA_DIR .. "/../..", LUA_DIR .. "/../../../../bin" }) do
    if fs.stat(dir .. "/farcall-supervisor") then
      return dir .. "/farcall-supervisor"
    end
  end
  return nil
end

-- A directory of the XDG specification: one that is empty or not absolute is as good as not set.
local function xdg(environ, name, default)
  local dir = environ[name]
  return dir and dir:sub(1, 1) == "/" and dir or default
end

local function state_home(environ)
  return xdg(environ, "XDG_STATE_HOME", (environ.HOME or "/tmp") .. "/.local/state")
end

---A directory that only this user can enter, made when it is not there. One that somebody else owns
---or can enter is refused.
local function private_directory(path)
  local made, message = fs.mkdir(path, 448, true)
  local stat = fs.stat(path, true)
  if not stat then
    return failure(("%s: cannot be made: %s"):format(path, not made and message or "?"))
  end
  if stat.type ~= "directory" or stat.uid ~= system.uid() or stat.mode % 64 ~= 0 then
    return failure(path .. ": must be a directory of yours with mode 0700")
  end
  return path
end

local function runtime_home(environ)
  local dir = xdg(environ, "XDG_RUNTIME_DIR")
  return dir and dir .. "/farcall" or ("/tmp/farcall-%d"):format(system.uid())
end

---The configuration files that count, in order.
---@return farcall.ConfigLayer[]?
---@return farcall.Error? err
local function read_layers(options, environ, state_dir)
  local layers = {}
  local config_home = xdg(environ, "XDG_CONFIG_HOME", (environ.HOME or "") .. "/.config")
  local paths = { "/etc/farcall/config.lua", config_home .. "/farcall/config.lua" }
  local here = system.cwd() .. "/farcall.lua"
  if options.file then
    table.insert(paths, absolute(options.file))
    if not fs.stat(absolute(options.file)) then
      return failure(options.file .. ": no such configuration file")
    end
  elseif fs.stat(here) and not options.ignore_here then
    local trusted, err = trust.check_file(state_dir, here)
    if not trusted then
      return nil, err
    end
    table.insert(paths, here)
  end
  for _, path in ipairs(paths) do
    if fs.stat(path) then
      local layer, err = config_file.load(path)
      if layer and path == here and not options.file then
        local trusted
        trusted, err = trust.check(state_dir, layer)
        layer = trusted and layer
      end
      if not layer then
        return nil, err
      end
      table.insert(layers, layer)
    end
  end
  return layers
end

---Everything that a layer says over what is there so far.
local function apply_layer(cfg, layer)
  table.insert(cfg.files, layer.path)
  for name, entry in pairs(layer.values) do
    if name:find("_path$") or name == "passthrough" then
      for _, item in ipairs(entry.value) do
        table.insert(cfg[name], item)
      end
    else
      cfg[name] = entry.value
    end
    cfg.origins[name] = entry.origin
  end
  for name, entry in pairs(layer.limits) do
    if name == "max_calls" and cfg.max_calls_fixed then
      entry.value = math.min(entry.value, cfg.limits.max_calls)
    end
    cfg.limits[name] = entry.value
    cfg.origins["limits." .. name] = entry.origin
    cfg.max_calls_fixed = cfg.max_calls_fixed or name == "max_calls"
  end
  for name, entry in pairs(layer.backends) do
    cfg.backends[name] = entry
  end
  for _, entry in ipairs(layer.policies) do
    table.insert(cfg.policies, entry)
    cfg.max_calls_fixed = cfg.max_calls_fixed or entry.name == "budget"
  end
  for name, tool in pairs(layer.tools) do
    cfg.tools[name] = tool
  end
end

-- The first list of tools counts, later ones narrow it; without any, the built-in tools and those
-- that the configuration itself defines.
local function list_tools(cfg, layers)
  local names
  for _, layer in ipairs(layers) do
    local list = layer.tool_list
    if list and not names then
      names = list.names
    elseif list then
      local wanted, kept = {}, {}
      for _, name in ipairs(list.names) do
        wanted[name] = true
      end
      for _, name in ipairs(names) do
        if wanted[name] then
          kept[#kept + 1] = name
        end
      end
      names = kept
    end
    cfg.origins.tools = list and list.origin or cfg.origins.tools
  end
  if not names then
    names = {}
    for _, name in ipairs(BUILT_IN_TOOLS) do
      names[#names + 1] = name
    end
    for name in pairs(cfg.tools) do
      if not contains(BUILT_IN_TOOLS, name) then
        names[#names + 1] = name
      end
    end
  end
  cfg.enabled_tools = names
end

---@return true?
---@return farcall.Error? err
local function apply_variables(cfg, environ)
  local known = {}
  for name in pairs(VARIABLES) do
    known[#known + 1] = name
  end
  for name, value in pairs(environ) do
    local target = VARIABLES[name]
    if name:find("^FARCALL_") and not target then
      local near = schema.suggest(name, known)
      return failure("unknown environment variable " .. name,
        near and ("did you mean %s?"):format(near) or nil)
    elseif target and target.limit then
      local number = tonumber(value)
      if not number or number <= 0 then
        return failure(("%s must be a number above 0, not %q"):format(name, value))
      end
      if target.limit == "max_calls" and cfg.max_calls_fixed then
        number = math.min(number, cfg.limits.max_calls)
      end
      cfg.limits[target.limit] = number
      cfg.origins["limits." .. target.limit] = name
    elseif target and target.value then
      cfg[target.value] = value
      cfg.origins[target.value] = name
    end
  end
  return true
end

---Flags of a run that concern limits; the rest of a run's flags belong to its job.
local function apply_flags(cfg, flags)
  if flags.timeout then
    cfg.limits.timeout = flags.timeout
    cfg.origins["limits.timeout"] = "--timeout"
  end
  if flags.max_calls then
    local lower = cfg.max_calls_fixed and cfg.limits.max_calls or math.huge
    cfg.limits.max_calls = math.min(flags.max_calls, lower)
    cfg.origins["limits.max_calls"] = "--max-calls"
  end
end

local ONE_OF = {
  journal_sync = { "end", "call" }, stub_errors = { "raise", "return" },
}

local function check_values(cfg)
  for name, allowed in pairs(ONE_OF) do
    if cfg[name] ~= nil and not contains(allowed, cfg[name]) then
      return failure(("%s: %s must be one of %s, not %q"):format(cfg.origins[name] or "?", name,
        table.concat(allowed, ", "), tostring(cfg[name])))
    end
  end
  if not cfg.supervisor then
    return failure("farcall-supervisor is not beside the program",
      "build or install it whole, or set FARCALL_SUPERVISOR")
  end
  return true
end

---@class farcall.config.Options
---@field file? string what -C names
---@field flags? {timeout?: number, max_calls?: integer}
---@field environ? table<string, string> instead of this process' own
---@field ignore_here? boolean do not look for ./farcall.lua

---@param options? farcall.config.Options
---@return farcall.Config?
---@return farcall.Error? err of kind config or denied
---@nodiscard
function config.load(options)
  options = options or {}
  local environ = options.environ or system.environ()
  local state_dir = environ.FARCALL_STATE_DIR or state_home(environ) .. "/farcall"
  local layers, err = read_layers(options, environ, state_dir)
  if not layers then
    return nil, err
  end
  local cfg = {
    backends = {}, policies = {}, tools = {}, backend_path = {}, policy_path = {}, tool_path = {},
    stub_path = {}, passthrough = {}, limits = {}, max_calls_fixed = false, journal_sync = "end",
    stub_module = "farcall", state_dir = state_dir, runtime_dir = runtime_home(environ),
    environ = environ, supervisor = find_supervisor(environ), lua_dir = LUA_DIR, files = {},
    origins = {},
  }
  for name, value in pairs(DEFAULT_LIMITS) do
    cfg.limits[name] = value
  end
  for _, layer in ipairs(layers) do
    apply_layer(cfg, layer)
  end
  list_tools(cfg, layers)
  local ok
  ok, err = apply_variables(cfg, environ)
  if ok then
    apply_flags(cfg, options.flags or {})
    ok, err = check_values(cfg)
  end
  if ok then
    ok, err = private_directory(cfg.runtime_dir)
  end
  if not ok then
    return nil, err
  end
  cfg.stub_options = { module = cfg.stub_module, errors = cfg.stub_errors }
  return cfg
end

---This process' environment variables, for those who may not read them themselves.
---@return table<string, string>
function config.environ()
  return system.environ()
end

---The ./farcall.lua of the current directory, run without asking for trust: for `farcall trust`.
---@return farcall.ConfigLayer?
---@return farcall.Error|string err or the state directory
function config.here()
  local path = system.cwd() .. "/farcall.lua"
  if not fs.stat(path) then
    return failure("there is no farcall.lua in " .. system.cwd())
  end
  local layer, err = config_file.load(path)
  if not layer then
    return nil, err
  end
  local environ = system.environ()
  return layer, environ.FARCALL_STATE_DIR or state_home(environ) .. "/farcall"
end

return config
