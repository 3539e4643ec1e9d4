-- SPDX-License-Identifier: MIT
-- Sessions: which kernel a run gets, one run after the other; and when a kernel goes, and why.

local environments = require("farcall.environments")
local errors = require("farcall.errors")
local kernel = require("farcall.kernel")
local kernel_python = require("farcall.kernel_python")
local task = require("farcall.task")

local DRIVERS = { python = { name = "_farcall_kernel.py", text = kernel_python } }
-- Sessions without a kernel that are remembered, to say what became of them.
local MAX_REMEMBERED = 1000

---@class farcall.Kernels
---@field private slots table<string, farcall.kernels.Slot>
---@field private remembered string[] keys of slots, the oldest first
local kernels = {}
kernels.__index = kernels

---One session.
---@class farcall.kernels.Slot
---@field turn table semaphore: runs queue
---@field claims integer runs that are under way or wait
---@field kernel? farcall.Kernel
---@field used number when the last run ended
---@field lost? string why there is no kernel any more

---@class farcall.kernels.Claim a run's turn in its session
---@field private kernels farcall.Kernels
---@field private slot farcall.kernels.Slot
---@field private state? "new"|"kept"|"reset"|"lost"
---@field private lost? string
local Claim = {}
Claim.__index = Claim

---@param limits table<string, number> session_idle, sessions
---@return farcall.Kernels
function kernels.new(limits)
  return setmetatable({
    idle = limits.session_idle or 1800, max = limits.sessions or 16, slots = {}, remembered = {},
  }, kernels)
end

---What is wrong with a job's session, as far as it can be told before anything is started.
---@param job farcall.Job
---@param language string
---@return farcall.Error? err
function kernels.check(job, language)
  local name = job.session
  if type(name) ~= "string" or #name > 64 or not name:find("^[%w_][%w_.-]*$") then
    return errors.new("usage", "session", "its name is up to 64 letters, digits, _, - and .")
  elseif not DRIVERS[language] then
    return errors.new("unsupported", "session " .. name,
      ("there are sessions for Python only, not for %s"):format(language))
  elseif (job.pool or 1) > 1 then
    return errors.new("usage", "session " .. name, "it lives in one environment, not in a pool")
  elseif job.transport == "file" then
    return errors.new("unsupported", "session " .. name, "its calls cannot travel by files")
  end
  return nil
end

local function forget_oldest(self, key)
  local list = self.remembered
  list[#list + 1] = key
  while #list > MAX_REMEMBERED do
    local oldest = table.remove(list, 1)
    local slot = self.slots[oldest]
    if slot and not slot.kernel and slot.claims == 0 then
      self.slots[oldest] = nil
    elseif slot then
      list[#list + 1] = oldest
      break
    end
  end
end

local function slot_of(self, key)
  local slot = self.slots[key]
  if not slot then
    slot = { turn = task.semaphore(1), claims = 0, used = task.now() }
    self.slots[key] = slot
    forget_oldest(self, key)
  end
  return slot
end

local function disarm(slot)
  if slot.timer then
    slot.timer:close()
    slot.timer = nil
  end
end

---Waits for the run's turn in its session.
---@async
---@param run {job: farcall.Job, where: farcall.Place, template: farcall.StubTemplate}
---@return farcall.kernels.Claim?
---@return farcall.Error? err
---@nodiscard
function kernels:claim(run)
  local key = table.concat({
    environments.fingerprint(run.where), run.template.language, run.job.session,
  }, "\0\0")
  local slot = slot_of(self, key)
  slot.claims = slot.claims + 1
  local ok, cancelled = pcall(slot.turn.acquire)
  if not ok then
    slot.claims = slot.claims - 1
    error(cancelled, 0)
  end
  disarm(slot)
  local claim = setmetatable({ kernels = self, slot = slot, name = run.job.session }, Claim)
  if self.closed then
    claim:release()
    return nil, errors.new("unavailable", "session", "the engine is closed")
  end
  return claim
end

-- Makes room for one more kernel: the one goes that has not been used for longest.
---@async
local function make_room(self, own_slot)
  local live, oldest = 0, nil
  for _, slot in pairs(self.slots) do
    if slot ~= own_slot and (slot.kernel or slot.starting) then
      live = live + 1
      if slot.kernel and slot.claims == 0 and (not oldest or slot.used < oldest.used) then
        oldest = slot
      end
    end
  end
  if live < self.max then
    return true
  elseif not oldest then
    return nil, errors.new("limit", "session",
      ("there are %d sessions, and all are in use"):format(live), { retry = true })
  end
  local own = oldest.kernel
  oldest.kernel = nil
  oldest.lost = ("it made room for another one: there are at most %d sessions"):format(self.max)
  disarm(oldest)
  own:close(oldest.lost)
  return true
end

---@async
local function start(self, slot, spec, open)
  slot.starting = true
  local ok, own, failure = pcall(function()
    local room, err = make_room(self, slot)
    if not room then
      return nil, err
    end
    return kernel.start(spec, open)
  end)
  slot.starting = nil
  if not ok then
    error(own, 0)
  elseif own then
    slot.kernel = own
    function own.on_end()
      if slot.kernel == own then
        slot.kernel, slot.lost = nil, own.ended
      end
    end
  end
  return own, failure
end

---@async
local function discard(slot, why)
  local own = slot.kernel
  slot.kernel = nil
  own:close(why)
end

---A run in the session's kernel, which is started when there is none.
---@async
---@param run farcall.Run
---@param spec farcall.transport.Spec of this run, as if it had an interpreter of its own
---@param open async fun(spec: farcall.transport.Spec): farcall.uds.Session?, farcall.Error?
---@return farcall.kernel.Turn? turn
---@return farcall.Error? err
function Claim:open(run, spec, open)
  local slot, job = self.slot, run.job
  local before, own_script = slot.kernel, table.remove(spec.files)
  if before and job.reset then
    discard(slot, "it was reset")
    self.state = "reset"
  elseif before and before.env ~= run.env then
    discard(slot, "its environment was opened anew")
    slot.lost = before.ended
  elseif before and job.transport and job.transport ~= before.transport then
    return nil, errors.new("usage", "session " .. self.name,
      ("its calls travel by %s"):format(before.transport))
  end
  if not slot.kernel then
    self.lost = not job.reset and slot.lost or nil
    self.state = self.state or self.lost and "lost" or "new"
    slot.lost = nil
  else
    self.state = "kept"
  end
  local turn_job = {
    name = own_script.name, script = own_script.text, args = job.args, env = job.env,
    echo = job.echo, files = { unpack(spec.files) },
  }
  local token, on_request = spec.token, spec.on_request
  if not slot.kernel then
    local driver = DRIVERS[run.template.language]
    spec.files[#spec.files + 1], spec.script = driver, driver.name
    spec.words = function(_, path)
      return { path }
    end
    spec.variables = run.template.environment
    local started, err = start(self.kernels, slot, spec, open)
    if not started then
      return nil, err
    end
    started.transport, started.reason = run.transport, run.transport_reason
  end
  self.own = slot.kernel
  run.transport, run.transport_reason = self.own.transport, self.own.reason
  self.current = self.own:turn(turn_job, token, on_request)
  return self.current
end

local function add_note(result, note)
  result.hint = result.hint and result.hint .. "; " .. note or note
end

---Puts into the result what the session had to do with it.
---@param result table
function Claim:describe(result)
  result.session, result.session_state = self.name, self.state
  result.exit_called = self.current and self.current.exit_called or nil
  if self.lost then
    add_note(result, ("session %s began anew, what it knew was lost: %s"):format(self.name,
      self.lost))
  end
  local why = self.own and (self.own.why or self.own.ended)
  if why then
    result.session_lost = why
    add_note(result, ("what session %s knew is lost: %s"):format(self.name, why))
  elseif result.status == "timeout" and result.error then
    result.error = result.error:gsub("and was killed$", "and was interrupted")
  end
end

---Ends the run's turn. Idempotent.
function Claim:release()
  if self.released then
    return
  end
  self.released = true
  local slot, registry = self.slot, self.kernels
  slot.claims = slot.claims - 1
  slot.used = task.now()
  if slot.kernel and slot.claims == 0 and not registry.closed then
    slot.timer = task.loop():timer(math.ceil(registry.idle * 1000), function()
      slot.timer = nil
      if slot.kernel and slot.claims == 0 then
        slot.lost = ("it was not used for %g s"):format(registry.idle)
        task.spawn(discard, slot, slot.lost)
      end
    end)
  end
  slot.turn.release()
end

---Ends all kernels. Idempotent.
---@async
function kernels:close()
  self.closed = true
  local closers = {}
  for _, slot in pairs(self.slots) do
    disarm(slot)
    if slot.kernel then
      closers[#closers + 1] = task.spawn(discard, slot, "the engine was closed")
    end
  end
  for _, closer in ipairs(closers) do
    closer:join()
  end
end

return kernels
