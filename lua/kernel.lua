-- SPDX-License-Identifier: MIT
-- One kernel: an interpreter that stays for the runs of a session, and the process that it is. A
-- run in it has the methods of a process and of a transport's session: farcall.run lives it like
-- any other.
--
-- What belongs to a run is between two marks on each stream; the marks hold a random word of that
-- run. What comes between runs, from threads and processes that a run has left, is dropped.

local errors = require("farcall.errors")
local hex = require("farcall.hex")
local task = require("farcall.task")

local kernel = {}

-- Seconds that a script has after SIGINT before its interpreter is ended, and that an interpreter
-- has for its last words when nobody wants it any more.
local INTERRUPT_GRACE, CLOSE_GRACE = 1, 0.5
-- Bytes that are kept of what an interpreter says before its run has begun: it may be why it ended.
local MAX_EARLY = 16384
-- Longer than any mark: what could be the beginning of one is held back.
local MAX_MARK = 64

---One stream of one run. State: nil before the first mark, "in" between them, "done" behind.
local function splitter(nonce)
  local self, tail = { early = "" }, ""
  local first, last = nonce .. " begin\n", nonce .. " end "

  local function take(bytes)
    tail = tail .. bytes
    if not self.state then
      local from, to = tail:find(first, 1, true)
      if not from then
        local cut = math.max(0, #tail - MAX_MARK)
        self.early = (self.early .. tail:sub(1, cut)):sub(1, MAX_EARLY)
        tail = tail:sub(cut + 1)
        return ""
      end
      self.state, self.early, tail = "in", "", tail:sub(to + 1)
    end
    if self.state == "done" then
      tail = ""
      return ""
    end
    local from, to, code, how = tail:find(last .. "(%d+)([ exit]*)\n")
    if from then
      local own = tail:sub(1, from - 1)
      self.state, self.code, tail = "done", tonumber(code), tail:sub(to + 1)
      self.exit_called = how ~= ""
      return own
    end
    -- Only what could belong to a mark waits.
    local start = tail:find(last, 1, true)
    for held = math.min(#tail, #last), 1, -1 do
      if start then
        break
      end
      if tail:sub(-held) == last:sub(1, held) then
        start = #tail - held + 1
      end
    end
    local own = tail:sub(1, (start or #tail + 1) - 1)
    tail = tail:sub(#own + 1)
    return own
  end

  self.take = take

  ---What is left when the interpreter has ended in the middle.
  function self.rest()
    local own = self.state == "in" and tail or not self.state and self.early .. tail or ""
    tail, self.early = "", ""
    return own
  end

  return self
end

---@class farcall.kernel.Turn a run in a kernel: its process and its session
---@field state "new"|"kept"|"reset"|"lost" what the run found
---@field execs integer
---@field runner? string
local Turn = {}
Turn.__index = Turn

---@class farcall.Kernel
---@field env farcall.Env
---@field transport string
---@field ended? string why it is no more
---@field private session farcall.uds.Session
---@field private process farcall.Process
---@field private current? farcall.kernel.Turn
local Kernel = {}
Kernel.__index = Kernel

-- Hands bytes to whoever reads the run, and waits until they have been taken.
---@async
local function deliver(turn, name, bytes)
  if bytes == "" or turn.dropping then
    return
  end
  turn.piece = { name, bytes }
  if turn.wake_reader then
    turn.wake_reader()
  end
  if turn.piece and not turn.dropping then
    task.await(function(resume)
      turn.wake_pump = resume
    end)
    turn.wake_pump = nil
  end
end

local function conclude(turn, status, err)
  if not turn.over.is_set() then
    turn.status, turn.err = status, err
    turn.over.set()
    if turn.wake_reader then
      turn.wake_reader()
    end
  end
end

---@async
local function heard(self, name, bytes)
  local turn = self.current
  if not turn or turn.over.is_set() then
    return
  end
  local stream = turn.streams[name]
  deliver(turn, name, stream.take(bytes))
  local other = turn.streams[name == "out" and "err" or "out"]
  if stream.state == "done" and other.state == "done" then
    turn.exit_called = stream.exit_called
    conclude(turn, { exit = stream.code })
  end
end

local function told(status, err)
  if not status then
    return tostring(err)
  end
  return status.exit and ("its interpreter ended with exit code %d"):format(status.exit)
    or ("its interpreter was ended by signal %s"):format(status.name)
end

-- Reads the interpreter to its end, whether a run is under way or not.
---@async
local function pump(self)
  while true do
    local ok, name, bytes = pcall(self.process.read, self.process, 262144)
    if not ok or not name then
      break
    end
    heard(self, name, bytes)
  end
  local ok, status, err = pcall(self.process.wait, self.process)
  if not ok then
    status, err = nil, status
  end
  local turn = self.current
  self.ended = self.why or told(status, err)
  self.session:close()
  if turn and not turn.over.is_set() then
    for name, stream in pairs(turn.streams) do
      deliver(turn, name, stream.rest())
    end
    conclude(turn, status, err)
  end
  self.gone.set()
  if self.on_end then
    self.on_end()
  end
end

---Starts an interpreter.
---@async
---@param spec farcall.transport.Spec of the first run, with the driver as its script
---@param open async fun(spec: farcall.transport.Spec): farcall.uds.Session?, farcall.Error?
---opens a transport
---@return farcall.Kernel?
---@return farcall.Error? err
---@nodiscard
function kernel.start(spec, open)
  local self = setmetatable({ env = spec.env, gone = task.event(), files = {} }, Kernel)
  for _, file in ipairs(spec.files) do
    self.files[file.name] = file.text
  end
  spec.token, spec.stdin = hex.random(32), "pipe"
  spec.on_request = function(request, respond)
    local turn = self.current
    if not turn then
      respond({ error = { kind = "refused", message = "the run has ended" } })
      return nil
    end
    return turn.on_request(request, respond)
  end
  local err
  self.session, err = open(spec)
  if not self.session then
    return nil, err
  end
  local ok, process
  ok, process, err = pcall(self.session.start, self.session)
  if not ok or not process then
    task.shield(self.session.close, self.session)
    if not ok then
      error(process, 0)
    end
    return nil, err
  end
  self.process = process
  task.spawn(pump, self)
  return self
end

-- Files of the stub that are not as the interpreter has them: other tools are listed.
local function changed(self, files)
  local list = {}
  for _, file in ipairs(files) do
    if self.files[file.name] and self.files[file.name] ~= file.text then
      self.files[file.name] = file.text
      list[#list + 1] = file
    end
  end
  return list
end

local function request_of(self, job, nonce, token)
  local fields = { "nonce", nonce, "token", token, "name", job.name, "script", job.script }
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if job.echo then
    add("echo", "1")
  end
  for _, word in ipairs(job.args or {}) do
    add("arg", word)
  end
  for name, value in pairs(job.env or {}) do
    add("env", name .. "=" .. value)
  end
  for _, file in ipairs(changed(self, job.files)) do
    add("file:" .. file.name, file.text)
  end
  local sizes = {}
  for i, value in ipairs(fields) do
    sizes[i] = #value
  end
  return table.concat(sizes, " ") .. "\n" .. table.concat(fields)
end

---A run in this kernel, which has none now. It begins with turn:start().
---@param job {name: string, script: string, args?: string[], env?: table<string, string>,
---echo?: boolean, files: {name: string, text: string}[]} files are the stub's for this run
---@param token string of the run
---@param on_request function as for farcall.transports.uds
---@return farcall.kernel.Turn
function Kernel:turn(job, token, on_request)
  local nonce = hex.random(16)
  local turn = setmetatable({
    kernel = self, token = token, on_request = on_request, over = task.event(),
    request = request_of(self, job, nonce, token),
    streams = { out = splitter(nonce), err = splitter(nonce) },
    execs = self.used and 0 or self.session.execs, runner = self.session.runner,
  }, Turn)
  self.used = true
  return turn
end

---@async
local function finish(self)
  if not self.current and not self.gone.is_set() then
    self.process:close_stdin()
    task.timeout(CLOSE_GRACE, self.gone.wait)
  end
  if self.current then
    self.current:drop()
  end
  self.process:kill()
  self.gone.wait()
end

---Ends the interpreter: it may say its last words, and is killed with all that it has started.
---Idempotent, and not to be cancelled: nobody else would end it.
---@async
---@param why string
function Kernel:close(why)
  self.why = self.why or why
  task.shield(finish, self)
end

---@async
---@return farcall.kernel.Turn?
---@return farcall.Error? err
function Turn:start()
  local own = self.kernel
  if own.ended then
    return nil, errors.new("lost", "session", own.ended)
  end
  own.current = self
  own.session.server.token = self.token
  -- Not waited for: an interpreter that does not read must not hold up the end of this run.
  task.spawn(function()
    self.sent = pcall(own.process.write, own.process, self.request)
    self.request = nil
  end)
  return self
end

---The next output; nil when the run is over.
---@async
---@return "out"|"err"|nil stream
---@return string? bytes
function Turn:read()
  while true do
    local piece = self.piece
    if piece then
      self.piece = nil
      if self.wake_pump then
        self.wake_pump()
      end
      return piece[1], piece[2]
    elseif self.over.is_set() then
      return nil
    end
    task.await(function(resume)
      self.wake_reader = resume
      return function()
        self.wake_reader = nil
      end
    end)
    self.wake_reader = nil
  end
end

---@async
---@return {exit?: integer, signal?: integer, name?: string}? status
---@return farcall.Error? err
function Turn:wait()
  self.over.wait()
  return self.status, self.err
end

---Raises SIGINT in the script.
function Turn:signal()
  if self.sent and not self.interrupted and not self.over.is_set() then
    self.interrupted = true
    local process = self.kernel.process
    task.spawn(pcall, process.write, process, "\n")
  end
end

---Nobody reads the run's output any more.
function Turn:drop()
  self.dropping, self.piece = true, nil
  if self.wake_pump then
    self.wake_pump()
  end
end

---Ends the run: the script is interrupted, and when it does not end by that, its interpreter is
---killed, with the state of the session. Returns when the run is over. Idempotent.
---@async
function Turn:kill()
  if self.over.is_set() or self.kernel.current ~= self then
    return
  end
  if self.sent and not self.interrupted then
    self:signal()
    task.timeout(INTERRUPT_GRACE / 2, self.over.wait)
    if not self.over.is_set() then
      self:drop()
      task.timeout(INTERRUPT_GRACE / 2, self.over.wait)
    end
  end
  if not self.over.is_set() then
    self.kernel:close("its script did not stop when it was interrupted, and was killed")
  end
end

---Takes the run's authority back. Idempotent.
function Turn:close()
  local own = self.kernel
  if own.current == self then
    own.current = nil
    own.session.server.token = hex.random(32)
  end
end

return kernel
