-- SPDX-License-Identifier: MIT
-- A batch: very many jobs, some of them at once, in one engine. Each is executed at most once,
-- whatever is killed and however often the batch is begun again; only what was certainly not
-- executed is tried again.

local errors = require("farcall.errors")
local task = require("farcall.task")

-- What may have passed when it is tried again, a little later.
local PASSING = { unavailable = true, lost = true, timeout = true }
-- How a batch tells what a run's result means; see batch_results.
local STATE = { success = "succeeded", interrupted = "interrupted" }

---@class farcall.batch.Spec
---@field engine farcall.Engine
---@field jobs farcall.BatchJobs
---@field results farcall.BatchResults
---@field width integer jobs at once
---@field prepare fun(job: farcall.BatchJob): farcall.Job?, farcall.Error? the engine's job
---@field retries? integer how often a job that was not executed is tried again
---@field pause? number seconds before it is, doubled each time
---@field again? table<farcall.BatchState, true> what is executed once more although it was
---@field sync? boolean a job starts when the disk knows of it
---@field hooks? farcall.Hooks of all runs

---@class farcall.Batch
---@field total? integer jobs there are, when that is known
---@field counts table<farcall.BatchState, integer> of all jobs, earlier ones too
---@field earlier integer jobs that an earlier batch has ended
---@field running integer
---@field retried integer
---@field missing integer jobs that are left for another time
---@field seconds number
---@field obstacle? farcall.Error why the last job that could not be started could not
---@field private workers table<table, true>
local Batch = {}
Batch.__index = Batch

local batch = {}

---@param spec farcall.batch.Spec
---@return farcall.Batch
function batch.new(spec)
  return setmetatable({
    spec = spec, workers = {}, running = 0, retried = 0, earlier = 0, missing = 0, seconds = 0,
    read = 0,
    counts = {
      succeeded = 0, failed = 0, interrupted = 0, unknown = 0, not_run = 0, refused = 0,
    },
  }, Batch)
end

---Jobs that this batch need not think of any more.
---@return integer
function Batch:ended()
  local sum = 0
  for _, count in pairs(self.counts) do
    sum = sum + count
  end
  return sum
end

local function count(self, state)
  self.counts[state] = self.counts[state] + 1
end

-- The file cannot be written to: nothing more may be started.
local function give_up(self, err)
  self.failure = self.failure or err
  self:interrupt("TERM")
end

-- Writes how a job has ended, and counts it.
local function record(self, line, state)
  local ok, err = self.spec.results:append(line)
  if not ok then
    give_up(self, err)
    -- As the file has it: that it was started is all that is known.
    state = line.state == "done" and "unknown" or nil
  end
  if state then
    count(self, state)
  end
end

---Whether a job is to be run, as far as earlier batches go. One that has changed since it was
---executed is an error: its result would be another job's.
---@param spec {results: farcall.BatchResults, again?: table<string, true>}
---@param job farcall.BatchJob
---@return farcall.BatchState? state how it has ended; nil: it is to be run
---@return farcall.Error? err
function batch.settled(spec, job)
  local state, hash = spec.results:earlier_of(job.id)
  if not state or state == "not_run" or state == "refused" or (spec.again or {})[state] then
    return nil
  elseif hash ~= job.hash then
    return nil, errors.new("usage", ("job %s (line %d)"):format(job.id, job.line),
      "it is another job than the one of this id in " .. spec.results.path,
      { hint = "give it an id of its own, or name another file with --results" })
  end
  return state
end

-- Lines that are gone through before others have their turn.
local TURN = 200

---@async
local function let_others(number)
  if number % TURN == 0 then
    task.sleep(0)
  end
end

---Goes through all jobs without running one: counts them, and finds what is wrong with them.
---@async
---@param spec farcall.batch.Spec
---@param check fun(job: farcall.Job): true?, farcall.Error?
---@return integer? total
---@return farcall.Error? err
function batch.examine(spec, check)
  local total = 0
  spec.jobs:rewind()
  while true do
    local job, err = spec.jobs:next()
    local prepared, ok
    if job then
      prepared, err = spec.prepare(job)
    end
    if prepared then
      ok, err = check(prepared)
    end
    if ok then
      err = select(2, batch.settled(spec, job))
    end
    if err then
      spec.jobs:close()
      return nil, err
    elseif not job then
      spec.jobs:rewind()
      return total
    end
    total = total + 1
    let_others(total)
  end
end

-- One attempt. Returns the result, or why there was none; and whether something was executed.
---@async
local function attempt(self, worker)
  local spec, job = self.spec, worker.job
  local hooks = { ask = (spec.hooks or {}).ask, call = (spec.hooks or {}).call }
  ---@async
  function hooks.starting(about)
    if self.stopping then
      return nil, errors.new("cancelled", "job " .. job.id, "the batch is being ended")
    end
    local ok, err = spec.results:append({
      id = job.id, state = "started", job = worker.hash, run_id = about.run_id,
      backend = about.backend,
    })
    if ok and spec.sync then
      ok, err = spec.results:sync()
    end
    if not ok then
      give_up(self, err)
      return nil, err
    end
    worker.run_id, worker.started = about.run_id, true
    return true
  end
  local fine, result, err = pcall(spec.engine.run, spec.engine, job, hooks)
  if not fine then
    err = errors.is(result) and result or errors.new("internal", "job " .. job.id, tostring(result))
    result = nil
  end
  return result, err
end

-- What kept a result's script from being started, as an error again.
local function obstacle(result)
  return errors.new(result.error_kind or "internal", "", result.error or "it was not started")
end

-- The line of a job that was executed: its result as `farcall run --json` prints it.
local function done_line(worker, result)
  local line = {}
  for field, value in pairs(result) do
    line[field] = value
  end
  -- Policies can add to a result, but not to what is told here.
  line.id, line.state, line.job, line.attempts = worker.id, "done", worker.hash, worker.attempts
  line.started = nil
  return line
end

local function not_run_line(worker, state, err)
  return {
    id = worker.id, state = state, job = worker.hash, attempts = worker.attempts, error = err.msg
      and (err.op ~= "" and err.op .. ": " .. err.msg or err.msg), error_kind = err.kind,
    hint = err.hint,
  }
end

-- Runs a job until something was executed, or until it is clear that nothing will be.
---@async
local function work(self, worker)
  local spec = self.spec
  local pause = spec.pause or 1
  while true do
    worker.attempts = worker.attempts + 1
    local result, err = attempt(self, worker)
    if result and result.started then
      return record(self, done_line(worker, result), STATE[result.status] or "failed")
    elseif worker.started and not result then
      -- It was ended the hard way in the middle.
      return record(self, done_line(worker, {
        status = err.kind == "cancelled" and "interrupted" or "error", error = tostring(err),
        error_kind = err.kind, run_id = worker.run_id,
      }), err.kind == "cancelled" and "interrupted" or "failed")
    elseif result and result.status == "refused" then
      return record(self, not_run_line(worker, "refused", {
        op = "", msg = result.error, kind = "denied",
      }), "refused")
    end
    err = err or obstacle(result)
    if self.stopping and not worker.started then
      self.missing = self.missing + 1
      return
    elseif not (PASSING[err.kind] or err.retry) or worker.attempts > (spec.retries or 3)
      or self.stopping
    then
      self.obstacle = err
      return record(self, not_run_line(worker, "not_run", err), "not_run")
    end
    worker.started = nil
    self.retried = self.retried + 1
    task.sleep(pause)
    pause = pause * 2
  end
end

-- A worker of its own for a job that has been given a permit.
local function set_to_work(self, job, prepared, release)
  local worker = { id = job.id, hash = job.hash, job = prepared, attempts = 0 }
  self.running = self.running + 1
  self.workers[worker] = true
  worker.task = task.spawn(function()
    local ok, failure = pcall(work, self, worker)
    self.running = self.running - 1
    self.workers[worker] = nil
    if not ok and errors.is(failure) and failure.kind == "cancelled" then
      self.missing = self.missing + 1
    elseif not ok then
      give_up(self, errors.is(failure) and failure
        or errors.new("internal", "job " .. job.id, tostring(failure)))
    end
    release()
  end)
end

-- A line that is no job: noted without an id, which could be another job's.
local function note_bad_line(self, err)
  record(self, { line = self.spec.jobs.line, state = "refused", error = tostring(err),
    error_kind = err.kind }, "refused")
end

-- Takes the jobs one after the other, as there is room for them.
---@async
local function hand_out(self)
  local spec = self.spec
  local permits = task.semaphore(spec.width)
  while not self.stopping do
    permits.acquire()
    local job, err = spec.jobs:next()
    if not job and not err then
      permits.release()
      return
    end
    local settled, prepared
    if job then
      settled, err = batch.settled(spec, job)
      spec.results:forget(job.id)
    end
    if settled then
      self.earlier = self.earlier + 1
      count(self, settled)
    elseif job and not err then
      prepared, err = spec.prepare(job)
    end
    if prepared then
      set_to_work(self, job, prepared, permits.release)
    else
      if err then
        note_bad_line(self, err)
      end
      permits.release()
      let_others(spec.jobs.line)
    end
  end
end

---@async
local function wait_for_workers(self)
  while true do
    local worker = next(self.workers)
    if not worker then
      return
    end
    worker.task:join()
  end
end

---Runs the batch to its end.
---@async
---@return true?
---@return farcall.Error? err the results cannot be written down any more; what was running is ended
function Batch:run()
  local began = task.now()
  self.began = began
  self.source = task.spawn(hand_out, self)
  local ok, failure = pcall(function()
    local fine, problem = self.source:join()
    wait_for_workers(self)
    if not fine and not self.stopping then
      error(problem, 0)
    end
  end)
  if not ok then
    self:interrupt("TERM")
    for worker in pairs(self.workers) do
      worker.task:cancel()
    end
    task.shield(wait_for_workers, self)
  end
  self.spec.jobs:close()
  self.seconds = task.now() - began
  local synced, err = task.shield(self.spec.results.sync, self.spec.results)
  if not ok then
    error(failure, 0)
  end
  return not self.failure and synced or nil, self.failure or err
end

---Takes no more jobs, and ends those that run.
---@param signal_name string
function Batch:interrupt(signal_name)
  if self.stopping then
    return
  end
  self.stopping = signal_name
  if self.source then
    self.source:cancel()
  end
  self.spec.engine:interrupt(signal_name)
  local waiting = {}
  for worker in pairs(self.workers) do
    if not worker.started then
      waiting[#waiting + 1] = worker.task
    end
  end
  for _, one in ipairs(waiting) do
    one:cancel()
  end
end

return batch
