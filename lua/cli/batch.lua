-- SPDX-License-Identifier: MIT
local batch_jobs = require("farcall.batch_jobs")
local batch_progress = require("farcall.cli.batch_progress")
local batch_results = require("farcall.batch_results")
local errors = require("farcall.errors")
local job_flags = require("farcall.cli.job_flags")
local session = require("farcall.cli.session")
local system = require("farcall.core.system")

local batch = {}

local EXIT_SOME = 1
local MAX_WIDTH, MAX_POOL = 1024, 256
-- What can be asked for to be executed again.
local AGAIN = { unknown = true, failed = true, interrupted = true }

batch.description = [[
Runs the jobs of a file, one JSON object a line, some of them at once, and appends their results to
another file. When it is killed, the same command goes on where it stopped: no job is executed
twice.]]

batch.epilog = [[
Examples:
  farcall batch jobs.jsonl
  farcall batch jobs.jsonl -b box --pool 4 -j 32     # four containers
  farcall batch jobs.jsonl --again failed            # those once more
  make_jobs | farcall batch - --results out.jsonl

A job is {"script": "print(1)"} or {"file": "a.py"}, and may have id, filename, language, args,
backend, options, transport, timeout, max_calls, allow, env and labels. A result is what
`farcall run --json` prints, with the job's id and its state.

Exit code: 0 all jobs succeeded; 1 some did not; 2 usage; 125 engine, configuration or results;
128 + its number when a signal interrupted it.]]

function batch.configure(command)
  command:usage("Usage: farcall batch [OPTION]... (FILE | -)")
  command:argument("file", "The jobs; - reads them from standard input.")
    :argname("FILE")
  command:option("-j --jobs", "Jobs at once; as many as processors are here, unless given.")
    :argname("N"):convert(session.number)
  command:option("--pool", "Environments of one kind, among which the jobs are spread.")
    :argname("N"):convert(session.number)
  command:option("-r --results", "Where results go; FILE.results.jsonl unless given.")
    :argname("FILE")
  command:option("--again", "Run once more what is unknown, failed or interrupted.")
    :argname("STATE,STATE"):count("*")
  command:option("--retries", "How often one that could not start is tried again; 3.")
    :argname("N"):convert(session.number)
  command:option("--pause", "Seconds before that, doubled each time; 1."):argname("S")
    :convert(session.number)
  session.add_backend_flags(command)
  command:option("--transport", "How calls travel; chosen by itself unless given.")
    :argname("NAME")
  command:option("--timeout", "Seconds after which a script is killed."):argname("S")
    :convert(session.number)
  command:option("--max-calls", "Tool calls that each script may make."):argname("N")
    :convert(session.number)
  job_flags.add(command)
end

local function usage(op, message, hint)
  return nil, errors.new("usage", op, message, { hint = hint })
end

local function whole(flag, value, least, most)
  if value and (value % 1 ~= 0 or value < least or value > most) then
    return usage(flag, ("must be a whole number from %d to %d"):format(least, most))
  end
  return true
end

---@return table<string, true>?
---@return farcall.Error? err
local function states(list)
  local wanted = {}
  for _, words in ipairs(list) do
    for word in words:gmatch("[^,]+") do
      if not AGAIN[word] then
        return usage("--again " .. word, "there are unknown, failed and interrupted")
      end
      wanted[word] = true
    end
  end
  return wanted
end

-- What the flags say of all jobs.
---@return table?
---@return farcall.Error? err
local function common_of(args)
  local common, err = { backend = args.backend, transport = args.transport }, nil
  local _
  for _, check in ipairs({
    { "-j", args.jobs, 1, MAX_WIDTH }, { "--pool", args.pool, 1, MAX_POOL },
    { "--retries", args.retries, 0, 100 }, { "--max-calls", args.max_calls, 0, 1e9 },
  }) do
    err = err or select(2, whole(check[1], check[2], check[3], check[4]))
  end
  if not err and args.timeout == 0 then
    _, err = usage("--timeout", "must be above 0")
  end
  if not err then
    common.options, err = session.backend_options(args)
  end
  if not err then
    common.env, err = job_flags.variables(args.env, require("farcall.config").environ())
  end
  if not err then
    common.policies, err = job_flags.policies(args.policies)
  end
  if not err then
    common.again, err = states(args.again)
  end
  if err then
    return nil, err
  end
  common.allow, common.pool = job_flags.allowed(args.allow), args.pool
  return common
end

local function merged(first, second)
  local all = {}
  for _, map in ipairs({ first or {}, second or {} }) do
    for key, value in pairs(map) do
      all[key] = value
    end
  end
  return all
end

-- A job can ask for fewer tools than the flags list, not for others.
local function tools_of(job, common)
  if not (job.allow and common.allow) then
    return job.allow or common.allow
  end
  local listed = {}
  for _, name in ipairs(common.allow) do
    listed[name] = true
  end
  for _, name in ipairs(job.allow) do
    if not listed[name] then
      return nil, ("--allow does not list its tool %s"):format(name)
    end
  end
  return job.allow
end

---The engine's job: what the line says, over what the flags say of all.
---@return farcall.Job?
---@return farcall.Error? err
local function engine_job(jobs, job, common)
  local allow, problem = tools_of(job, common)
  if problem then
    return usage(("%s:%d"):format(jobs.name, job.line), problem)
  end
  -- Options of the flags are those of the flags' backend.
  local own = job.backend and job.backend ~= common.backend
  return {
    id = job.id, script = job.script, filename = job.filename, language = job.language,
    args = job.args, backend = job.backend or common.backend,
    options = own and job.options or merged(common.options, job.options),
    timeout = job.timeout, max_calls = job.max_calls, allow = allow,
    policies = common.policies, env = merged(common.env, job.env),
    transport = job.transport or common.transport, pool = common.pool, labels = job.labels,
  }
end

-- Asks the engine about each kind of job once: they are the same for most.
local function make_check(engine, jobs)
  local json = require("farcall.core.json")
  local fine = {}
  return function(job)
    local key = json.encode({
      job.language or "", job.backend or "", job.options, job.allow or "", job.transport or "",
      job.filename and job.filename:match("%.%w+$") or "", job.script:match("^#![^\n]*") or "",
      job.script:find("%S") ~= nil, job.script:find("\0", 1, true) ~= nil,
    })
    if fine[key] then
      return true
    end
    local ok, err = engine:check(job)
    if not ok then
      return nil, errors.new(err.kind, ("%s:%d: %s"):format(jobs.name, jobs.line, err.op), err.msg,
        { hint = err.hint, code = err.code })
    end
    fine[key] = true
    return true
  end
end

local function results_path(args)
  if args.results then
    return args.results
  elseif args.file == "-" then
    return usage("batch", "jobs from standard input need --results FILE")
  end
  return args.file .. ".results.jsonl"
end

-- The sum, for programs.
local function summary(one, path)
  local whole_sum = {
    results = path, jobs = one:ended() + one.missing, earlier = one.earlier, retried = one.retried,
    not_begun = one.missing, seconds = one.seconds,
    status = one.stopping and "interrupted" or one.counts.succeeded == one:ended()
      and "success" or "error",
  }
  for state, number in pairs(one.counts) do
    whole_sum[state] = number
  end
  return whole_sum
end

---@async
local function carry_out(engine, spec, ui, holder)
  local batches = require("farcall.batch")
  local total, err
  if spec.jobs.whole then
    total, err = batches.examine(spec, make_check(engine, spec.jobs))
    if not total then
      return session.fail(ui, err)
    end
  end
  local one = batches.new(spec)
  one.total, holder.batch = total, one
  local stop = batch_progress.show(ui, one)
  local ok, done, failure = pcall(one.run, one)
  stop()
  one.missing = total and total - one:ended() or one.missing
  if not ok then
    -- The second signal: what is known is in the file all the same.
    batch_progress.report(ui, one, spec.results.path)
    error(done, 0)
  elseif not done then
    batch_progress.report(ui, one, spec.results.path)
    return session.fail(ui, failure)
  end
  if ui.json then
    ui:out_json(summary(one, spec.results.path))
  else
    batch_progress.report(ui, one, spec.results.path)
  end
  if one.stopping then
    return session.interrupted(holder.caught.name)
  end
  return one.counts.succeeded == one:ended() and 0 or EXIT_SOME
end

function batch.run(args, ui)
  local common, err = common_of(args)
  local path, jobs, results
  if common then
    path, err = results_path(args)
  end
  if path then
    jobs, err = batch_jobs.open(args.file)
  end
  if jobs then
    results, err = batch_results.open(path)
  end
  if not results then
    return session.fail(ui, err)
  end
  local holder = {}
  local flags = { timeout = args.timeout, max_calls = args.max_calls }
  local ok, code = pcall(session.with_engine, args, ui, flags, function(engine, caught)
    holder.caught = caught
    local spec = {
      engine = engine, jobs = jobs, results = results, again = common.again,
      width = args.jobs or math.max(system.cores(), args.pool or 1),
      retries = args.retries, pause = args.pause, sync = engine.cfg.journal_sync == "call",
      hooks = {
        ask = function(question)
          return ui:ask(question)
        end,
      },
    }
    function spec.prepare(job)
      return engine_job(jobs, job, common)
    end
    return carry_out(engine, spec, ui, holder)
  end, function(engine, name)
    if not holder.batch then
      return engine:interrupt(name)
    end
    if not holder.batch.stopping then
      ui:say("farcall: no more jobs are begun; those that run are being ended")
    end
    holder.batch:interrupt(name)
    return true
  end)
  jobs:close()
  results:close()
  if not ok then
    error(code, 0)
  end
  return code
end

return batch
