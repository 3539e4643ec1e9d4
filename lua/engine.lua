-- SPDX-License-Identifier: MIT
-- The engine: takes jobs, places them, gives each its environment, tools and policies, and runs any
-- number of them at once on one loop.

local Run = require("farcall.run")
local catalog = require("farcall.catalog")
local environments = require("farcall.environments")
local errors = require("farcall.errors")
local journal = require("farcall.journal")
local json = require("farcall.core.json")
local kernels = require("farcall.kernels")
local oneshot = require("farcall.oneshot")
local policy = require("farcall.policy")
local pools = require("farcall.pools")
local runs = require("farcall.runs")
local shell = require("farcall.shell")
local system = require("farcall.core.system")
local task = require("farcall.task")
local toolset = require("farcall.toolset")
local watchdog = require("farcall.core.watchdog")

---@class farcall.Engine
local engine = {}
engine.__index = engine

---@class farcall.Job
---@field script string the text
---@field filename? string what to call it in tracebacks; its extension tells the language
---@field language? string
---@field args? string[]
---@field backend? string name from the configuration, or of a backend
---@field options? table<string, any> of the backend, over the configuration's
---@field timeout? number seconds
---@field max_calls? integer
---@field allow? string[] narrows the tools
---@field policies? table[] {name or path, options}, added to the configuration's
---@field env? table<string, string> given to the script
---@field transport? "uds"|"stream"|"file" the way that calls take; the first that works when absent
---@field session? string runs of one session have one interpreter, one after the other
---@field reset? boolean the session begins anew
---@field pool? integer so many environments of the place, of which the run gets one
---@field id? string of a batch; for policies
---@field labels? table<string, string|number|boolean> for policies
---@field echo? boolean of a session: values of expressions are printed, as at Python's prompt

---@class farcall.Hooks what the caller wants to hear while the script runs
---@field stdout? async fun(bytes: string) cleaned output as it comes
---@field stderr? async fun(bytes: string)
---@field starting? async fun(about: {run_id: string, backend: string}): true?, farcall.Error? the
---script is about to be started, and is not when this fails; before it nothing was executed
---@field call? fun(record: farcall.CallRecord) a call has ended
---@field ask? async fun(question: string): boolean a policy wants a human's word

-- Lua that holds the loop holds up every call: it is told after the first, and stopped after the
-- second of these times.
local HELD_TOLD_MS, HELD_STOPPED_MS = 200, 2000

-- Files of the tree that this one is in are not to blame, and not to be stopped half-way.
local OWN = debug.getinfo(1, "S").source:match("^@(.*/)[^/]*$")

---Must be called in a task; the engine lives on its loop, until engine:close.
---@param cfg farcall.Config
---@return farcall.Engine
function engine.new(cfg)
  local function held(where, held_ms, stopped)
    if cfg.log then
      cfg.log("warning", ("%s held everything up for %d ms%s"):format(where, held_ms,
        stopped and " and was stopped" or ""))
    end
  end
  local guard = assert(watchdog.new(task.loop(),
    { warn_ms = HELD_TOLD_MS, stop_ms = HELD_STOPPED_MS, own = OWN }, held))
  return setmetatable({
    guard = guard,
    cfg = cfg, catalog = catalog.new(cfg), runs = {},
    -- What policies keep for longer than a run, by policy.
    operator = {},
    -- Of each backend: runs that it has, and why it could not be used when last tried.
    running = {}, troubles = {},
    pools = pools.new(),
    kernels = kernels.new(cfg.limits),
    environments = environments.new({
      environ = cfg.environ, passthrough = cfg.passthrough, runtime_dir = cfg.runtime_dir,
      supervisor = cfg.supervisor, log = cfg.log,
    }, cfg.state_dir, { dir = cfg.runner_dir, forms = cfg.runner_forms, log = cfg.log },
      cfg.limits.idle_environments),
  }, engine)
end

local TRANSPORTS = { uds = true, stream = true, file = true }

local function check_job(job)
  if type(job.script) ~= "string" or not job.script:find("%S") then
    return nil, errors.new("usage", "job", "the script is empty")
  end
  if job.script:find("\0", 1, true) then
    return nil, errors.new("usage", "job", "the script holds a NUL byte: it is not a text")
  end
  if job.transport and not TRANSPORTS[job.transport] then
    return nil, errors.new("unsupported", "transport " .. job.transport,
      "there are uds, stream and file")
  end
  return true
end

local function narrowed(cfg, allow)
  local names = cfg.enabled_tools or {}
  if not allow then
    return names
  end
  local listed, kept = {}, {}
  for _, name in ipairs(names) do
    listed[name] = true
  end
  for _, name in ipairs(allow) do
    if not listed[name] then
      return nil, errors.new("usage", "allow", "no listed tool is called " .. name,
        { hint = toolset.why_not(cfg, name) })
    end
    kept[#kept + 1] = name
  end
  return kept
end

local function joined(first, second)
  local all = {}
  for _, list in ipairs({ first, second or {} }) do
    for _, entry in ipairs(list) do
      all[#all + 1] = entry
    end
  end
  return all
end

-- What policies are told of a job.
local function facts_of(run)
  local job = run.job
  return {
    language = run.template.language, backend = job.backend, timeout = run.timeout, id = job.id,
    labels = job.labels, script_bytes = #job.script,
  }
end

---@return farcall.PolicyChain?
---@return farcall.Error? err
local function open_chain(self, run)
  local tools = run.toolset
  return policy.chain({
    policies = joined(self.cfg.policies, run.job.policies), policy_path = self.cfg.policy_path,
    run_id = run.id, operator = self.operator, now = system.time, random = math.random,
    job = facts_of(run),
    validate = function(tool, arguments)
      return tools:get(tool).validator(arguments)
    end,
  })
end

---What can be known to be wrong before anything is started.
---@return farcall.Run?
---@return farcall.Error? err
local function prepare(self, job)
  local ok, err = check_job(job)
  if not ok then
    return nil, err
  end
  local run = { cfg = self.cfg, job = job, id = journal.new_id() }
  run.template, err = self.catalog:template(job)
  if not run.template then
    return nil, err
  end
  local names
  names, err = narrowed(self.cfg, job.allow)
  if not names then
    return nil, err
  end
  run.toolset, err = self.catalog:toolset(names)
  if not run.toolset then
    return nil, err
  end
  run.stub, err = self.catalog:stub(run.template, run.toolset)
  if not run.stub then
    return nil, err
  end
  err = job.session and kernels.check(job, run.template.language)
  if err then
    return nil, err
  end
  run.timeout = job.timeout or self.cfg.limits.timeout
  run.chain, err = open_chain(self, run)
  if not run.chain then
    return nil, err
  end
  return run
end

---The backends that a policy may choose from.
local function candidates(self, job)
  local list = {}
  for name in pairs(job.backend and { [job.backend] = true } or self.cfg.backends) do
    local configured = self.cfg.backends[name] or {}
    list[#list + 1] = {
      name = name, labels = configured.labels or {}, cost = configured.cost,
      running = self.running[name] or 0, error = self.troubles[name],
    }
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  return list
end

-- Counts the run among those of its backend, and finds it an environment.
---@async
local function find_environment(self, run)
  local name = run.where.name
  self.running[name] = (self.running[name] or 0) + 1
  run.placed = true
  if (run.job.pool or 1) > 1 then
    run.seat = self.pools:take(run.where, run.job.pool)
  end
  local env, err
  if run.job.session then
    -- Its interpreter lives there between runs.
    env, err = self.environments:get(run.where)
  else
    run.loan, err = self.environments:lend(run.where)
    env = run.loan and run.loan.env
  end
  self.troubles[name] = err and tostring(err) or nil
  if not env and run.seat then
    run.seat:failed()
  end
  return env, err
end

-- Gives back what the run took by being settled.
local function unsettle(self, run)
  if run.placed then
    local name = run.where.name
    self.running[name] = self.running[name] - 1
  end
  if run.seat then
    run.seat:leave()
  end
  if run.claim then
    run.claim:release()
  end
  if run.loan then
    run.loan.over()
  end
end

---Opens what the run needs: its place, its environment, its journal.
---@async
local function settle(self, run)
  local job = run.job
  local name, err = run.chain:place(facts_of(run), candidates(self, job))
  if not name and err then
    return nil, err
  end
  run.where, err = self.catalog:backend(name or job.backend, job.options)
  if not run.where then
    return nil, err
  end
  run.env, err = find_environment(self, run)
  if not run.env then
    return nil, err
  end
  if job.session then
    run.claim, err = self.kernels:claim(run)
    if not run.claim then
      return nil, err
    end
  end
  run.journal, err = journal.open({
    state_dir = self.cfg.state_dir, run_id = run.id, sync = self.cfg.journal_sync,
    job = {
      script = job.script, filename = job.filename, language = run.template.language,
      args = json.array(job.args or {}), backend = run.where.name, timeout = run.timeout,
      session = job.session,
    },
  })
  if not run.journal then
    return nil, err
  end
  runs.prune(self.cfg.state_dir, self.cfg.limits.journal_days)
  return true
end

---What is wrong with a job as far as that can be known before anything is started.
---@param job farcall.Job
---@return true?
---@return farcall.Error? err
---@nodiscard
function engine:check(job)
  local parts, err = prepare(self, job)
  if not parts then
    return nil, err
  end
  parts.chain:close()
  -- A policy may choose another.
  if not job.backend and #(job.policies or {}) + #self.cfg.policies > 0 then
    return true
  end
  local where
  where, err = self.catalog:backend(job.backend, job.options)
  return where and true, err
end

---Runs one job to its end.
---@async
---@param job farcall.Job
---@param hooks? farcall.Hooks
---@return table? result whatever the script did: design.md section 5
---@return farcall.Error? err job, configuration or backend is wrong; nothing was started
---@nodiscard
function engine:run(job, hooks)
  local parts, err = prepare(self, job)
  if not parts then
    return nil, err
  end
  local fine, settled
  fine, settled, err = pcall(settle, self, parts)
  if not fine or not settled then
    parts.chain:close()
    unsettle(self, parts)
    if not fine then
      error(settled, 0)
    elseif err.kind == "denied" and err.op == "placement" then
      return {
        run_id = parts.id, status = "refused", error = err.msg, output = "", stderr = "",
        backend = job.backend, tool_calls_made = 0, calls = json.array({}), duration_seconds = 0,
        started = false,
      }
    end
    return nil, err
  end
  local run = Run.new(parts, hooks or {})
  self.runs[run] = true
  local ok, result = pcall(run.live, run)
  self.runs[run] = nil
  unsettle(self, parts)
  if not ok then
    error(result, 0)
  end
  return result
end

---One oneshot, for `farcall exec`.
---@async
---@param spec table a oneshot's fields, and backend and options as in a job
---@return farcall.oneshot.Result?
---@return farcall.Error? err
---@nodiscard
function engine:exec(spec)
  local env, err = self:environment(spec.backend, spec.options)
  if not env then
    return nil, err
  end
  return oneshot.run(env, {
    command = spec.command, argv = spec.argv, stdin = spec.stdin, cwd = spec.cwd, env = spec.env,
    timeout = spec.timeout, max_output = spec.max_output, take = spec.take,
  })
end

---A persistent shell in an environment.
---@async
---@param spec {backend?: string, options?: table}
---@return farcall.Shell?
---@return farcall.Error? err
---@nodiscard
function engine:shell(spec)
  local env, err = self:environment(spec.backend, spec.options)
  if not env then
    return nil, err
  end
  return shell.new(env)
end

---The environment of a backend, opened when it is not yet.
---@async
---@return farcall.Env?
---@return farcall.Error? err
---@nodiscard
function engine:environment(backend, options)
  local where, err = self.catalog:backend(backend, options)
  if not where then
    return nil, err
  end
  return self.environments:get(where)
end

---What engines have left behind, here and in environments, and how it is removed.
---@return farcall.Leftovers
function engine:leftovers()
  return require("farcall.leftovers").new(self.cfg, self.catalog, self.environments)
end

---Ends every run that is under way.
---@param signal_name string
---@return boolean any whether there was one
function engine:interrupt(signal_name)
  local any = false
  for run in pairs(self.runs) do
    run:stop("interrupted", "interrupted by SIG" .. signal_name, signal_name == "INT")
    any = true
  end
  return any
end

---Closes the environments that are this process' own. Call it when no run is under way.
---@async
function engine:close()
  task.shield(self.kernels.close, self.kernels)
  task.shield(self.environments.close, self.environments)
  self.guard:close()
end

return engine
