-- SPDX-License-Identifier: MIT
-- What a runner and its engine speak through: the standard input and output of an exec. When it is
-- lost and the runner waits for another one there is a new link, or turns where there can be none
-- (clients/runner_turns.lua).

local bringer = require("farcall.clients.runner_bring")
local errors = require("farcall.errors")
local hex = require("farcall.hex")
local task = require("farcall.task")
local turns = require("farcall.clients.runner_turns")

local runner_link = {}

local PIECE = 262144
-- Seconds until a runner must have said hello (specs set it).
runner_link.HELLO_TIMEOUT = 30
-- Seconds that a runner takes to end its trees and itself.
local FAREWELL = 15
-- Seconds that are left at the end for a last turn, and for a new link that may be on its way.
local LAST_TURN, LAST_CHANCE = 5, 1
-- Seconds that the status of an exec is waited for whose output has ended.
local LAST_STATUS = 2
-- Seconds between two tries to get a new link.
local TRY_AGAIN = 0.5
local WIRE_VERSION = "1"
-- So often, in seconds, each end of a link hears of the other; the far end gives a link up that has
-- been silent for so many times that.
runner_link.ASK_EVERY = 10
local LEASE = 4.5

---@class farcall.runner_link.Options
---@field dir string where the programs are: farcall-runner-MACHINE and runner.py
---@field forms string[] "c", "python": those that may be used
---@field here? boolean the environment sees the files of this machine under the same names
---@field grace number seconds that the runner waits for a new link; 0: it ends with its link
---@field log? fun(level: string, text: string)

---@class farcall.RunnerLink
---@field form "c"|"python"
---@field why? string of the Python one: why it is not the one in C
---@field machine string of the environment, as uname -m says
---@field broken? farcall.Error what it has done against the rules; it is ended for that
---@field turns? string while it goes by turns: why there is no link
---@field mux farcall.Mux
---@field bring farcall.RunnerBring
---@field token string that the runner knows its engine by
---@field closed? boolean there will be no new link
---@field over? boolean nor is anything to be said any more
---@field private process? farcall.Process
---@field private waiting? function resumes the writer
local Link = {}
Link.__index = Link

---Whoever has put something into the mux calls this.
function Link:wake()
  local resume = self.waiting
  if resume then
    self.waiting = nil
    resume()
  end
end

---@async
local function write_all(self, process)
  while self.process == process do
    local bytes = self.mux:output()
    if bytes then
      local sent = process:write(bytes)
      if not sent then
        return
      end
    else
      task.await(function(resume)
        self.waiting = resume
        return function()
          self.waiting = nil
        end
      end)
    end
  end
end

---@async
local function read_all(self, process)
  local bytes, stream = self.bring:rest(), "out"
  while stream do
    if stream == "err" then
      self.bring:hear(bytes)
    elseif #bytes > 0 then
      local fed, message, code = self.mux:feed(bytes)
      if not fed then
        return errors.new("protocol", "runner", "it broke the rules of the wire: " .. message,
          { code = code })
      end
    end
    stream, bytes = process:read(PIECE)
  end
  local said = self.bring:last_line()
  return errors.new("lost", "runner", said ~= "" and said or "its link has ended")
end

-- One try to get a new link. After one on which nothing came any more whatever it went through is
-- made anew too, however alive it looks.
---@async
local function reach(self, anew, seconds)
  local env, last = self.env, task.now() + seconds
  if env.restore then
    local restored, err = task.timeout(seconds, env.restore, env, anew)
    if not restored then
      return nil, err
    end
  end
  local first = ("%s %.0f\n"):format(self.token, self.mux:received())
  return self.bring:live("attach", math.max(1, last - task.now()), first)
end

-- Time for a second try must be left, which may be a turn.
local function share_of(last)
  return math.max(1, (last - task.now()) / 2)
end

-- A new link, as long as the runner waits for one. Where there is none but execs that end, it goes
-- on by turns until these are lost too.
---@async
local function relink(self, failure)
  local last = task.now() + self.options.grace
  self.mux:suspend()
  while not self.closed do
    local seconds = share_of(last)
    local process, rest = reach(self, self.reason ~= nil, seconds)
    local received = process and turns.count(rest)
    if received and self.mux:resume(received) then
      return process
    elseif process then
      process:kill()
      return nil, turns.never_sent()
    elseif rest.kind == "unsupported" and rest.code ~= bringer.REFUSED then
      local taken
      self.turns = rest.msg
      taken, rest = turns.take(self, share_of(last))
      self.turns = nil
      last = taken > 0 and task.now() + self.options.grace or last
    end
    if rest.kind == "protocol" then
      return nil, rest
    elseif rest.code == bringer.REFUSED or task.now() + TRY_AGAIN > last then
      return nil, failure
    end
    task.sleep(TRY_AGAIN)
  end
  return nil, failure
end

-- Holds the link until it is lost for good.
---@async
local function hold(self, process)
  local failure
  while process do
    self.process = process
    local writer = task.spawn(write_all, self, process)
    failure = read_all(self, process)
    self.process = nil
    writer:cancel()
    if failure.kind == "lost" then
      -- How the exec ended says whether its environment is still there. One that has an orderly end
      -- before the first answer has heard nothing but its end.
      local status = task.timeout(LAST_STATUS, process.wait, process)
      if status and status.exit == 0 and self.mux:received() == 0 then
        failure = runner_link.unheard()
      end
    else
      self.broken = failure
    end
    process:kill()
    process = nil
    if failure.kind == "lost" and self.options.grace > 0 and not self.closed then
      process, failure = relink(self, self.reason or failure)
      self.reason = nil
      self.relinked = (self.relinked or 0) + 1
    end
  end
  self.on_lost(self.reason or failure)
end

---Cuts the link: the runner is not heard of any more.
---@param err farcall.Error
function Link:lose(err)
  if self.process then
    self.reason = err
    task.spawn(self.process.kill, self.process)
  end
end

---The runner is to end, and hears so where there is a link: gives it the time for that. Without one
---it cannot be told, and ends with all that it has started when its grace is over.
---@async
function Link:last_words()
  self.closed = true
  local holder = self.holder
  if not holder:done() then
    local seconds = self.turns and LAST_TURN or self.process and FAREWELL or LAST_CHANCE
    task.timeout(seconds, holder.join, holder)
  end
  if not holder:done() and not self.process then
    local err = errors.new("lost", "runner", "the engine ended before there was a new link")
    holder:cancel(err)
    self.on_lost(err)
  end
  self:close()
end

---Lets go of the exec. Idempotent.
function Link:close()
  self.closed, self.over = true, true
  if self.process then
    task.spawn(self.process.kill, self.process)
  end
end

-- What a hello says; nil when the program that was kept over there is not the one that was sent.
local function facts_of(self, rest)
  local version, level, machine, hash = rest:match("^(%d+) %d+ %d+ (%S+) (%S+) (%S+)$")
  if version ~= WIRE_VERSION then
    return nil, errors.new("protocol", "runner",
      ("it speaks version %s of the wire, not %s"):format(tostring(version), WIRE_VERSION))
  end
  local program = self.bring.programs[machine]
  if self.bring.kept and not (program and program.hash == hash) then
    return nil, errors.new("protocol", "runner", "the program that was kept there has changed")
  end
  return { level = level, machine = machine }
end

---Why a runner that says hello and no more is of no use.
---@return farcall.Error
function runner_link.unheard()
  return errors.new("unsupported", "runner",
    "it says hello, but nothing that is sent arrives there")
end

-- The first link. A program that was kept over there and does not work is sent anew, once.
---@async
local function begin(self)
  local process, rest = self.bring:live("serve", runner_link.HELLO_TIMEOUT)
  local facts, err
  if process then
    facts, err = facts_of(self, rest)
    if facts then
      return process, facts
    end
    task.shield(process.kill, process)
  end
  if self.bring.kept and not self.bring.anew then
    self.bring.anew = true
    return begin(self)
  end
  return nil, err or rest
end

---@async
---@param env farcall.Env
---@param options farcall.runner_link.Options
---@param mux farcall.Mux
---@param on_lost fun(err: farcall.Error) called once, when there is no link any more
---@return farcall.RunnerLink?
---@return farcall.Error? err
---@nodiscard
function runner_link.open(env, options, mux, on_lost)
  local bring, err = bringer.new(env, {
    dir = options.dir, forms = options.forms, here = options.here,
    patience = ("%d:%d"):format(options.grace * 1000, runner_link.ASK_EVERY * LEASE * 1000),
  })
  if not bring then
    return nil, err
  end
  local self = setmetatable({
    env = env, options = options, mux = mux, on_lost = on_lost, bring = bring,
    token = hex.random(32),
  }, Link)
  local process, facts = begin(self)
  if not process then
    return nil, facts
  end
  self.form, self.level, self.machine = bring.form, facts.level, facts.machine
  self.why = bring.why
  process:write(self.token .. "\n")
  self.holder = task.spawn(hold, self, process)
  return self
end

return runner_link
