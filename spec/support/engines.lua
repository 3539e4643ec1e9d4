-- SPDX-License-Identifier: MIT
-- An engine for specs: a configuration made by hand, state and run directories in a scratch folder.

local build = require("spec.support.build")
local engine = require("farcall.engine")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local task = require("farcall.task")

local engines = {}

engines.PYTHON = "/usr/bin/python3"

local EVERY_TOOL = { "terminal", "read_file", "write_file", "search_files", "patch" }

---A configuration; fields of `over` replace whole fields, `limits` is merged.
function engines.config(over)
  over = over or {}
  local dir = helper.scratch()
  local cwd = system.cwd()
  local root = build.dir:sub(1, 1) == "/" and build.dir or cwd .. "/" .. build.dir
  local cfg = {
    backends = {}, policies = {}, tools = {}, enabled_tools = EVERY_TOOL,
    backend_path = {}, policy_path = {}, tool_path = {}, stub_path = {},
    limits = {
      timeout = 60, max_calls = 50, stdout_bytes = 50000, stderr_bytes = 10000,
      spill_bytes = 5000000, parallel_calls = 16, sessions = 16, session_idle = 1800,
    },
    state_dir = dir .. "/state", runtime_dir = dir .. "/run", lua_dir = root .. "/lua/farcall",
    supervisor = root .. "/farcall-supervisor",
    runner_dir = root .. "/runner", runner_forms = { "c", "python" },
    environ = { PATH = "/usr/bin:/bin", HOME = dir, LANG = "C.UTF-8" }, passthrough = {},
    journal_sync = "end",
  }
  for key, value in pairs(over) do
    if key == "limits" then
      for name, limit in pairs(value) do
        cfg.limits[name] = limit
      end
    else
      cfg[key] = value
    end
  end
  assert(fs.mkdir(cfg.runtime_dir, 448, true))
  assert(fs.mkdir(cfg.state_dir, 448, true))
  return cfg
end

---Runs body(engine, cfg) as a task with a fresh engine, which is closed whatever happens.
function engines.with(over, body)
  return task.run(function()
    local cfg = engines.config(over)
    local one = engine.new(cfg)
    local results = { pcall(body, one, cfg) }
    one:close()
    if not results[1] then
      error(results[2], 0)
    end
    return unpack(results, 2)
  end)
end

---One Python script in a fresh engine; `over` is the configuration's, `job` the job's fields.
function engines.python(script, over, job, hooks)
  return engines.with(over, function(one)
    local spec = { script = script, language = "python" }
    for key, value in pairs(job or {}) do
      spec[key] = value
    end
    return assert(one:run(spec, hooks))
  end)
end

return engines
