-- SPDX-License-Identifier: MIT
-- The one resolver of configuration. In this order, the later over the earlier: built-in defaults,
-- /etc/farcall/config.lua, $XDG_CONFIG_HOME/farcall/config.lua, ./farcall.lua (when trusted) or the
-- file that -C names, FARCALL_* variables, flags. Policies of all layers add up; the list of tools
-- and an operator's budget can only be narrowed by a later layer. The only file that reads
-- environment variables.

local config_file = require("farcall.config_file")
local config_merge = require("farcall.config_merge")
local config_words = require("farcall.config_words")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local places = require("farcall.places")
local suggest = require("farcall.suggest")
local system = require("farcall.core.system")
local trust = require("farcall.trust")

local config = {}

local DEFAULT_LIMITS = {
  timeout = 300, max_calls = 50, parallel_calls = 16, stdout_bytes = 50000, stderr_bytes = 10000,
  spill_bytes = 5000000, sessions = 16, session_idle = 1800, idle_environments = 16,
  journal_days = 90,
}

---The variables that count, in the order of the help. Any other that begins with FARCALL_ is an
---error: it would be a setting that is silently not there. An empty one is as good as not set.
---@type {name: string, doc: string, limit?: string, value?: string, path?: boolean}[]
config.VARIABLES = {
  { name = "FARCALL_BACKEND", value = "default_backend", doc = "the backend of runs without -b" },
  { name = "FARCALL_TIMEOUT", limit = "timeout", doc = "seconds until a script is killed" },
  { name = "FARCALL_MAX_CALLS", limit = "max_calls", doc = "tool calls of a script" },
  { name = "FARCALL_STUB_MODULE", value = "stub_module", doc = "the module that scripts import" },
  { name = "FARCALL_STATE_DIR", value = "state_dir", path = true, doc = "where runs are kept" },
  { name = "FARCALL_RUNTIME_DIR", value = "runtime_dir", path = true, doc = "where sockets are" },
  { name = "FARCALL_SUPERVISOR", doc = "the program farcall-supervisor, if not beside farcall" },
  { name = "FARCALL_RUNNERS", doc = "the directory with the programs of runners" },
  { name = "FARCALL_LUA", doc = "the directory that holds farcall's Lua files, as farcall/" },
  { name = "FARCALL_RUN_DIR", doc = "set for scripts: where their socket and stub are" },
  { name = "FARCALL_RUNNER", doc = "set for scripts: the program that joins sh with their socket" },
  { name = "FARCALL_MARK", doc = "set for scripts elsewhere: their processes are known by it" },
}

---@class farcall.Config
---@field backends table<string, {use: string, options: table, labels?: table, cost?: number,
---origin: string, dir: string}>
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
---@field runner_dir? string directory with the programs of runners
---@field runner_forms string[] "c", "python": those that are brought, the first first
---@field files string[] the files that were read
---@field origins table<string, string> where each value comes from
---@field log? farcall.Log set by who loads it

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

---./farcall.lua, as far as it is trusted.
local function read_here(path, environ, state_dir)
  local read, err = trust.reader(state_dir, path)
  if not read then
    return nil, err
  end
  local layer
  layer, err = config_file.load(path, { environ = environ, read = read })
  if not layer then
    return nil, err
  end
  local trusted
  trusted, err = trust.check(state_dir, layer)
  return trusted and layer, err
end

---The configuration files that count, in order.
---@return farcall.ConfigLayer[]?
---@return farcall.Error? err
local function read_layers(options, environ)
  local layers, paths = {}, {}
  for _, path in ipairs(places.config_files(environ)) do
    paths[#paths + 1] = fs.stat(path) and path
  end
  if options.file then
    local path = places.absolute(options.file)
    if not fs.stat(path) then
      return failure(options.file .. ": no such configuration file")
    end
    paths[#paths + 1] = path
  end
  for i, path in ipairs(paths) do
    local err
    layers[i], err = config_file.load(path, { environ = environ })
    if err then
      return nil, err
    end
  end
  local here = not options.file and not options.ignore_here and places.config_here()
  -- The user's own file can lie in the current directory too.
  if here and not contains(paths, here) then
    local layer, err = read_here(here, environ, places.state_dir(environ))
    if not layer then
      return nil, err
    end
    table.insert(layers, layer)
  end
  return layers
end

---@return true?
---@return farcall.Error? err
local function refuse_unknown_variables(environ)
  local known = {}
  for i, variable in ipairs(config.VARIABLES) do
    known[i] = variable.name
  end
  for _, name in ipairs(config_words.sorted_keys(environ)) do
    if name:find("^FARCALL_") and not contains(known, name) then
      local near = suggest.nearest(name, known)
      return failure("unknown environment variable " .. name,
        near and ("did you mean %s?"):format(near) or "`farcall config --help` lists them")
    end
  end
  return true
end

---@return true?
---@return farcall.Error? err
local function apply_variables(cfg, environ)
  for _, variable in ipairs(config.VARIABLES) do
    local name, text = variable.name, environ[variable.name] or ""
    if text ~= "" and variable.limit then
      local problem = config_words.limit_problem(variable.limit, tonumber(text))
      if problem then
        return failure(("%s=%s: %s"):format(name, text, problem))
      end
      config_merge.set_limit(cfg, variable.limit, tonumber(text), name)
    elseif text ~= "" and variable.value then
      cfg[variable.value] = variable.path and places.absolute(text) or text
      cfg.origins[variable.value] = name
    end
  end
  return refuse_unknown_variables(environ)
end

local FLAGS = { timeout = "--timeout", max_calls = "--max-calls" }

---Flags of a run that concern limits; the rest of a run's flags belong to its job.
local function apply_flags(cfg, flags)
  for name, flag in pairs(FLAGS) do
    local value = flags[name]
    if value then
      local problem = config_words.limit_problem(name, value)
      if problem then
        return nil, errors.new("usage", flag, problem)
      end
      config_merge.set_limit(cfg, name, value, flag)
    end
  end
  return true
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
  return places.make_private(cfg.runtime_dir)
end

---@class farcall.config.Options
---@field file? string what -C names
---@field flags? {timeout?: number, max_calls?: integer}
---@field environ? table<string, string> instead of this process' own
---@field ignore_here? boolean do not look for ./farcall.lua

---@param options? farcall.config.Options
---@return farcall.Config?
---@return farcall.Error? err of kind config or denied; usage where a flag is wrong
---@nodiscard
function config.load(options)
  options = options or {}
  local environ = options.environ or system.environ()
  local layers, err = read_layers(options, environ)
  if not layers then
    return nil, err
  end
  local cfg = {
    backends = {}, policies = {}, tools = {}, backend_path = {}, policy_path = {}, tool_path = {},
    stub_path = {}, passthrough = {}, limits = {}, max_calls_fixed = false, journal_sync = "end",
    stub_module = "farcall", state_dir = places.state_dir(environ),
    runtime_dir = places.runtime_dir(environ), environ = environ,
    supervisor = places.supervisor(environ), runner_dir = places.runners(environ),
    runner_forms = { "c", "python" }, lua_dir = places.LUA_DIR, files = {}, origins = {},
  }
  for name, value in pairs(DEFAULT_LIMITS) do
    cfg.limits[name] = value
  end
  for _, layer in ipairs(layers) do
    config_merge.apply(cfg, layer)
  end
  config_merge.list_tools(cfg, layers)
  local ok
  ok, err = apply_variables(cfg, environ)
  if ok then
    ok, err = apply_flags(cfg, options.flags or {})
  end
  if ok then
    ok, err = check_values(cfg)
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
  local path = places.config_here()
  if not path then
    return failure("there is no farcall.lua in " .. (system.cwd() or "the current directory"))
  end
  local environ = system.environ()
  local layer, err = config_file.load(path, { environ = environ })
  if not layer then
    return nil, err
  end
  return layer, places.state_dir(environ)
end

return config
