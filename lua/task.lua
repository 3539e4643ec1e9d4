-- SPDX-License-Identifier: MIT
-- Tasks: straight-line code that waits on the poll loop. The only file that touches coroutines.
-- A task waits in task.await and nowhere else; everything here but task.run and task.await is
-- written with these two.

local errors = require("farcall.errors")
local core_loop = require("farcall.core.loop")

-- LuaJIT 2.1-beta3 goes wrong, once in some hundred runs, where a compiled trace goes on behind a C
-- function (trace stitching) that has resumed other tasks: `pairs` gave keys that are in no table.
-- Beyond so many instructions it does not do that.
jit.opt.start("minstitch=100000")

local task = {}

---@class farcall.Task
---@field private thread thread
---@field private outcome? table {ok, ...} once it has ended
---@field private waiters function[]
---@field private cancel_wait? function undoes what the task waits for now
---@field private wake? function resumes the task
---@field private reason? farcall.Error why it is to end
local Task = {}
Task.__index = Task

---What tasks of one task.run share.
---@class farcall.task.Scope
---@field loop farcall.Loop
---@field work? farcall.Work made when first used
---@field live table<farcall.Task, true>
local scope
local current
local unpack, select = unpack, select
local resume_thread, yield = coroutine.resume, coroutine.yield

local function pack(...)
  return { n = select("#", ...), ... }
end

local function finish(self, ...)
  self.outcome = pack(...)
  self.scope.live[self] = nil
  for _, waiter in ipairs(self.waiters) do
    waiter()
  end
end

local function step(self, ...)
  local before_task, before_scope = current, scope
  current, scope = self, self.scope
  local thread = self.thread
  local ok, failure = resume_thread(thread, ...)
  current, scope = before_task, before_scope
  if not ok then
    -- Only a bug gets here: the body of a task runs under xpcall.
    error(debug.traceback(thread, tostring(failure)), 0)
  end
end

-- An error keeps its own value when it is an Error; anything else is a bug and gets a traceback.
local function explain(failure)
  if errors.is(failure) then
    return failure
  end
  return errors.new("internal", "", debug.traceback(tostring(failure), 2))
end

-- A thread runs one task after the other: making one costs more than most calls do.
local IDLE = {}
local MAX_IDLE = 64
local idle, idle_count = {}, 0

local function body(self, fn, ...)
  finish(self, xpcall(fn, explain, ...))
  if idle_count == MAX_IDLE then
    return
  end
  idle_count = idle_count + 1
  idle[idle_count] = self.thread
  return body(yield(IDLE))
end

---Starts fn as a task at once; it runs until it first waits.
---@param fn function
---@return farcall.Task
function task.spawn(fn, ...)
  if not scope then
    error("task.spawn outside task.run", 2)
  end
  local self = setmetatable({ waiters = {}, scope = scope }, Task)
  scope.live[self] = true
  if idle_count > 0 then
    self.thread = idle[idle_count]
    idle[idle_count] = nil
    idle_count = idle_count - 1
  else
    self.thread = coroutine.create(body)
  end
  step(self, self, fn, ...)
  return self
end

---Waits: start(resume) begins something and returns a function that undoes it (or nothing). The
---task sleeps until resume(...) is called, once, at any time, and returns what it was called with.
---A cancelled task raises its reason from here.
---@async
---@param start fun(resume: function): function?
function task.await(start)
  local self = current
  if not self then
    error("task.await outside a task", 2)
  end
  if self.reason and not self.shielded then
    error(self.reason, 0)
  end
  local early, sleeping, done
  local function resume(...)
    if done then
      return
    end
    done = true
    if sleeping then
      self.cancel_wait, self.wake = nil, nil
      step(self, ...)
    else
      early = pack(...)
    end
  end
  local undo = start(resume)
  if early then
    return unpack(early, 1, early.n)
  end
  sleeping = true
  self.cancel_wait = function()
    if not done then
      done = true
      self.cancel_wait = nil
      if undo then
        undo()
      end
      step(self, task)
    end
  end
  local function woken(first, ...)
    if first == task then
      error(self.reason, 0)
    end
    return first, ...
  end
  return woken(yield())
end

---Waits until the task has ended.
---@async
---@return boolean ok, any ... its results, or the error
function Task:join()
  if not self.outcome then
    task.await(function(resume)
      table.insert(self.waiters, resume)
    end)
  end
  return unpack(self.outcome, 1, self.outcome.n)
end

---True when the task has ended.
function Task:done()
  return self.outcome ~= nil
end

---Makes the task raise `reason` from where it waits, now or at its next wait. Nothing happens to a
---task that has ended.
---@param reason? farcall.Error
function Task:cancel(reason)
  if self.outcome or self.reason then
    return
  end
  self.reason = reason or errors.new("cancelled", "task", "cancelled")
  if self.cancel_wait and not self.shielded then
    self.cancel_wait()
  end
end

---Runs fn with cancellation of this task held back: for clean-up that must wait and must be done.
---@async
function task.shield(fn, ...)
  local self = current
  local before = self.shielded
  self.shielded = true
  local results = pack(xpcall(fn, explain, ...))
  self.shielded = before
  if not results[1] then
    error(results[2], 0)
  end
  return unpack(results, 2, results.n)
end

---The poll loop of this run.
---@return farcall.Loop
function task.loop()
  if not scope then
    error("no loop outside task.run", 2)
  end
  return scope.loop
end

---The threads for what can only block.
---@return farcall.Work
function task.work()
  scope.work = scope.work or require("farcall.core.work").new(scope.loop)
  return scope.work
end

---Monotonic seconds.
task.now = core_loop.now

---@async
---@param seconds number
function task.sleep(seconds)
  local loop = task.loop()
  task.await(function(resume)
    local timer = loop:timer(math.max(0, math.ceil(seconds * 1000)), resume)
    return function()
      timer:close()
    end
  end)
end

---Runs fn for at most so many seconds. When they are over, fn is cancelled where it waits.
---@async
---@return any ... fn's results, or nil and an Error of kind timeout
function task.timeout(seconds, fn, ...)
  local late = errors.new("timeout", "", ("not done after %g s"):format(seconds))
  local child = task.spawn(fn, ...)
  if not child.outcome then
    local timer = task.loop():timer(math.max(0, math.ceil(seconds * 1000)), function()
      child:cancel(late)
    end)
    local ok, failure = pcall(child.join, child)
    timer:close()
    if not ok then
      -- This task was cancelled itself: the child goes with it.
      child:cancel(failure)
      error(failure, 0)
    end
  end
  local outcome = child.outcome
  if outcome[1] then
    return unpack(outcome, 2, outcome.n)
  end
  if outcome[2] == late then
    return nil, late
  end
  error(outcome[2], 0)
end

---A counter of permits, handed out in the order of asking.
---@param permits integer
function task.semaphore(permits)
  local waiting, first, last = {}, 1, 0
  local semaphore = {}

  ---@async
  function semaphore.acquire()
    if permits > 0 then
      permits = permits - 1
      return
    end
    last = last + 1
    local ticket = {}
    waiting[last] = ticket
    task.await(function(resume)
      ticket.resume = resume
      return function()
        ticket.resume = nil
      end
    end)
  end

  ---Gives the permit to the first who still waits.
  function semaphore.release()
    while first <= last do
      local ticket = waiting[first]
      waiting[first] = nil
      first = first + 1
      if ticket.resume then
        ticket.resume()
        return
      end
    end
    permits = permits + 1
  end

  return semaphore
end

---Something that happens once. set(...) wakes everybody; wait() returns what was set.
function task.event()
  local values
  local waiting = {}
  local event = {}

  function event.set(...)
    if values then
      return
    end
    values = pack(...)
    local list = waiting
    waiting = {}
    for resume in pairs(list) do
      resume()
    end
  end

  function event.is_set()
    return values ~= nil
  end

  ---@async
  function event.wait()
    if not values then
      task.await(function(resume)
        waiting[resume] = true
        return function()
          waiting[resume] = nil
        end
      end)
    end
    return unpack(values, 1, values.n)
  end

  return event
end

---Runs fn as a task on a loop of its own until it has ended; tasks that it left behind are
---cancelled. Returns its results; raises what it raised.
---@param fn async fun(...)
function task.run(fn, ...)
  if current then
    error("task.run inside a task", 2)
  end
  local before = scope
  local own = { loop = assert(core_loop.new()), live = {} }
  scope = own
  local started, main = pcall(task.spawn, fn, ...)
  local ran, failure = started, main
  if started and not main.outcome then
    table.insert(main.waiters, function()
      own.loop:stop()
    end)
    ran, failure = pcall(own.loop.run, own.loop)
  end
  local stuck = ran and not main.outcome
  -- Children that outlived their parent: cancelling one may end others, so look again each time.
  local left = next(own.live)
  while ran and left do
    left:cancel()
    if own.live[left] then
      -- It is cleaning up: let it.
      ran, failure = pcall(own.loop.turn, own.loop, 1000)
    end
    left = next(own.live)
  end
  if own.work then
    own.work:close()
  end
  own.loop:close()
  scope = before
  if not ran then
    error(failure, 0)
  end
  if stuck then
    local msg = "the main task waits for something that cannot come"
    error(errors.new("internal", "task.run", msg), 0)
  end
  local outcome = main.outcome
  if not outcome[1] then
    error(outcome[2], 0)
  end
  return unpack(outcome, 2, outcome.n)
end

return task
