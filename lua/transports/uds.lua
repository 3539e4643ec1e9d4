-- SPDX-License-Identifier: MIT
-- The transport of the same machine: a Unix socket in the run's private directory, JSON lines, many
-- connections at once. It knows the wire and nothing of tools or policies: a request that is well
-- formed and holds the run's token is handed up, its reply is sent down.

local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local json = require("farcall.core.json")
local lacking = require("farcall.transports.lacking")
local rundir = require("farcall.rundir")
local sock = require("farcall.core.sock")
local system = require("farcall.core.system")
local task = require("farcall.task")
local wire = require("farcall.transports.wire")

local uds = {}

local MODE_PRIVATE = 384 -- 0600

-- What a far side may ask of the engine's memory: connections, requests, and replies that it does
-- not read. A connection that passes the last is not read from until it has caught up. Only a few
-- connections may be in the middle of a large request; others that have one wait for their turn.
local MAX_CONNECTIONS = 512
local MAX_LINE = 256 * 1024
local MAX_LARGE_LINE = wire.MAX_REQUEST
local MAX_LARGE = 4
local MAX_UNREAD = 4 * 1024 * 1024
local MAX_IN_FLIGHT = wire.MAX_IN_FLIGHT

---One connection of the script.
---@class farcall.uds.Connection
local Connection = {}
Connection.__index = Connection

---@return boolean sent
---@return string? problem why the reply could not be sent as it is, and an error went in its place
function Connection:send(reply)
  if self.closed then
    return false
  end
  local text, problem = wire.text(reply.id, reply)
  if not text then
    problem = "the result cannot be sent: " .. problem
    text = assert(wire.text(reply.id, wire.failure(reply.id, "failed", problem)))
  end
  local pending = self.io:write(text)
  if not pending then
    self:close()
    return false
  end
  if pending > MAX_UNREAD and not self.blocked then
    self.blocked = true
    self:pace()
    self.io:on_drained(function()
      self.blocked = false
      self:pace()
    end)
  end
  return true, problem
end

---Reads from the connection, or not, as its unread replies and unanswered calls allow.
function Connection:pace()
  if self.closed then
    return
  end
  local hold = self.blocked or self.queued or self.in_flight >= MAX_IN_FLIGHT
  if hold ~= self.held then
    self.held = hold
    self.io:on_readable(not hold and self.readable or nil)
  end
end

function Connection:close()
  if not self.closed then
    self.closed = true
    self.io:close()
    self:end_large()
    self.server:forget(self)
    -- Nobody is there to hear of these.
    local calls = self.calls
    self.calls = {}
    for _, cancel in pairs(calls) do
      cancel()
    end
  end
end

---Sends a last word and closes when it is out.
function Connection:dismiss(kind, message, id)
  if self:send(wire.failure(id, kind, message)) then
    self.io:on_readable(nil)
    if self.io:pending() == 0 then
      self:close()
    else
      self.io:on_drained(function()
        self:close()
      end)
    end
  end
end

function Connection:line(line)
  local request, problem = json.decode(line)
  if request == nil then
    return self:send(wire.failure(nil, "protocol", "not a request: " .. problem))
  end
  local reason = wire.misshapen(request)
  if reason then
    local id = type(request) == "table" and wire.is_id(request.id) and request.id or nil
    return self:send(wire.failure(id, "protocol", "not a request: " .. reason))
  end
  if not wire.same_token(request.token, self.server.token) then
    return self:dismiss("denied", "the token is not this run's", request.id)
  end
  self.in_flight = self.in_flight + 1
  self:pace()
  local id, over = request.id, false
  local cancel = self.server.on_request(request, function(reply)
    reply.id = id
    over = true
    self.calls[request] = nil
    self.in_flight = self.in_flight - 1
    local sent, unsendable = self:send(reply)
    self:pace()
    return sent, unsendable
  end)
  self.calls[request] = not over and cancel or nil
end

---The next request is larger than most: goes on if there is a place for it, else waits for one.
function Connection:begin_large()
  local server = self.server
  self.queued = server.large >= MAX_LARGE
  if self.queued then
    table.insert(server.queue, self)
    self:pace()
  else
    server.large = server.large + 1
    self.max_line = MAX_LARGE_LINE
  end
end

function Connection:end_large()
  if self.max_line == MAX_LINE then
    return
  end
  self.max_line = MAX_LINE
  local server = self.server
  server.large = server.large - 1
  local next_one
  repeat
    next_one = table.remove(server.queue, 1)
  until not next_one or not next_one.closed
  if next_one then
    next_one:begin_large()
    next_one:pace()
  end
end

function Connection:read()
  while not self.closed and not self.held do
    local line, _, code = self.io:readline(self.max_line)
    if line then
      self:end_large()
      self:line(line)
    elseif code == "EAGAIN" then
      return
    elseif code ~= "LIMIT" then
      -- The end: of the whole stream, or in the middle of a line, which is then nobody's.
      return self:close()
    elseif self.max_line == MAX_LINE then
      self:begin_large()
    else
      return self:dismiss("limit", ("a request has at most %d bytes"):format(MAX_LARGE_LINE))
    end
  end
end

---@class farcall.uds.Server
local Server = {}
Server.__index = Server

function Server:accept(io, peer)
  if peer.uid ~= self.uid and peer.uid ~= 0 then
    return io:close()
  end
  local connection = setmetatable({
    io = io, server = self, in_flight = 0, max_line = MAX_LINE, calls = {},
  }, Connection)
  self.connections[connection] = true
  self.count = self.count + 1
  if self.count > MAX_CONNECTIONS then
    return connection:dismiss("limit", ("a run has at most %d connections"):format(MAX_CONNECTIONS))
  end
  connection.readable = function()
    connection:read()
  end
  connection.held = false
  io:on_readable(connection.readable)
end

function Server:forget(connection)
  self.connections[connection] = nil
  self.count = self.count - 1
end

---Stops listening and hangs up on everybody. Idempotent.
function Server:close()
  self.listener:close()
  for connection in pairs(self.connections) do
    connection:close()
  end
end

---Serves the connections that it is handed by server:accept(io, peer), io with the methods of
---farcall.core.fdbuf. Whoever listens is kept in server.listener.
---@param token string of this run
---@param on_request fun(request: table, reply: fun(reply: table): boolean, string?) called on the
---loop for each good request; reply must be called exactly once, with {result} or {error}, and
---returns whether it was sent, and what of it could not be. What on_request returns, if anything,
---is called when the connection ends before that
---@return farcall.uds.Server
function uds.server(token, on_request)
  return setmetatable({
    token = token, on_request = on_request, uid = system.uid(), connections = {}, count = 0,
    large = 0, queue = {},
  }, Server)
end

---Serves calls on `path`, which must be in a directory that only this user can enter.
---@param path string
---@param token string of this run
---@param on_request function as for uds.server
---@return farcall.uds.Server?
---@return string? message
---@return string? code
function uds.serve(path, token, on_request)
  local server = uds.server(token, on_request)
  local function accept(io, peer)
    server:accept(io, peer)
  end
  local listener, message, code = sock.listen(task.loop(), path, { backlog = 512 }, accept)
  if not listener then
    return nil, message, code
  end
  server.listener = listener
  return server
end

---@class farcall.uds.Session
local Session = {}
Session.__index = Session

---Prepares a run: its private directory with token, stub and script, and the socket.
---@param spec farcall.transport.Spec
---@return farcall.uds.Session?
---@return farcall.Error? err
---@nodiscard
function uds.open(spec)
  local op = "directory of the run"
  local dir, message, code = rundir.create(spec.runtime_dir)
  if not dir then
    return nil, errors.wrap(op, message, code)
  end
  local self = setmetatable({ name = "uds", dir = dir, spec = spec }, Session)
  local files = { { name = "token", text = spec.token } }
  for _, entry in ipairs(spec.files) do
    files[#files + 1] = entry
  end
  for _, entry in ipairs(files) do
    local written
    written, message, code = atomicfile.write(dir .. "/" .. entry.name, entry.text,
      { mode = MODE_PRIVATE, sync = false })
    if not written then
      self:close()
      return nil, errors.wrap(op, message, code)
    end
  end
  self.server, message, code = uds.serve(dir .. "/socket", spec.token, spec.on_request)
  if not self.server then
    self:close()
    return nil, errors.wrap("socket of the run", message, code)
  end
  return self
end

---Starts a script by the first of the interpreters that is there.
---@async
---@param spec farcall.transport.Spec
---@param dir string of the run
---@param program? string path of the program `farcall-runner` there, for stubs that connect by it
---@return farcall.Process?
---@return farcall.Error? err
function uds.start(spec, dir, program)
  local failure
  local variables = spec.variables(dir)
  variables.FARCALL_RUN_DIR, variables.FARCALL_RUNNER = dir, program
  for _, interpreter in ipairs(spec.interpreter) do
    local argv = { interpreter }
    for _, word in ipairs(spec.words(dir, dir .. "/" .. spec.script)) do
      argv[#argv + 1] = word
    end
    local process, err = spec.env:start({
      argv = argv, env = variables, stdin = spec.stdin or "null", script = true,
    })
    if process then
      return process
    end
    failure = err
    -- The directory where it starts may be what is missing.
    if err.code ~= "ENOENT" or err.msg:find("^cannot enter directory") then
      break
    end
    failure = lacking.interpreter(spec.interpreter)
  end
  return nil, failure
end

---@async
---@return farcall.Process?
---@return farcall.Error? err
function Session:start()
  return uds.start(self.spec, self.dir, self.spec.program)
end

---Removes what the run had here. Idempotent; after the script's process has been killed.
function Session:close()
  if self.server then
    self.server:close()
  end
  rundir.remove(self.dir)
end

return uds
