-- SPDX-License-Identifier: MIT
-- What a runner and its engine speak through: the standard input and output of an exec. It brings
-- the runner into the environment, and a new link when one is lost and the runner waits for that.

local errors = require("farcall.errors")
local far = require("farcall.clients.runner_sh")
local fs = require("farcall.core.fs")
local places = require("farcall.places")
local sha256 = require("farcall.core.sha256")
local system = require("farcall.core.system")
local task = require("farcall.task")

local runner_link = {}

local PIECE = 262144
-- Seconds until a runner must have said hello (specs set it), and what it may say before that.
runner_link.HELLO_TIMEOUT = 30
local MAX_NOISE = 1024 * 1024
local MAX_WORDS = 4096
-- Seconds that a runner takes to end its trees and itself.
local FAREWELL = 15
-- Seconds that the status of an exec is waited for whose output has ended.
local LAST_STATUS = 2
-- Seconds between two tries to get a new link.
local TRY_AGAIN = 0.5
-- Code of an error that trying again does not change: no such runner is there.
local REFUSED = "REFUSED"
local WIRE_VERSION = "1"
-- So often, in seconds, each end of a link hears of the other; the far end gives a link up that has
-- been silent for so many times that.
runner_link.ASK_EVERY = 10
local LEASE = 4.5
local MAX_PROGRAM = 1024 * 1024

---@class farcall.runner_link.Options
---@field dir string where the programs are: farcall-runner-MACHINE and runner.py
---@field forms string[] "c", "python": those that may be used
---@field here? boolean the environment sees the files of this machine under the same names
---@field grace number seconds that the runner waits for a new link; 0: it ends with its link
---@field log? fun(level: string, text: string)

---@class farcall.RunnerLink
---@field form "c"|"python"
---@field machine string of the environment, as uname -m says
---@field broken? farcall.Error what it has done against the rules; it is ended for that
---@field private process? farcall.Process
---@field private waiting? function resumes the writer
local Link = {}
Link.__index = Link

local function hex(count)
  return (system.random(count):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

---The programs that can be sent: of the directory, read once.
---@type table<string, table<string, {text: string, hash: string}>>
local shelf = {}

---@return table<string, {text: string, hash: string}>? programs by machine, and "python"
---@return farcall.Error? err
local function programs_of(dir)
  if shelf[dir] then
    return shelf[dir]
  end
  local names, message, code = fs.list(dir)
  if not names then
    return nil, errors.new("unsupported", "runner", "its programs cannot be read: " .. message,
      { code = code, hint = "build or install farcall whole, or set FARCALL_RUNNERS" })
  end
  local programs = {}
  for _, name in ipairs(names) do
    local machine = name == "runner.py" and "python" or name:match("^farcall%-runner%-([%w_]+)$")
    local text = machine and fs.read(dir .. "/" .. name, MAX_PROGRAM)
    if text then
      programs[machine] = { text = text, hash = sha256.hex(text) }
    end
  end
  shelf[dir] = programs
  return programs
end

-- runner.py becomes what runs, as where it has come in by standard input.
local PYTHON_HERE = 'import sys\nwith open(sys.argv.pop(1), "rb") as t:\n    t = t.read()\n'
  .. 'exec(compile(t.split(b"\\f")[0], "farcall-runner", "exec"))'

local function patience_of(self)
  return ("%d:%d"):format(self.options.grace * 1000, runner_link.ASK_EVERY * LEASE * 1000)
end

-- On this machine the programs can be started where they are.
local function words_here(self, verb, mark)
  for _, form in ipairs(self.options.forms) do
    local path = form == "c" and places.runner(self.options.dir) or nil
    if form == "python" and self.programs.python then
      path = self.options.dir .. "/runner.py"
    end
    if path then
      self.form = form
      local words = { path, verb, mark, verb == "serve" and patience_of(self) or nil }
      return form == "python" and { "python3", "-B", "-c", PYTHON_HERE, unpack(words) } or words
    end
  end
  return nil
end

local function words_of(self, verb, mark)
  local words = self.options.here and words_here(self, verb, mark)
  if words then
    return words
  end
  words = {
    "sh", "-c", far.BRING, "sh", mark, verb, patience_of(self),
    table.concat(self.options.forms, " ") .. (self.anew and " new" or ""), self.word,
  }
  for machine, program in pairs(self.programs) do
    words[#words + 1] = machine
    words[#words + 1] = ("%d"):format(#program.text)
    if machine ~= "python" then
      words[#words + 1] = program.hash
    end
  end
  return words
end

-- Reads standard output up to the next line of ours. What belongs to standard error is kept: the
-- last of it says what went wrong.
---@async
---@return string? line
local function next_line(self, process, mark)
  local start = "\n" .. mark .. " "
  while true do
    local _, from = self.held:find(start, 1, true)
    local to = from and self.held:find("\n", from + 1, true)
    if to then
      local line = self.held:sub(from + 1, to - 1)
      self.held = self.held:sub(to + 1)
      return line
    elseif #self.held > MAX_NOISE then
      return nil
    end
    local stream, bytes = process:read(PIECE)
    if not stream then
      return nil
    elseif stream == "out" then
      self.held = self.held .. bytes
    else
      self.said = (self.said .. bytes):sub(-MAX_WORDS)
    end
  end
end

local function last_line(text)
  return text:gsub("%s+$", ""):match("[^\n]*$")
end

-- One exec that becomes the runner, or leads to it. Its hello, or why there is none. What it reads
-- first is sent when nothing else is there any more that could.
---@async
local function converse(self, process, mark, first)
  while true do
    local line = next_line(self, process, mark)
    if not line then
      local said = last_line(self.said)
      return nil, errors.new("unsupported", "runner",
        said ~= "" and said or "the exec ended before it said anything")
    end
    local word, rest = line:match("^(%l+) ?(.*)$")
    if word == "kept" or word == "ready" then
      self.kept = word == "kept"
      if first ~= "" then
        process:write(first)
      end
    elseif word == "send" and self.programs[rest] then
      self.form, self.kept = rest == "python" and "python" or "c", false
      local text = self.programs[rest].text
      -- Where that goes wrong, what it says next tells more.
      process:write(rest == "python" and text .. first or text)
    elseif word == "hello" or word == "resumed" then
      return rest
    elseif word == "none" then
      return nil, errors.new("unsupported", "runner", rest)
    elseif word == "error" then
      return nil, errors.new("unsupported", "runner", "it did not start: " .. rest,
        { code = REFUSED })
    else
      return nil, errors.new("protocol", "runner", "it said something else than hello")
    end
  end
end

---@async
local function bring(self, verb, seconds)
  local mark = hex(16)
  self.held, self.said, self.kept = "", "", false
  local process, err = self.env:start({ argv = words_of(self, verb, mark), stdin = "pipe" })
  if not process then
    return nil, err
  end
  local first = verb == "attach" and ("%s %.0f\n"):format(self.token, self.mux:received()) or ""
  local ok, rest, failure = pcall(task.timeout, seconds, converse, self, process, mark, first)
  if ok and rest then
    return process, rest
  end
  task.shield(process.kill, process)
  if not ok then
    error(rest, 0)
  end
  return nil, failure.kind == "timeout" and errors.new("unsupported", "runner",
    ("it did not say hello within %d s"):format(seconds)) or failure
end

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
  local bytes, stream = self.held, "out"
  self.held = ""
  while stream do
    if stream == "err" then
      self.said = (self.said .. bytes):sub(-MAX_WORDS)
    elseif #bytes > 0 then
      local fed, message, code = self.mux:feed(bytes)
      if not fed then
        return errors.new("protocol", "runner", "it broke the rules of the wire: " .. message,
          { code = code })
      end
    end
    stream, bytes = process:read(PIECE)
  end
  local said = last_line(self.said)
  return errors.new("lost", "runner", said ~= "" and said or "its link has ended")
end

-- One try to get a new link. After one on which nothing came any more whatever it went through is
-- made anew too, however alive it looks.
---@async
local function reach(self, anew, seconds)
  local env = self.env
  if env.restore then
    local restored, err = env:restore(anew)
    if not restored then
      return nil, err
    end
  end
  return bring(self, "attach", seconds)
end

-- A new link, as long as the runner waits for one.
---@async
local function relink(self, failure)
  local last = task.now() + self.options.grace
  self.mux:suspend()
  while not self.closed do
    local left = math.max(1, last - task.now())
    local process, rest = task.timeout(left, reach, self, self.reason ~= nil, left)
    local received = process and tonumber(rest:match("^(%d+)$"))
    if received and self.mux:resume(received) then
      return process
    elseif process then
      process:kill()
      return nil, errors.new("protocol", "runner", "it resumed at what was never sent")
    elseif rest.code == REFUSED or task.now() + TRY_AGAIN > last then
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

---The runner has been told to end: gives it the time for that.
---@async
function Link:last_words()
  self.closed = true
  if not self.holder:done() then
    task.timeout(FAREWELL, self.holder.join, self.holder)
  end
  self:close()
end

---Lets go of the exec. Idempotent.
function Link:close()
  self.closed = true
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
  local program = self.programs[machine]
  if self.kept and not (program and program.hash == hash) then
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
  local process, rest = bring(self, "serve", runner_link.HELLO_TIMEOUT)
  local facts, err
  if process then
    facts, err = facts_of(self, rest)
    if facts then
      return process, facts
    end
    task.shield(process.kill, process)
  end
  if self.kept and not self.anew then
    self.anew = true
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
  local self = setmetatable({
    env = env, options = options, mux = mux, on_lost = on_lost, word = hex(8), token = hex(32),
    form = "c",
  }, Link)
  local err
  self.programs, err = programs_of(options.dir)
  if not self.programs then
    return nil, err
  end
  local process, facts = begin(self)
  if not process then
    return nil, facts
  end
  self.level, self.machine = facts.level, facts.machine
  process:write(self.token .. "\n")
  self.holder = task.spawn(hold, self, process)
  return self
end

return runner_link
