-- SPDX-License-Identifier: MIT
-- A process over SSH: a channel of a session, in the messages of RFC 4254, which OpenSSH's master
-- passes on. What it passes on from the server is not to be trusted: a message that is not whole,
-- or out of place, ends the session.

local errors = require("farcall.errors")
local proc = require("farcall.core.proc")
local ssh_wire = require("farcall.clients.ssh_wire")
local task = require("farcall.task")

local counted, get_string, get_u32, u32 = ssh_wire.counted, ssh_wire.get_string, ssh_wire.get_u32,
  ssh_wire.u32

-- An unread process holds so much back, in our memory; the rest waits over there.
local WINDOW = 1024 * 1024
local MAX_PACKET = 32768
-- Who writes waits while the master has not taken so much.
local CONGESTED = 512 * 1024

local OPEN, OPENED, REFUSED = 90, 91, 92
local ADJUST, DATA, EXTENDED, EOF, CLOSE = 93, 94, 95, 96, 97
local REQUEST, SUCCESS, FAILURE = 98, 99, 100
local STDERR = 1

local function send(session, kind, rest)
  if session.io then
    session.io:write(u32(#rest + 2) .. "\0" .. string.char(kind) .. rest)
  end
end

---@class farcall.OpensshProcess: farcall.Process
---@field private session farcall.OpensshSession
---@field private state "opening"|"refused"|"open"|"ended" ended: the other side has closed it
---@field private waiters table<function, true>
---@field private pieces table[] {stream, bytes}, not read yet
local Process = {}
Process.__index = Process

---Waits until something has changed.
---@async
---@param self farcall.OpensshProcess
local function await_change(self)
  task.await(function(resume)
    self.waiters[resume] = true
    return function()
      self.waiters[resume] = nil
    end
  end)
end

---Wakes who waits for that.
---@param self farcall.OpensshProcess
local function on_change(self)
  local waiters = self.waiters
  self.waiters = {}
  for resume in pairs(waiters) do
    resume()
  end
end

---Sends the last word about it, once.
local function close_channel(self)
  if self.state == "open" and not self.sent_close then
    self.sent_close, self.sent_eof = true, true
    send(self.session, CLOSE, u32(self.remote))
  end
end

local function give_back(self, size)
  self.taken = self.taken + size
  if self.taken >= WINDOW / 2 and self.state == "open" and not self.sent_close and not self.eof then
    send(self.session, ADJUST, u32(self.remote) .. u32(self.taken))
    self.window = self.window + self.taken
    self.taken = 0
  end
end

---The next output; nil at the end of both streams, or of the session.
---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string? bytes
function Process:read(max)
  while true do
    local piece = self.pieces[self.first]
    if piece then
      local bytes = piece[2]
      if #bytes > max then
        piece[2] = bytes:sub(max + 1)
        bytes = bytes:sub(1, max)
      else
        self.pieces[self.first] = nil
        self.first = self.first + 1
      end
      give_back(self, #bytes)
      return piece[1], bytes
    elseif self.eof or self.killed or self.state == "ended" or self.session.death then
      return nil
    end
    await_change(self)
  end
end

-- Has it woken when the master has taken what is on its way.
local function wake_when_drained(self)
  local session = self.session
  if not next(session.congested) then
    session.io:on_drained(function()
      local congested = session.congested
      session.congested = {}
      for process in pairs(congested) do
        on_change(process)
      end
    end)
  end
  session.congested[self] = true
end

local function is_deaf(self)
  return self.sent_eof or self.killed or self.deaf or self.state == "ended" or not self.session.io
end

---Waits until the bytes are on their way.
---@async
---@param bytes string
---@return boolean?
---@return farcall.Error? err
function Process:write(bytes)
  local at = 1
  while at <= #bytes do
    if is_deaf(self) then
      return nil, errors.new("lost", "stdin", "the process does not read any more",
        { code = "EPIPE" })
    end
    local size = math.min(#bytes - at + 1, self.their_window, self.their_packet)
    if size > 0 and self.session.io:pending() < CONGESTED then
      send(self.session, DATA, u32(self.remote) .. counted(bytes:sub(at, at + size - 1)))
      self.their_window = self.their_window - size
      at = at + size
    else
      if size > 0 then
        wake_when_drained(self)
      end
      await_change(self)
    end
  end
  return true
end

function Process:close_stdin()
  if self.state == "open" and not self.sent_eof then
    self.sent_eof = true
    send(self.session, EOF, u32(self.remote))
  end
end

---The status; an error of kind lost when the session died before all was said.
---@async
---@return {exit?: integer, signal?: integer, name?: string}? status
---@return farcall.Error? err
function Process:wait()
  while self.state ~= "ended" and not self.killed and not self.session.death do
    await_change(self)
  end
  local op = self.session.op
  if self.status and (self.state == "ended" or self.eof) then
    return self.status
  elseif self.killed then
    return nil, errors.new("lost", op, "the process was let go", { code = "CLOSED" })
  elseif self.state == "ended" then
    return nil, errors.new("lost", op, "the server did not say how the process ended")
  end
  return nil, self.session.death
end

---Lets go of the process, which may run on; wait() then fails with code CLOSED. Idempotent.
function Process:kill()
  if self.killed or self.state == "ended" then
    return
  end
  self.killed = true
  self.pieces, self.first, self.last = {}, 1, 0
  if not self.status then
    self.session.let_go = task.now()
  end
  close_channel(self)
  on_change(self)
end

local function forget(self, process)
  if process.state == "open" then
    self.open = self.open - 1
  end
  self.busy = self.busy - 1
  self.channels[process.id] = nil
end

local HANDLERS = {}

HANDLERS[OPENED] = function(self, process, bytes, at)
  local remote, window, packet
  remote, at = get_u32(bytes, at)
  window, at = get_u32(bytes, at or #bytes + 1)
  packet = get_u32(bytes, at or #bytes + 1)
  if process.state ~= "opening" or not packet or packet == 0 then
    return false
  end
  process.state, process.remote = "open", remote
  process.their_window, process.their_packet = window, math.min(packet, MAX_PACKET)
  self.open = self.open + 1
  if self.limit and self.open > self.limit then
    -- It was learnt when others still counted.
    self.limit = nil
    self:call_next()
  end
  if process.killed then
    close_channel(process)
  else
    send(self, REQUEST, u32(remote) .. counted("exec") .. "\1" .. counted(process.command))
    process.command = nil
  end
end

HANDLERS[REFUSED] = function(self, process)
  if process.state ~= "opening" then
    return false
  end
  forget(self, process)
  process.state = "refused"
end

HANDLERS[ADJUST] = function(_, process, bytes, at)
  local size = get_u32(bytes, at)
  if not size or process.state ~= "open" then
    return false
  end
  process.their_window = math.min(process.their_window + size, 4294967295)
end

local function take(process, name, bytes)
  if not bytes or process.state ~= "open" or #bytes > process.window then
    return false
  end
  process.window = process.window - #bytes
  if not process.killed and bytes ~= "" then
    process.last = process.last + 1
    process.pieces[process.last] = { name, bytes }
  end
end

HANDLERS[DATA] = function(_, process, bytes, at)
  return take(process, "out", (get_string(bytes, at)))
end

HANDLERS[EXTENDED] = function(_, process, bytes, at)
  local kind
  kind, at = get_u32(bytes, at)
  if kind and kind ~= STDERR then
    return false
  end
  return take(process, "err", (get_string(bytes, at)))
end

HANDLERS[EOF] = function(_, process)
  process.eof = true
end

HANDLERS[CLOSE] = function(self, process)
  if process.state ~= "open" then
    return false
  end
  close_channel(process)
  forget(self, process)
  process.state = "ended"
  self:call_next()
end

HANDLERS[SUCCESS] = function(_, process)
  process.accepted = true
end

HANDLERS[FAILURE] = function(_, process)
  process.accepted = process.accepted or false
end

HANDLERS[REQUEST] = function(self, process, bytes, at)
  local name, number
  name, at = get_string(bytes, at)
  if not name or at > #bytes or process.state ~= "open" then
    return false
  end
  local wants_answer = bytes:byte(at) ~= 0
  if name == "exit-status" then
    number = get_u32(bytes, at + 1)
    process.status = number and { exit = number }
  elseif name == "exit-signal" then
    name = get_string(bytes, at + 1) or "?"
    -- The server names it; a number is only ours to know.
    local known
    known, number = pcall(proc.signal_number, name)
    process.status = { signal = known and number or nil, name = name:gsub("[^%w@.-]", "?") }
  elseif name == "eow@openssh.com" then
    process.deaf = true
  end
  if wants_answer and not process.sent_close then
    send(self, FAILURE, u32(process.remote))
  end
end

---A message from the master.
---@param self farcall.OpensshSession
---@param frame string without its length
---@return boolean fine false: it is not whole, or out of place
local function handle(self, frame)
  local kind = frame:byte(2)
  local handler = HANDLERS[kind]
  if not handler then
    return true
  end
  local id, at = get_u32(frame, 3)
  local process = self.channels[id or false]
  if not process or handler(self, process, frame, at) == false then
    return false
  end
  on_change(process)
  return true
end

---Asks for a channel for a command. It is open, or refused, when that changes its state.
---@param session farcall.OpensshSession
---@param id integer
---@param command string
---@return farcall.OpensshProcess
local function open(session, id, command)
  local process = setmetatable({
    session = session, id = id, state = "opening", waiters = {}, command = command,
    pieces = {}, first = 1, last = 0, window = WINDOW, taken = 0,
  }, Process)
  session.channels[id] = process
  session.busy = session.busy + 1
  send(session, OPEN, counted("session") .. u32(id) .. u32(WINDOW) .. u32(MAX_PACKET))
  return process
end

return { open = open, handle = handle, await_change = await_change, on_change = on_change }
