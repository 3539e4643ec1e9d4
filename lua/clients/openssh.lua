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

local bit = require("bit")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local known_hosts = require("farcall.clients.known_hosts")
local places = require("farcall.places")
local proc = require("farcall.core.proc")
local rundir = require("farcall.rundir")
local sock = require("farcall.core.sock")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")
local text = require("farcall.core.text")

-- max_command: what sh takes as one argument on Linux.
local openssh = { max_command = 131071 }

-- An unread process holds so much back, in our memory; the rest waits over there.
local WINDOW = 1024 * 1024
local MAX_PACKET = 32768
-- OpenSSH sends no longer packet.
local MAX_FRAME = 256 * 1024
local MAX_PIECE = 256 * 1024
-- Who writes waits while the master has not taken so much.
local CONGESTED = 512 * 1024
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
local OPEN, OPENED, REFUSED = 90, 91, 92
local ADJUST, DATA, EXTENDED, EOF, CLOSE = 93, 94, 95, 96, 97
local REQUEST, SUCCESS, FAILURE = 98, 99, 100
local STDERR = 1

-- Words on the wire

local function u32(n)
  return string.char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255),
    bit.band(bit.rshift(n, 8), 255), bit.band(n, 255))
end

local function counted(bytes)
  return u32(#bytes) .. bytes
end

---The number at `at` and where the next word begins; nil when the bytes end before.
local function get_u32(bytes, at)
  local a, b, c, d = bytes:byte(at, at + 3)
  if d then
    return ((a * 256 + b) * 256 + c) * 256 + d, at + 4
  end
end

local function get_string(bytes, at)
  local size, from = get_u32(bytes, at or #bytes + 1)
  if size and from + size - 1 <= #bytes then
    return bytes:sub(from, from + size - 1), from + size
  end
end

local function send(session, kind, rest)
  if session.io then
    session.io:write(u32(#rest + 2) .. "\0" .. string.char(kind) .. rest)
  end
end

-- One process

---@class farcall.OpensshProcess: farcall.Process
---@field private session farcall.OpensshSession
---@field private state "opening"|"refused"|"open"|"ended" ended: the other side has closed it
---@field private waiters table<function, true>
---@field private pieces table[] {stream, bytes}, not read yet
local Process = {}
Process.__index = Process

local function await_change(self)
  task.await(function(resume)
    self.waiters[resume] = true
    return function()
      self.waiters[resume] = nil
    end
  end)
end

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

-- The session

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

local function call_next(self)
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
    on_change(process)
  end
  call_next(self)
end

local function forget(self, process)
  if process.state == "open" then
    self.open = self.open - 1
  end
  self.busy = self.busy - 1
  self.channels[process.id] = nil
end

-- What the master passes on from the server, which is not to be trusted: a message that is not
-- whole, or out of place, ends the session.
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
    call_next(self)
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
  call_next(self)
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

local function handle_packet(self, frame)
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
    if not (self.is_proxy and handle_packet or handle_greeting)(self, frame) then
      return false
    end
  end
  return true
end

local function clean(bytes)
  return (text.clean(bytes, { escapes = true, utf8 = true, secrets = false }))
end

-- What ssh says when it fails: the first that is found in all it said counts. Kind, code, message,
-- hint, and whether what it says has a better one.
local SAYINGS = {
  { "REMOTE HOST IDENTIFICATION HAS CHANGED", "denied", "HOSTKEY",
    "the server's key is not the one in known_hosts",
    "somebody may be in between; if the key was changed on purpose, remove the old one with "
    .. "ssh-keygen -R", true },
  { "REVOKED HOST KEY", "denied", "HOSTKEY", "the server's host key is marked as revoked" },
  { "Host key verification failed", "denied", "UNKNOWN_HOST", "the host key is not known",
    "check it and add it, as ssh does when it asks, or set accept_new" },
  { ": Permission denied (", "denied", "AUTH", nil,
    "the option identity names a key; its public half belongs into authorized_keys over there" },
  { "Too many authentication failures", "denied", "AUTH" },
  { "Could not resolve hostname", "unavailable", "RESOLVE" },
  { "Connection refused", "unavailable", "ECONNREFUSED" },
  { "No route to host", "unavailable", "EHOSTUNREACH" },
  { "Network is unreachable", "unavailable", "ENETUNREACH" },
  { "onnection timed out", "unavailable", "TIMEOUT" },
  { "not responding", "unavailable", "TIMEOUT" },
  { "Unable to negotiate", "unsupported", "KEX" },
  { "Bad configuration option", "config" },
  { "terminating, ", "config" },
  { "Bad owner or permissions", "config" },
  { "kex_exchange_identification", "unavailable", "ECONNRESET" },
}

-- ssh names the file and the line of the key that is in the way, and the host by its name there.
local function advice(words)
  local path, line = words:match("Offending [^\r\n]- key in ([^\r\n]-):(%d+)")
  local name = words:match("ssh%-keygen %-f [^\r\n]- %-R [\"']([^\r\n\"']+)")
    or words:match("Host key for ([^\r\n]-) has changed")
  return path and name and known_hosts.advice(clean(name), clean(path), tonumber(line))
end

---@param words string what ssh has said
---@return farcall.Error
local function explain(op, words)
  local last
  for line in words:gmatch("[^\r\n]+") do
    last = line:find("%S") and line or last
  end
  for _, saying in ipairs(SAYINGS) do
    for line in words:gmatch("[^\r\n]+") do
      if line:find(saying[1], 1, true) then
        return errors.new(saying[2], op, saying[4] or clean(line),
          { code = saying[3], hint = saying[6] and advice(words) or saying[5] })
      end
    end
  end
  return errors.new("unavailable", op, last and clean(last) or "ssh ended without a word")
end

local function lost(self)
  local err = explain(self.op, self.words)
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

local function open_channel(self, command)
  self.last_id = self.last_id + 1
  local process = setmetatable({
    session = self, id = self.last_id, state = "opening", waiters = {}, command = command,
    pieces = {}, first = 1, last = 0, window = WINDOW, taken = 0,
  }, Process)
  self.channels[process.id] = process
  self.busy = self.busy + 1
  send(self, OPEN, counted("session") .. u32(process.id) .. u32(WINDOW) .. u32(MAX_PACKET))
  local ok, reason = pcall(function()
    while not self.death and (process.state == "opening"
      or process.state == "open" and process.accepted == nil) do
      await_change(process)
    end
  end)
  if not ok then
    process:kill()
    error(reason, 0)
  end
  return process
end

-- A session that the server refuses was not begun: it can be tried again when another has ended.
local function open_in_turn(self, command)
  self.turns = self.turns + 1
  local turn, since = self.turns, task.now()
  if self.queue[1] or self.busy >= (self.limit or math.huge) then
    wait_turn(self, turn)
  end
  while not self.death do
    local process = open_channel(self, command)
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

-- Getting there

-- As OpenSSH 9.6 has it: what could mean something to the shell of a ProxyCommand is no name.
local function check_names(options)
  local host, user = options.host, options.user
  if host == "" or host:find("^%-") or host:find("[%s%c'`\"$\\;&<>|(){}]") then
    return nil, errors.new("usage", "ssh", ("%q is no name of a host"):format(host))
  elseif user and (user == "" or user:find("^%-") or user:find("[%c'`\";&<>|(){}$]")
    or user:find("%s%-") or user:find("\\$")) then
    return nil, errors.new("usage", "ssh", ("%q is no name of a user"):format(user))
  end
  return true
end

-- A path as a word of an option of ssh, which knows quotes, %h and ${HOME}.
local function path_word(path)
  if path:find("%c") or path:find("${", 1, true) then
    return nil, errors.new("usage", "ssh", ("ssh cannot be given the path %q"):format(path))
  end
  return '"' .. path:gsub("%%", "%%%%"):gsub('[\\"]', "\\%0") .. '"'
end

local function path_words(paths)
  local list = {}
  for i, path in ipairs(paths) do
    local word, err = path_word(path)
    if not word then
      return nil, err
    end
    list[i] = word
  end
  return table.concat(list, " ")
end

local function arguments(program, options, socket)
  local argv = { program }
  local function add(...)
    for _, word in ipairs({ ... }) do
      argv[#argv + 1] = word
    end
  end
  local function set(name, value)
    add("-o", name .. "=" .. value)
  end
  if options.config then
    add("-F", options.config)
  end
  add("-M", "-N", "-S", (socket:gsub("%%", "%%%%")))
  for _, pair in ipairs({
    { "ControlPersist", "no" }, { "BatchMode", "yes" }, { "LogLevel", "INFO" },
    { "ClearAllForwardings", "yes" }, { "ForwardAgent", "no" }, { "ForwardX11", "no" },
    { "Tunnel", "no" }, { "PermitLocalCommand", "no" }, { "RemoteCommand", "none" },
    { "RequestTTY", "no" }, { "UpdateHostKeys", "no" }, { "VisualHostKey", "no" },
    { "StrictHostKeyChecking", options.accept_new and "accept-new" or "yes" },
    { "ConnectTimeout", ("%d"):format(math.ceil(options.connect_timeout or CONNECT_TIMEOUT)) },
  }) do
    set(pair[1], pair[2])
  end
  if options.keepalive then
    set("ServerAliveInterval", ("%d"):format(math.ceil(options.keepalive)))
    set("ServerAliveCountMax", "3")
  end
  if options.known_hosts then
    local words, err = path_words(options.known_hosts)
    if not words then
      return nil, err
    end
    set("UserKnownHostsFile", words ~= "" and words or "/dev/null")
    set("GlobalKnownHostsFile", "/dev/null")
  end
  for _, path in ipairs(options.identity_files or {}) do
    local word, err = path_word(path)
    if not word then
      return nil, err
    end
    set("IdentityFile", word)
  end
  if options.agent == false then
    set("IdentityAgent", "none")
  end
  if options.port then
    add("-p", ("%d"):format(options.port))
  end
  if options.user then
    add("-l", options.user)
  end
  add("--", options.host)
  return argv
end

-- Nobody is there to be asked for anything.
local function environment(environ)
  local list = { "SSH_ASKPASS_REQUIRE=never" }
  for name, value in pairs(environ) do
    if name ~= "DISPLAY" and name ~= "WAYLAND_DISPLAY" and not name:find("^SSH_ASKPASS") then
      list[#list + 1] = name .. "=" .. value
    end
  end
  return list
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
  local argv, err = arguments(program, options, socket)
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
    grace = GRACE, argv = argv, env = environment(environ), cwd = "/", stdin = "null",
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
      return nil, explain(self.op, self.words)
    end
    task.sleep(POLL)
  end
  local io, message, code = sock.connect(task.loop(), socket)
  if not io then
    return nil, self.ended.is_set() and explain(self.op, self.words)
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
    return nil, explain(self.op, self.words)
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

---@class farcall.OpensshOptions
---@field host string as ssh is given it: a name, an address, an alias of ssh_config
---@field port? integer
---@field user? string
---@field identity_files? string[] those of ssh_config unless given
---@field agent? boolean false: no agent is asked
---@field known_hosts? string[] these files alone; those of ssh_config unless given
---@field accept_new? boolean
---@field connect_timeout? number seconds until it must be logged in (30)
---@field keepalive? number seconds of silence; three unanswered questions are death; 0: none
---@field config? string path of an ssh_config, "none": no file at all; the user's unless given
---@field program? string "ssh"
---@field environ table<string, string> the operator's variables
---@field runtime_dir string
---@field supervisor? string path of farcall-supervisor

---Connects and logs in.
---@async
---@param options farcall.OpensshOptions
---@return farcall.OpensshSession?
---@return farcall.Error? err
---@nodiscard
function openssh.connect(options)
  local ok, err = check_names(options)
  if not ok then
    return nil, err
  end
  local self = setmetatable({
    op = "ssh " .. options.host, host = options.host, words = "", inbox = "",
    ended = task.event(), ready = task.event(), channels = {}, congested = {}, queue = {},
    busy = 0, open = 0, turns = 0, last_id = 0,
  }, Session)
  ok, err = make_dir(self, options.runtime_dir)
  if not ok then
    return nil, err
  end
  local seconds = options.connect_timeout or CONNECT_TIMEOUT
  local called, made, failure = pcall(task.timeout, seconds, establish, self, options)
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
    failure = errors.new("unavailable", self.op, ("not logged in within %g s"):format(seconds),
      { code = "TIMEOUT" })
  end
  return nil, failure
end

return openssh
