-- SPDX-License-Identifier: MIT
-- The connection that `exec start` takes over: bytes to standard input one way, standard output and
-- error in frames the other way. A frame is a byte that names the stream, three zeros, a length of
-- four bytes, and so many bytes (Docker Engine API, "Attach to a container", stream format).

local errors = require("farcall.errors")
local fdbuf = require("farcall.core.fdbuf")
local task = require("farcall.task")

local docker_stream = {}

local NAMES = { [1] = "out", [2] = "err" }
local HEADER = 8
local MAX_LINE = 8192
local MAX_LINES = 100
local MAX_REFUSAL = 65536
local MAX_PIECE = 64 * 1024
-- What is kept for a reader: behind it the kernel's buffer fills, then the engine's, then the pipe.
local MAX_IN = 256 * 1024

---@class farcall.DockerStream
---@field over any event: nothing more will come
---@field on_over? fun() called once when that is so
---@field torn boolean it ended within a frame, or with something that is no frame
---@field private io any fdbuf, nil when closed
local Stream = {}
Stream.__index = Stream

-- Waits until the descriptor can be read, or the stream is closed here.
---@async
local function await_readable(self)
  task.await(function(resume)
    local function stop()
      self.wake_reader = nil
      if self.io then
        self.io:on_readable(nil)
      end
    end
    self.wake_reader = function()
      stop()
      resume()
    end
    self.io:on_readable(self.wake_reader)
    return stop
  end)
end

-- Bytes that are there, or nil at the end. A connection that is reset has ended as well: that is
-- how it looks when the process left some of its input unread.
---@async
local function pull(self, max)
  while self.io do
    local bytes, _, code = self.io:read(max)
    if bytes then
      return bytes
    elseif code ~= "EAGAIN" then
      return nil
    end
    await_readable(self)
  end
  return nil
end

-- Nothing more will come; the daemon has closed its side, or what it says makes no sense.
local function finish(self, torn)
  self.torn = self.torn or torn
  self:close()
  return nil
end

---The next output, at most max bytes; nil at the end.
---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string? bytes
function Stream:read(max)
  while not self.over.is_set() do
    if self.left > 0 then
      local bytes
      if #self.rest > 0 then
        bytes = self.rest:sub(1, math.min(max, self.left))
        self.rest = self.rest:sub(#bytes + 1)
      else
        bytes = pull(self, math.min(max, self.left, MAX_PIECE))
      end
      if not bytes then
        return finish(self, true)
      end
      self.left = self.left - #bytes
      return self.current, bytes
    end
    while #self.rest < HEADER do
      local bytes = pull(self, MAX_PIECE)
      if not bytes then
        return finish(self, #self.rest > 0)
      end
      self.rest = self.rest .. bytes
    end
    local kind, a, b, c, l3, l2, l1, l0 = self.rest:byte(1, HEADER)
    self.current = NAMES[kind]
    if not self.current or a + b + c ~= 0 then
      return finish(self, true)
    end
    self.left = ((l3 * 256 + l2) * 256 + l1) * 256 + l0
    self.rest = self.rest:sub(HEADER + 1)
  end
  return nil
end

---Waits until read() would not have to, at most so many seconds. True when it would not.
---@async
---@param seconds number
---@return boolean
function Stream:ready(seconds)
  if self.over.is_set() or #self.rest > 0 or not self.io then
    return true
  end
  local came = task.timeout(seconds, function()
    await_readable(self)
    return true
  end)
  return came == true
end

---@async
local function await_drained(self)
  task.await(function(resume)
    local function stop()
      self.wake_writer = nil
      if self.io then
        self.io:on_drained(nil)
      end
    end
    self.wake_writer = function()
      stop()
      resume()
    end
    self.io:on_drained(self.wake_writer)
    return stop
  end)
end

---Waits until the kernel has all bytes.
---@async
---@param bytes string
---@return boolean?
---@return farcall.Error? err
function Stream:write(bytes)
  for from = 1, #bytes, MAX_PIECE do
    if not self.io or self.finished then
      return nil, errors.new("lost", "stdin", "the process does not read any more",
        { code = "EPIPE" })
    end
    local pending, msg, code = self.io:write(bytes:sub(from, from + MAX_PIECE - 1))
    if not pending then
      return nil, errors.wrap("stdin", msg, code)
    end
    if pending > 0 then
      await_drained(self)
    end
  end
  return true
end

---The end of standard input, once what was written is through.
function Stream:finish()
  if self.io and not self.finished then
    self.finished = true
    self.io:finish()
  end
end

---Lets go: readers see the end, writers fail. Idempotent.
function Stream:close()
  if not self.io then
    return
  end
  self.io:close()
  self.io = nil
  self.left, self.rest = 0, ""
  self.over.set()
  for _, wake in ipairs({ self.wake_reader or false, self.wake_writer or false }) do
    if wake then
      wake()
    end
  end
  if self.on_over then
    self.on_over()
  end
end

---@async
local function read_line(self)
  while true do
    local line, msg, code = self.io:readline(MAX_LINE)
    if line then
      return (line:gsub("\r$", ""))
    elseif code ~= "EAGAIN" then
      return nil, errors.wrap("exec", msg, code == "LIMIT" and "SYNTAX" or code)
    end
    await_readable(self)
  end
end

---The head of the response: its status and its fields.
---@async
local function read_head(self)
  local line, err = read_line(self)
  local status = line and tonumber(line:match("^HTTP/1%.[01] (%d%d%d) ") or line:match(
    "^HTTP/1%.[01] (%d%d%d)$"))
  if not status then
    return nil, err or errors.new("protocol", "exec", "the answer is not HTTP")
  end
  local fields = {}
  for _ = 1, MAX_LINES do
    line, err = read_line(self)
    if not line then
      return nil, err
    elseif line == "" then
      return status, fields
    end
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    if name then
      fields[name:lower()] = value
    end
  end
  return nil, errors.new("protocol", "exec", "the head of the answer does not end")
end

---@async
local function read_refusal(self, fields)
  local length = math.min(tonumber(fields["content-length"]) or MAX_REFUSAL, MAX_REFUSAL)
  local text = ""
  while #text < length do
    local bytes = pull(self, length - #text)
    if not bytes then
      break
    end
    text = text .. bytes
  end
  return text
end

---Sends the head and body of a request over a fresh connection and takes it over.
---@async
---@param fd integer the connection; owned from here on
---@param request string head and body
---@return farcall.DockerStream?
---@return farcall.Error? err
---@return {status: integer, body: string}? refusal what the daemon answered instead
---@nodiscard
function docker_stream.open(fd, request)
  local io, msg, code = fdbuf.new(task.loop(), fd, { max_in = MAX_IN })
  if not io then
    return nil, errors.wrap("exec", msg, code)
  end
  local self = setmetatable({
    io = io, over = task.event(), torn = false, left = 0, rest = "",
  }, Stream)
  local ok, status, fields, body = pcall(function()
    local sent, err = self:write(request)
    if not sent then
      return nil, err
    end
    local status, fields = read_head(self)
    local refused = status and status ~= 101 and status ~= 200
    return status, fields, refused and read_refusal(self, fields) or nil
  end)
  if not ok then
    self:close()
    error(status, 0)
  elseif not status then
    self:close()
    return nil, fields
  elseif body then
    self:close()
    return nil, nil, { status = status, body = body }
  end
  return self
end

return docker_stream
