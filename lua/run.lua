-- SPDX-License-Identifier: MIT
-- One run: from when it is known to be possible until everything that it took is given back.

local dispatch = require("farcall.dispatch")
local errors = require("farcall.errors")
local files = require("farcall.files")
local json = require("farcall.core.json")
local oneshot = require("farcall.oneshot")
local output = require("farcall.output")
local places = require("farcall.places")
local shell = require("farcall.shell")
local system = require("farcall.core.system")
local task = require("farcall.task")
local toolset = require("farcall.toolset")

local MAX_FILE_BYTES = 64 * 1024 * 1024
-- Seconds that a script has after SIGINT before its tree is ended.
local INTERRUPT_GRACE = 1
-- Seconds that an environment has to finish what prepares a run which is to end.
local PREPARATION_GRACE = 5

---@class farcall.Run
---@field id string
---@field job farcall.Job
---@field cfg farcall.Config
---@field where {name: string, options: table} the backend that was chosen
---@field env farcall.Env
---@field template farcall.StubTemplate
---@field stub {name: string, text: string}[] the files of its stub
---@field toolset farcall.Toolset
---@field chain farcall.PolicyChain
---@field journal farcall.Journal
---@field timeout number seconds
---@field dispatch farcall.Dispatch
---@field claim? farcall.kernels.Claim its turn in its session
---@field private session? farcall.uds.Session|farcall.file.Session
---@field private process? farcall.Process
---@field private stopped? "timeout"|"interrupted"
---@field private starting? async fun(about: table): true?, farcall.Error? the caller's hook
---@field private begun boolean it may be that something of the script was executed
local Run = {}
Run.__index = Run

local function new_token()
  return (system.random(32):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

local function new_output(run, name, hook)
  local limits = run.cfg.limits
  return output.new({
    max_bytes = limits[name .. "_bytes"], spill_path = run.journal.dir .. "/" .. name .. ".txt",
    spill_max = limits.spill_bytes, redact = true, on_text = hook,
  })
end

---What the handlers of a run's calls act through, but for what differs from call to call.
local function tool_context(run)
  local env = run.env
  -- Elsewhere it is where the environment starts commands, whatever that is called.
  local cwd = run.where.options.cwd or env.cwd or env.caps.same_host and system.cwd() or nil
  local persistent
  local ctx = { env = env, cwd = cwd, sleep = task.sleep }

  ---@async
  function ctx.oneshot(spec)
    local own = { cwd = cwd }
    for key, value in pairs(spec) do
      own[key] = value
    end
    return oneshot.run(env, own)
  end

  ---@async
  function ctx.shell(spec)
    persistent = persistent or shell.new(env)
    return persistent:run(spec)
  end

  ---@async
  function ctx.read_file(path, options)
    local op = "read " .. path
    local absolute, err = files.resolve(ctx, op, path)
    if not absolute then
      return nil, err
    end
    options = options or {}
    return files.read(ctx, op, absolute,
      { offset = options.offset, max = options.max or MAX_FILE_BYTES })
  end

  ---@async
  function ctx.write_file(path, bytes, options)
    local op = "write " .. path
    local absolute, err = files.resolve(ctx, op, path)
    if not absolute then
      return nil, err
    end
    return files.write(ctx, op, absolute, bytes, options)
  end

  function ctx.log(text)
    run.journal:event("log", { text = tostring(text) })
  end

  ---@async
  function run.close_shell()
    if persistent then
      persistent:close()
    end
  end

  return ctx
end

-- How many calls the run may make. A job says so itself, unless the operator has set a budget: then
-- it can only ask for less.
local function budget(cfg, wanted)
  if wanted and (not cfg.max_calls_fixed or wanted < cfg.limits.max_calls) then
    return wanted
  end
  return cfg.limits.max_calls
end

---Takes what the engine has prepared and makes it a run.
---@param parts table the public fields above, without dispatch
---@param hooks farcall.Hooks
---@return farcall.Run
function Run.new(parts, hooks)
  local run = setmetatable(parts, Run)
  run.token, run.starting, run.begun = new_token(), hooks.starting, false
  run.stdout = new_output(run, "stdout", hooks.stdout)
  run.stderr = new_output(run, "stderr", hooks.stderr)
  run.dispatch = dispatch.new({
    toolset = run.toolset, chain = run.chain, journal = run.journal,
    max_calls = budget(run.cfg, run.job.max_calls),
    parallel_calls = run.cfg.limits.parallel_calls, deadline = task.now() + run.timeout,
    on_call = hooks.call, ask = hooks.ask, tool_context = tool_context(run),
  })
  return run
end

-- The script goes by its own name in tracebacks, as far as that is a plain one that no file of the
-- stub has.
local function script_name(run, contents)
  local name = (run.job.filename or ""):match("[^/]*$")
  local taken = false
  for _, file in ipairs(contents) do
    taken = taken or file.name == name
  end
  if taken or #name > 100 or not name:find("^[%w_][%w_.%-]*$") then
    name = "script." .. (run.template.extensions[1] or "txt")
  end
  return name
end

-- The ways that calls can take, the one that costs least first.
local TRANSPORTS = {
  uds = require("farcall.transports.uds"), stream = require("farcall.transports.stream"),
  file = require("farcall.transports.file"),
}
local PREFERENCE = { "uds", "stream", "file" }

-- Why this way is none here, as far as can be said without trying; nil when it may be one.
local function ruled_out(run, name)
  local speaks, caps = run.template.transports, run.env.caps
  if speaks and not speaks[name] then
    return ("the stub for %s does not speak it"):format(run.template.language)
  elseif name == "uds" and not caps.same_host then
    return "the environment does not share this machine's files"
  elseif name == "uds" and speaks and speaks.uds == "program"
    and not places.runner(run.cfg.runner_dir) then
    return "the program farcall-runner, through which such a script calls, is not installed"
  elseif name == "file" and run.claim then
    return "it does not carry a session"
  elseif name == "stream" and (caps.stdin ~= "stream" or caps.stdout ~= "stream") then
    return "an exec of this environment has no live standard input and output"
  end
  return nil
end

---The script's variables: the template's, then the job's.
local function variables_of(run, dir)
  local variables = {}
  for _, source in ipairs({
    run.template.environment and run.template.environment(dir) or {}, run.job.env or {},
  }) do
    for name, value in pairs(source) do
      variables[name] = value
    end
  end
  return variables
end

---The interpreter's arguments.
local function words_of(run, dir, script)
  local words = run.template.launch and run.template.launch(dir, script) or { script }
  for _, word in ipairs(run.job.args or {}) do
    words[#words + 1] = word
  end
  return words
end

---What a transport needs to know.
---@return farcall.transport.Spec
local function transport_spec(run)
  local contents = { unpack(run.stub) }
  local script = script_name(run, contents)
  table.insert(contents, { name = script, text = run.job.script })
  return {
    env = run.env, token = run.token, files = contents, script = script,
    interpreter = run.template.interpreter, timeout = run.timeout, log = run.cfg.log,
    runtime_dir = run.cfg.runtime_dir, program = places.runner(run.cfg.runner_dir),
    needs_program = run.template.transports and run.template.transports.stream == "program",
    words = function(dir, path)
      return words_of(run, dir, path)
    end,
    variables = function(dir)
      return variables_of(run, dir)
    end,
    on_request = function(request, respond)
      return run.dispatch:call(request, respond)
    end,
  }
end

---Opens the transport, which furnishes the run's directory: the one that was asked for, or the
---first that works. One that cannot be had is passed over, and told why; other failures count.
---@async
local function open_transport(run, spec)
  local err
  local wanted, reasons = run.job.transport, {}
  for _, name in ipairs(wanted and { wanted } or PREFERENCE) do
    local why = ruled_out(run, name)
    if not why then
      local session
      session, err = TRANSPORTS[name].open(spec)
      if session or err.kind ~= "unsupported" or wanted then
        run.transport = name
        run.transport_reason = reasons[1] and table.concat(reasons, "; ") or nil
        return session, err
      end
      why = err.msg
    end
    reasons[#reasons + 1] = name .. ": " .. why
  end
  return nil, errors.new("unsupported", "transport" .. (wanted and " " .. wanted or ""),
    wanted and reasons[1]:sub(#wanted + 3) or table.concat(reasons, "; "))
end

---@async
local function open_session(run)
  local spec = transport_spec(run)
  if run.claim then
    return run.claim:open(run, spec, function(own)
      return open_transport(run, own)
    end)
  end
  return open_transport(run, spec)
end

-- Failures of a start by which it is certain that there was none.
local NEVER_STARTED = { exec = true, not_found = true, usage = true, unsupported = true }

---@async
---@return farcall.Process?
---@return farcall.Error? err
local function start_script(run)
  if run.starting then
    local ok, err = run.starting({ run_id = run.id, backend = run.where.name })
    if not ok then
      return nil, err
    end
  end
  run.begun = true
  local process, err = run.session:start()
  run.begun = process ~= nil or not NEVER_STARTED[err.kind]
  return process, err
end

---@async
---@return {exit?: integer, name?: string}? status of the script
---@return farcall.Error? err
local function execute(run)
  local err
  run.session, err = open_session(run)
  if not run.session then
    return nil, err
  end
  local process
  process, err = start_script(run)
  if not process then
    return nil, err
  end
  run.process = process
  if run.stopped then
    task.spawn(process.kill, process)
  end
  local streams = { out = run.stdout, err = run.stderr }
  for name, bytes in function()
    return process:read(262144)
  end do
    streams[name]:feed(bytes)
  end
  local status
  status, err = process:wait()
  if run.session.failure then
    return nil, run.session.failure
  end
  return status, err
end

-- An interrupt is for the script first, which may want to say a last word.
---@async
local function end_process(run)
  local process = run.process
  if run.asked and process.signal then
    process:signal("INT")
    task.timeout(INTERRUPT_GRACE, process.wait, process)
  end
  process:kill()
end

-- What an environment has been asked for may be half done: it may still answer.
---@async
local function end_preparation(run)
  task.timeout(PREPARATION_GRACE, run.work.join, run.work)
  if not run.process and not run.work:done() then
    run.abandoned = true
    run.work:cancel(errors.new("lost", "run " .. run.id, "its environment does not answer"))
  end
end

---Ends the run early. The first reason counts.
---@param reason "timeout"|"interrupted"
---@param detail string
---@param ask? boolean the script gets SIGINT first
function Run:stop(reason, detail, ask)
  if self.ended or self.stopped then
    return
  end
  self.stopped, self.stop_detail, self.asked = reason, detail, ask
  if self.process then
    task.spawn(end_process, self)
  elseif self.work and not self.work:done() then
    task.spawn(end_preparation, self)
  end
end

-- What a script's last words mean: a pattern, and a text in which its capture stands, or a function
-- of cfg and the capture.
local HINTS = {
  { "this Python has no module (json)", "install the whole of Python where the script runs (%s is"
    .. " in python3, not in python3-minimal)" },
  { "ModuleNotFoundError: No module named '([%w_.]+)'",
    "the module %s is not installed in the script's environment" },
  { "NameError: name '([%w_]+)' is not defined",
    "if %s is a tool, import it: from farcall import ..." },
  { "ImportError: cannot import name '([%w_]+)' from '([%w_]+)'", function(cfg, name, module)
    return module == cfg.stub_options.module and toolset.why_not(cfg, name) or nil
  end },
}

local function hint_for(cfg, stderr)
  for _, rule in ipairs(HINTS) do
    local name, more = stderr:match(rule[1])
    if name then
      return type(rule[2]) == "string" and rule[2]:format(name) or rule[2](cfg, name, more)
    end
  end
  return nil
end

local function describe_end(run, result, status, failure)
  if run.abandoned then
    result.status = run.stopped
    result.error = run.stop_detail .. "; its environment did not answer"
    return
  elseif failure then
    result.status, result.error, result.hint = "error", tostring(failure), failure.hint
    result.error_kind = failure.kind
    return
  end
  result.exit_code, result.signal = status.exit, status.name
  if run.stopped then
    result.status, result.error = run.stopped, run.stop_detail
  elseif status.exit == 0 then
    result.status = "success"
  else
    result.status = "error"
    result.error = status.exit and ("the script exited with code %d"):format(status.exit)
      or ("the script was ended by signal %s"):format(status.name)
    result.hint = hint_for(run.cfg, result.stderr)
  end
end

local function describe_output(run, result)
  local out, err = run.stdout:finish(), run.stderr:finish()
  result.output, result.stderr = out.text, err.text
  result.stdout_bytes_total = out.bytes_total
  result.stdout_bytes_captured = out.bytes_captured
  result.stdout_bytes_omitted = out.bytes_omitted
  result.spill_path = out.spill_path
  result.stderr_bytes_total = err.bytes_total
  result.stderr_bytes_omitted = err.bytes_omitted
  result.stderr_spill_path = err.spill_path
end

---Gives back everything that the run took, in whatever state it is.
---@async
local function clean_up(run)
  run.ended = true
  if run.process then
    run.process:kill()
    run.process:wait()
  end
  run.dispatch:close()
  run.close_shell()
  if run.session then
    run.session:close()
  end
end

-- Why calls have travelled as they have.
local function reason_of(run)
  local later = run.session and run.session.changed and run.session:changed()
  if not later then
    return run.transport_reason
  end
  return run.transport_reason and run.transport_reason .. "; " .. later or later
end

-- In a task of its own, which ends when the run has to although an environment does not answer.
---@async
local function carry_out(run)
  run.work = task.spawn(execute, run)
  local ok, reason = pcall(run.work.join, run.work)
  if not ok then
    -- This task has been cancelled.
    run.work:cancel(reason)
    task.shield(run.work.join, run.work)
    return false, reason
  end
  return run.work:join()
end

---The last lines of the journal.
---@async
local function record(log, result)
  log:result(result)
  log:close()
end

---Runs the script to its end. Called once. Of a cancelled run the journal has the result.
---@async
---@return table result
function Run:live()
  local began = task.now()
  local timer = task.loop():timer(math.ceil(self.timeout * 1000), function()
    self:stop("timeout", ("the script took longer than %g s and was killed"):format(self.timeout))
  end)
  local ok, status, failure = carry_out(self)
  timer:close()
  local raised
  if not ok then
    raised = status
    status, failure = nil, errors.is(raised) and raised
      or errors.new("internal", "run " .. self.id, tostring(raised))
  end
  task.shield(clean_up, self)
  local result = {
    run_id = self.id, backend = self.where.name, environment = self.env.name or self.where.name,
    transport = self.transport, transport_reason = reason_of(self),
    execs = self.session and self.session.execs, runner = self.session and self.session.runner,
    tool_calls_made = self.dispatch.made, calls = json.array(self.dispatch.records),
    calls_omitted = self.dispatch.omitted > 0 and self.dispatch.omitted or nil,
    duration_seconds = task.now() - began, started = self.begun,
  }
  describe_output(self, result)
  describe_end(self, result, status, failure)
  if self.claim then
    self.claim:describe(result)
  end
  result = self.chain:finish(result)
  self.chain:close()
  task.shield(record, self.journal, result)
  if raised and not self.abandoned then
    error(raised, 0)
  end
  return result
end

return Run
