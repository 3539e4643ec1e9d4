-- SPDX-License-Identifier: MIT
-- SSH by the system's own ssh, which can do what libssh2 cannot: RSA keys, jump hosts,
-- certificates, whatever ssh_config says. One ssh logs in as the master of a private control
-- socket; commands are channels that we open through it, in the mode that OpenSSH calls proxy
-- (PROTOCOL.mux): after a greeting the socket carries the messages of RFC 4254 themselves.
--
-- An ssh per command would lose what those tell: a command that a signal has ended looks there like
-- a master that died, an exit code 255 like a failure of ssh; and when the server refuses a
-- session, ssh logs in anew by itself.
--
-- The master runs under a supervisor, which ends it when we die, however we do.

local channel = require("farcall.clients.openssh_channel")
local command = require("farcall.clients.openssh_command")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local places = require("farcall.places")
local proc = require("farcall.core.proc")
local rundir = require("farcall.rundir")
local sayings = require("farcall.clients.openssh_sayings")
local sock = require("farcall.core.sock")
local ssh_wire = require("farcall.clients.ssh_wire")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")

local counted, get_u32, u32 = ssh_wire.counted, ssh_wire.get_u32, ssh_wire.u32

-- max_command: what sh takes as one argument on Linux.
local openssh = { max_command = 131071 }

-- OpenSSH sends no longer packet.
local MAX_FRAME = 256 * 1024
local MAX_PIECE = 256 * 1024
local CONNECT_TIMEOUT = 30
local POLL = 0.02
local GRACE = 1
local MAX_WORDS = 16384
-- ssh binds the socket under a longer name first: 17 bytes more, and 107 are allowed.
local MAX_SOCKET = 90
-- A process that was let go may still count over there as long as it runs: who was refused for that
-- asks again now and then.
local ASK_AGAIN = 0.5
local PATIENCE = 30

local MUX_HELLO, MUX_VERSION, MUX_C_PROXY, MUX_S_PROXY = 1, 4, 0x1000000f, 0x8000000f

---@class farcall.OpensshSession
---@field private master farcall.Supervised
---@field private io? farcall.Fdbuf to the master, while it lives
---@field private death? farcall.Error
---@field private channels table<integer, farcall.OpensshProcess>
---@field private limit? integer sessions that the server lets be open at once, as we learnt it
---@field private queue table[] tickets of those who wait for their turn, first come first
local Session = {}
Session.__index = Session
Session.max_command = openssh.max_command

---Whoever waits for a turn has it, as far as there is room.
---@private
function Session:call_next()
  while self.queue[1] and (self.death or self.busy < (self.limit or math.huge)) do
    table.remove(self.queue, 1).resume()
  end
end

local function die(self, err)
  if self.death then
    return
  end
  self.death = err
  if self.io then
    self.io:close()
    self.io = nil
  end
  for _, process in pairs(self.channels) do
    channel.on_change(process)
  end
  self:call_next()
end

local function handle_greeting(self, frame)
  local kind = get_u32(frame, 1)
  if kind == MUX_HELLO and get_u32(frame, 5) == MUX_VERSION then
    return true
  elseif kind == MUX_S_PROXY then
    self.is_proxy = true
    self.ready.set()
    return true
  end
  return false
end

local function parse(self)
  local at, inbox = 1, self.inbox
  self.inbox = ""
  while self.io do
    local size, from = get_u32(inbox, at)
    if size and (size < 2 or size > MAX_FRAME) then
      return false
    elseif not size or from + size - 1 > #inbox then
      self.inbox = inbox:sub(at)
      return true
    end
    at = from + size
    local frame = inbox:sub(from, at - 1)
    if not (self.is_proxy and channel.handle or handle_greeting)(self, frame) then
      return false
    end
  end
  return true
end

local function lost(self)
  local err = sayings.explain(self.op, self.words)
  return errors.new("lost", self.op, self.words ~= "" and err.msg or "the connection is gone",
    { code = err.code })
end

-- The master closes the socket a moment before it ends and after it said why.
local function mourn(self)
  if self.io then
    self.io:close()
    self.io = nil
  end
  task.timeout(PATIENCE, self.ended.wait)
  die(self, lost(self))
end

local function hear(self)
  while self.io do
    local bytes, _, code = self.io:read(MAX_PIECE)
    if bytes then
      self.inbox = self.inbox == "" and bytes or self.inbox .. bytes
      if not parse(self) then
        die(self, errors.new("protocol", self.op, "the server or ssh said what it must not"))
      end
    elseif code == "EAGAIN" then
      return
    else
      task.spawn(mourn, self)
    end
  end
end

local function wait_turn(self, turn)
  local ticket = { turn = turn }
  local at = 1
  while self.queue[at] and self.queue[at].turn < turn do
    at = at + 1
  end
  table.insert(self.queue, at, ticket)
  local function leave()
    for i, other in ipairs(self.queue) do
      if other == ticket then
        table.remove(self.queue, i)
      end
    end
  end
  task.await(function(resume)
    local timer = self.let_go and task.loop():timer(ASK_AGAIN * 1000, function()
      leave()
      resume()
    end)
    function ticket.resume()
      if timer then
        timer:close()
      end
      resume()
    end
    return function()
      if timer then
        timer:close()
      end
      leave()
    end
  end)
end

local function open_channel(self, line)
  self.last_id = self.last_id + 1
  local process = channel.open(self, self.last_id, line)
  local ok, reason = pcall(function()
    while not self.death and (process.state == "opening"
      or process.state == "open" and process.accepted == nil) do
      channel.await_change(process)
    end
  end)
  if not ok then
    process:kill()
    error(reason, 0)
  end
  return process
end

-- A session that the server refuses was not begun: it can be tried again when another has ended.
local function open_in_turn(self, line)
  self.turns = self.turns + 1
  local turn, since = self.turns, task.now()
  if self.queue[1] or self.busy >= (self.limit or math.huge) then
    wait_turn(self, turn)
  end
  while not self.death do
    local process = open_channel(self, line)
    if process.state ~= "refused" then
      return process
    end
    local lingers = self.let_go and task.now() - math.max(since, self.let_go) < PATIENCE
    if self.open == 0 and not lingers then
      return nil, errors.new("unavailable", self.op, "the server opens no session",
        { code = "REFUSED" })
    end
    self.limit = math.max(1, self.open)
    wait_turn(self, turn)
  end
  return nil, self.death
end

---@class farcall.OpensshStart
---@field command string a line for the user's login shell
---@field stdin? string "pipe", "null" or the bytes themselves; "null" when absent

---Starts a command; waits for its turn where the server limits the number of sessions.
---@async
---@param spec farcall.OpensshStart
---@return farcall.OpensshProcess?
---@return farcall.Error? err
function Session:start(spec)
  if #spec.command > openssh.max_command then
    return nil, errors.wrap(self.op, ("a command of %d bytes; %d can be sent at most"):format(
      #spec.command, openssh.max_command), "E2BIG")
  elseif spec.command:find("\0", 1, true) then
    error("a command cannot hold a NUL byte", 2)
  elseif not self:alive() then
    return nil, self.death or lost(self)
  end
  local process, err = open_in_turn(self, spec.command)
  if not process then
    return nil, err
  elseif self.death and not process.status then
    return nil, self.death
  elseif process.accepted == false then
    process:kill()
    return nil, errors.new("unavailable", self.op, "the server runs no commands",
      { code = "REFUSED" })
  end
  local stdin = spec.stdin or "null"
  if stdin == "null" then
    process:close_stdin()
  elseif stdin ~= "pipe" then
    task.spawn(function()
      process:write(stdin)
      process:close_stdin()
    end)
  end
  return process
end

---False when it is known to be dead.
---@return boolean
function Session:alive()
  return self.io ~= nil
end

---Channels open now, and starts that wait for their turn.
---@return {open: integer, queued: integer}
function Session:census()
  return { open = self.open, queued = #self.queue }
end

local function remove_dir(self)
  if self.own_dir then
    rundir.remove(self.dir)
  else
    fs.rmtree(self.dir)
  end
end

---Ends it, and every process in it with kind lost. Idempotent.
---@async
function Session:close()
  die(self, errors.new("lost", self.op, "the session was closed", { code = "CLOSED" }))
  if not self.closed then
    self.closed = true
    task.shield(function()
      self.master:kill()
      self.ended.wait()
      remove_dir(self)
    end)
  end
end

-- A private directory, short enough for a socket, of no letters that ssh would read as others.
local function make_dir(self, runtime_dir)
  local made = runtime_dir:find("^/[%w/._%%+-]*$") and rundir.create(runtime_dir)
  if made and #made + 2 <= MAX_SOCKET then
    self.dir, self.own_dir = made, true
    return true
  elseif made then
    rundir.remove(made)
  end
  local message, code
  self.dir, message, code = fs.mkdtemp("/tmp/farcall-ssh-")
  if not self.dir then
    return nil, errors.wrap("ssh control socket", message, code)
  end
  return true
end

local function hear_out(self)
  while true do
    local name, bytes = self.master:read(MAX_WORDS)
    if not name then
      break
    end
    self.words = (self.words .. bytes):sub(-MAX_WORDS)
  end
  self.master:wait()
end

-- Hears the master until its end, or until nobody will any more: whoever closes waits for either.
local function attend(self)
  local ok, failure = pcall(hear_out, self)
  self.ended.set()
  if not ok then
    error(failure, 0)
  end
  if self.is_proxy then
    die(self, lost(self))
  end
end

local function start_master(self, options)
  local environ = options.environ or {}
  local program, message, code = proc.which(options.program or "ssh", environ.PATH)
  if not program then
    return nil, errors.new("unavailable", self.op, message,
      { code = code, hint = "OpenSSH's client must be installed" })
  end
  local socket = self.dir .. "/s"
  local argv, err = command.master(program, options, socket, self.seconds)
  if not argv then
    return nil, err
  end
  local supervisor = options.supervisor or places.supervisor(environ)
  if not supervisor then
    return nil, errors.new("unavailable", self.op, "there is no farcall-supervisor",
      { hint = "it belongs beside farcall" })
  end
  self.master, err = supervised.start({
    supervisor = supervisor, tree = "subreaper",
    grace = GRACE, argv = argv, env = command.environment(environ), cwd = "/", stdin = "null",
  })
  if not self.master then
    return nil, err
  end
  task.spawn(attend, self)
  return socket
end

-- The socket is there when ssh has logged in.
local function join_master(self, socket)
  while not fs.stat(socket) do
    if self.ended.is_set() then
      return nil, sayings.explain(self.op, self.words)
    end
    task.sleep(POLL)
  end
  local io, message, code = sock.connect(task.loop(), socket)
  if not io then
    return nil, self.ended.is_set() and sayings.explain(self.op, self.words)
      or errors.wrap(self.op, message, code)
  end
  self.io = io
  io:on_readable(function()
    hear(self)
  end)
  io:write(counted(u32(MUX_HELLO) .. u32(MUX_VERSION)) .. counted(u32(MUX_C_PROXY) .. u32(0)))
  task.await(function(resume)
    task.spawn(function()
      self.ready.wait()
      resume()
    end)
    task.spawn(function()
      self.ended.wait()
      resume()
    end)
  end)
  if not self.is_proxy then
    return nil, sayings.explain(self.op, self.words)
  end
  return true
end

local function establish(self, options)
  local socket, err = start_master(self, options)
  if not socket then
    return nil, err
  end
  return join_master(self, socket)
end

---Connects and logs in.
---@async
---@param options farcall.OpensshOptions
---@return farcall.OpensshSession?
---@return farcall.Error? err
---@nodiscard
function openssh.connect(options)
  local ok, err = command.check_names(options)
  if not ok then
    return nil, err
  end
  local self = setmetatable({
    op = "ssh " .. options.host, host = options.host, words = "", inbox = "",
    ended = task.event(), ready = task.event(), channels = {}, congested = {}, queue = {},
    busy = 0, open = 0, turns = 0, last_id = 0,
    seconds = options.connect_timeout or CONNECT_TIMEOUT,
  }, Session)
  ok, err = make_dir(self, options.runtime_dir)
  if not ok then
    return nil, err
  end
  local called, made, failure = pcall(task.timeout, self.seconds, establish, self, options)
  if called and made then
    return self
  end
  if self.master then
    self:close()
  else
    remove_dir(self)
  end
  if not called then
    error(made, 0)
  elseif failure.kind == "timeout" then
    failure = errors.new("unavailable", self.op, ("not logged in within %g s"):format(self.seconds),
      { code = "TIMEOUT" })
  end
  return nil, failure
end

return openssh
