-- SPDX-License-Identifier: MIT
-- An SSH session: connected, the server's key checked, logged in; then any number of commands. What
-- it cannot do (see the codes RSA_SHA2, KEX and KEYFILE) OpenSSH's own ssh can.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local known_hosts = require("farcall.clients.known_hosts")
local proc = require("farcall.core.proc")
local ssh = require("farcall.core.ssh")
local ssh_keys = require("farcall.clients.ssh_keys")
local task = require("farcall.task")

-- max_command: bytes of a command (SSH_COMMAND_MAX in core/ssh.h).
local ssh_session = { max_command = 32768 }

local MAX_PIECE = 256 * 1024
-- sshd ends the connection after MaxAuthTries (6) refused keys.
local MAX_TRIES = 6
local CONNECT_TIMEOUT = 30

-- What libssh2 1.10 can check, best first. ssh-rsa means SHA-1 and is only asked for when it is all
-- that the files know.
local HOST_KEY_TYPES = {
  "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
}

local KINDS = {
  KEX = "unsupported", AUTH = "denied", KEYFILE = "unsupported", REFUSED = "unavailable",
  DENIED = "denied", LIMIT = "limit", PROTOCOL = "protocol",
}

local function failure(op, msg, code)
  return errors.new(KINDS[code] or "lost", op, msg, { code = code })
end

-- One process

---@class farcall.SshProcess: farcall.Process
---@field private channel userdata
---@field private waiters table<function, true>
local Process = {}
Process.__index = Process

-- Sleeps until something about the channel has changed.
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

---The next output; nil at the end of both streams, or of the session.
---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string? bytes
function Process:read(max)
  while true do
    local stream, bytes, code = self.channel:read(max)
    if stream then
      return stream, bytes
    end
    if code ~= "EAGAIN" then
      return nil
    end
    await_change(self)
  end
end

---Waits until the bytes are on their way.
---@async
---@param bytes string
---@return boolean?
---@return farcall.Error? err
function Process:write(bytes)
  for from = 1, #bytes, MAX_PIECE do
    local pending = self.channel:write(bytes:sub(from, from + MAX_PIECE - 1))
    while pending and pending > 0 do
      await_change(self)
      pending = self.channel:pending()
    end
    if not pending or self.channel:has_dropped() then
      local _, msg, code = self.channel:exit()
      if code and code ~= "EAGAIN" then
        return nil, failure(self.op, msg, code)
      end
      return nil, errors.new("lost", "stdin", "the process does not read any more",
        { code = "EPIPE" })
    end
  end
  return true
end

function Process:close_stdin()
  self.channel:finish()
end

---The status; an error of kind lost when the session died before the process ended.
---@async
---@return {exit?: integer, signal?: integer, name?: string}? status
---@return farcall.Error? err
function Process:wait()
  local state = self.channel:state()
  while state ~= "done" and state ~= "closing" do
    await_change(self)
    state = self.channel:state()
  end
  local exit, second, third = self.channel:exit()
  if exit then
    return { exit = exit }
  elseif third then
    return nil, failure(self.op, second, third)
  end
  -- The server names it; a number is only ours to know.
  local known, number = pcall(proc.signal_number, second)
  return { signal = known and number or nil, name = second }
end

---Lets go of the process, which may run on; wait() then fails with code CLOSED. Idempotent.
function Process:kill()
  self.channel:close()
end

-- The session

---@class farcall.SshSession
---@field private connection userdata
---@field host string
---@field host_key string the server's, as a blob
local Session = {}
Session.__index = Session

---@class farcall.SshStart
---@field command string a line for the user's login shell
---@field stdin? string "pipe", "null" or the bytes themselves; "null" when absent

---Starts a command; waits for its turn where the server limits the number of sessions.
---@async
---@param spec farcall.SshStart
---@return farcall.SshProcess?
---@return farcall.Error? err
function Session:start(spec)
  local channel, msg, code = self.connection:exec(spec.command)
  if code == "E2BIG" then
    return nil, errors.wrap(self.op, ("a command of %d bytes; libssh2 sends %d at most"):format(
      #spec.command, ssh_session.max_command), code)
  elseif not channel then
    return nil, errors.new("lost", self.op, msg, { code = code })
  end
  local self_process = setmetatable({ channel = channel, waiters = {}, op = self.op }, Process)
  channel:on_change(function()
    on_change(self_process)
  end)
  local ok, reason = pcall(function()
    while channel:is_pending() do
      await_change(self_process)
    end
  end)
  if not ok then
    channel:close()
    error(reason, 0)
  end
  local _
  _, msg, code = channel:exit()
  if code and code ~= "EAGAIN" then
    return nil, failure(self.op, msg, code)
  end
  local stdin = spec.stdin or "null"
  if stdin == "null" then
    channel:finish()
  elseif stdin ~= "pipe" then
    task.spawn(function()
      self_process:write(stdin)
      self_process:close_stdin()
    end)
  end
  return self_process
end

---False when it is known to be dead.
---@return boolean
function Session:alive()
  return self.connection:death() == nil
end

---What it holds now: bytes of libssh2, channels open, channels that wait for their turn.
---@return {memory: integer, open: integer, queued: integer}
function Session:census()
  return self.connection:census()
end

---Ends it, and every process in it with kind lost. Idempotent.
function Session:close()
  self.connection:close()
end

-- Getting there

local function resolve(host, port)
  local addresses, msg = task.await(function(resume)
    local work = task.work()
    local id, msg, code = work:resolve(host, ("%d"):format(port), resume)
    if not id then
      resume(nil, msg, code)
    end
    return function()
      work:cancel(id)
    end
  end)
  if not addresses or #addresses == 0 then
    return nil, errors.new("unavailable", "ssh " .. host, msg or "it has no address",
      { code = "RESOLVE" })
  end
  return addresses
end

local function connect_one(address, port)
  local attempt
  return task.await(function(resume)
    local msg, code
    attempt, msg, code = ssh.connect(task.loop(), address, ("%d"):format(port), resume)
    if not attempt then
      resume(nil, msg, code)
      return nil
    end
    return function()
      attempt:close()
    end
  end)
end

-- The addresses in turn, each with an equal share of the time that is left.
local function connect_any(host, port, deadline)
  local addresses, err = resolve(host, port)
  if not addresses then
    return nil, err
  end
  local msg, code
  for i, found in ipairs(addresses) do
    local share = math.max(0.001, (deadline - task.now()) / (#addresses - i + 1))
    local fd
    fd, msg, code = task.timeout(share, connect_one, found.address, port)
    if fd then
      return fd
    end
    if errors.is(msg) then
      msg, code = ("no answer from %s"):format(found.address), "TIMEOUT"
    end
  end
  return nil, errors.new("unavailable", ("ssh %s port %d"):format(host, port), msg, { code = code })
end

-- Runs one step of the connection to its end.
local function step(connection, method, ...)
  local arguments, n = { ... }, select("#", ...)
  return task.await(function(resume)
    arguments[n + 1] = resume
    local ok, msg, code = connection[method](connection, unpack(arguments, 1, n + 1))
    if not ok then
      resume(nil, msg, code)
    end
  end)
end

local function wanted_types(hosts)
  local known, types = {}, {}
  for _, host in ipairs(hosts) do
    known[host.type] = known[host.type] or not host.revoked
  end
  for pass = 1, 2 do
    for _, name in ipairs(HOST_KEY_TYPES) do
      if (known[name] or false) == (pass == 1) then
        types[#types + 1] = name
      end
    end
  end
  if known["ssh-rsa"] then
    types[#types + 1] = "ssh-rsa"
  end
  return table.concat(types, ",")
end

local function check_host_key(self, hosts, name)
  local options = self.options
  local key = self.connection:host_key()
  local kind = key and known_hosts.key_type(key)
  if not kind then
    return nil, errors.new("protocol", self.op, "the server has no proper host key")
  end
  self.host_key = key
  local verdict, stands = known_hosts.check(hosts, key)
  if verdict == "known" then
    return true
  elseif verdict == "revoked" then
    return nil, errors.new("denied", self.op, "the server's host key is marked as revoked",
      { code = "HOSTKEY" })
  elseif hosts.authority then
    return nil, errors.new("unsupported", self.op,
      "known_hosts asks for a host certificate, which libssh2 cannot check", { code = "KEYTYPE" })
  elseif verdict == "changed" then
    return nil, errors.new("denied", self.op,
      ("the server's %s key is not the one in known_hosts"):format(kind),
      { code = "HOSTKEY", hint = known_hosts.advice(name, stands.path, stands.line) })
  elseif verdict == "other" then
    local comparable
    for _, host in ipairs(hosts) do
      for _, name_of_type in ipairs(HOST_KEY_TYPES) do
        comparable = comparable or host.type == name_of_type
      end
    end
    if not comparable then
      return nil, errors.new("unsupported", self.op,
        "known_hosts has only an RSA key of this server, which libssh2 cannot check",
        { code = "RSA_SHA2" })
    end
    return nil, errors.new("denied", self.op,
      ("the server shows a key of another type (%s) than those in known_hosts"):format(kind),
      { code = "HOSTKEY", hint = known_hosts.advice(name, stands.path, stands.line) })
  elseif not options.accept_new then
    return nil, errors.new("denied", self.op, ("the host key of %s is not known"):format(name),
      { code = "UNKNOWN_HOST", hint = "check it and add it, as ssh does when it asks, or set "
        .. "accept_new" })
  end
  local path = (options.known_hosts or {})[1]
  if not path then
    return true
  end
  return known_hosts.add(path, name, key)
end

-- The keys to try: those of the files that the agent has, those of the files, the agent's others;
-- RSA last, because this libssh2 signs with SHA-1.
local function candidates(self, agent)
  local list, seen, notes = {}, {}, {}
  local of_agent, agent_keys = {}, {}
  if agent then
    local keys, err = agent:keys()
    agent_keys = keys or {}
    notes[#notes + 1] = err and tostring(err)
    for _, key in ipairs(agent_keys) do
      of_agent[key.public] = key
    end
  end
  local function add(key)
    if (key.type or ""):find("^sk%-") or (key.type or ""):find("-cert-v", 1, true) then
      notes[#notes + 1] = ("libssh2 cannot log in with a key of type %s"):format(key.type)
      self.beyond = true
    elseif not (key.public and seen[key.public]) then
      seen[key.public or key] = true
      list[#list + 1] = key
    end
  end
  for _, path in ipairs(self.options.identity_files or {}) do
    local key, err = ssh_keys.read(path)
    if fs.stat(path .. "-cert.pub") then
      notes[#notes + 1] = ("libssh2 does not use the certificate of %s"):format(path)
      self.beyond = true
    end
    if not key then
      notes[#notes + 1] = err.code ~= "ENOENT" and tostring(err) or ("no key %s"):format(path)
    elseif of_agent[key.public or false] then
      add(of_agent[key.public])
    elseif key.encrypted then
      notes[#notes + 1] = ("key %s needs a passphrase: add it to the agent"):format(path)
      self.locked = true
    else
      add(key)
    end
  end
  if not self.options.only_files then
    for _, key in ipairs(agent_keys) do
      add(key)
    end
  end
  local ordered = {}
  for pass = 1, 2 do
    for _, key in ipairs(list) do
      if (key.type == "ssh-rsa") == (pass == 2) then
        ordered[#ordered + 1] = key
      end
    end
  end
  return ordered, notes
end

local function try_key(self, agent, key)
  local connection, user = self.connection, self.options.user
  if key.text then
    return step(connection, "auth_key", user, key.text)
  end
  return step(connection, "auth_signer", user, key.public, function(bytes)
    task.spawn(function()
      connection:signed(agent:sign(key.public, bytes))
    end)
  end)
end

local function authenticate_with(self, agent)
  local connection, options = self.connection, self.options
  local ok, msg, code = step(connection, "ask_methods", options.user)
  if not ok then
    return nil, failure(self.op, msg, code)
  elseif connection:is_authenticated() then
    return true
  elseif not ("," .. connection:methods() .. ","):find(",publickey,", 1, true) then
    return nil, errors.new("denied", self.op,
      "the server takes no keys, only: " .. connection:methods():gsub("[^%w,-]", "?"),
      { code = "AUTH" })
  end
  local keys, notes = candidates(self, agent)
  local rsa
  local tried = {}
  for i, key in ipairs(keys) do
    if i > MAX_TRIES then
      break
    end
    ok, msg, code = try_key(self, agent, key)
    if ok then
      return true
    end
    rsa = rsa or key.type == "ssh-rsa"
    if code == "KEYFILE" or code == "PROTOCOL" then
      notes[#notes + 1] = ("%s: %s"):format(key.path or "key of the agent", msg)
    elseif code ~= "AUTH" then
      notes[#notes + 1] = msg
      break
    elseif key.type ~= "ssh-rsa" then
      tried[#tried + 1] = key.path or "a key of the agent"
    end
  end
  if #keys == 0 then
    notes[#notes + 1] = "no key to try: the option identity names files"
  end
  if #tried > 0 then
    notes[#notes + 1] = ("refused: %s; public keys belong into authorized_keys over there"):format(
      table.concat(tried, ", "))
  end
  if rsa then
    notes[#notes + 1] = "libssh2 1.10 signs with RSA keys only by SHA-1, which servers refuse today"
  end
  return nil, errors.new("denied", self.op, ("%s may not log in with the keys at hand"):format(
    options.user), {
    code = rsa and "RSA_SHA2" or self.beyond and "KEYTYPE" or self.locked and "PASSPHRASE"
      or "AUTH",
    hint = #notes > 0 and table.concat(notes, "; ") or nil,
  })
end

local function authenticate(self)
  local agent
  if self.options.agent then
    -- One that is not there is no failure: there may be files.
    agent = ssh_keys.agent(self.options.agent)
  end
  local results = { pcall(authenticate_with, self, agent) }
  if agent then
    agent:close()
  end
  if not results[1] then
    error(results[2], 0)
  end
  return results[2], results[3]
end

local function establish(self, deadline)
  local options = self.options
  local name = options.host_key_alias and options.host_key_alias:lower()
    or known_hosts.name(options.host, options.port)
  local hosts, err = known_hosts.find(options.known_hosts or {}, name)
  if not hosts then
    return nil, err
  end
  local to = options.address or options
  local fd
  fd, err = connect_any(to.host, to.port or 22, deadline)
  if not fd then
    return nil, err
  end
  local msg, code
  self.connection, msg, code = ssh.new(task.loop(), fd)
  if not self.connection then
    return nil, errors.wrap(self.op, msg, code)
  end
  local ok
  ok, msg, code = step(self.connection, "handshake", wanted_types(hosts))
  if not ok then
    err = failure(self.op, msg, code)
    if msg:find("banner", 1, true) then
      err.hint = "what listens there is no SSH server, or lets nobody in now"
    end
    return nil, err
  end
  ok, err = check_host_key(self, hosts, name)
  if not ok then
    return nil, err
  end
  ok, err = authenticate(self)
  if not ok then
    return nil, err
  end
  ok, msg, code = self.connection:serve(options.keepalive or 0)
  if not ok then
    return nil, errors.wrap(self.op, msg, code)
  end
  return true
end

---@class farcall.SshOptions
---@field host string the name under which its key is known
---@field port? integer
---@field user string
---@field identity_files? string[] private keys
---@field agent? string path of an agent's socket
---@field only_files? boolean keys of the agent count only when a file has them too
---@field known_hosts? string[] files; a new host goes to the first
---@field host_key_alias? string name to look for in them instead
---@field accept_new? boolean take the key of a host that is not known
---@field connect_timeout? number seconds until it is logged in, 30 unless set
---@field keepalive? number seconds of silence before the server is asked; three times is death
---@field address? {host: string, port: integer} where to connect instead

---Connects and logs in. Errors: "unavailable" (name, network, no answer), "denied" with code
---HOSTKEY, UNKNOWN_HOST, AUTH, PASSPHRASE (only keys that need one), KEYTYPE (certificates or FIDO
---keys might do) or RSA_SHA2, "unsupported" with RSA_SHA2 (known by an RSA key only), KEYTYPE
---(known by a certificate) or KEX (no common algorithm).
---@async
---@param options farcall.SshOptions
---@return farcall.SshSession?
---@return farcall.Error? err
function ssh_session.connect(options)
  local copy = {}
  for key, value in pairs(options) do
    copy[key] = value
  end
  copy.port = copy.port or 22
  local self = setmetatable({
    options = copy, host = copy.host, op = ("ssh %s@%s"):format(copy.user, copy.host),
  }, Session)
  local seconds = copy.connect_timeout or CONNECT_TIMEOUT
  local ran, ok, err = pcall(task.timeout, seconds, establish, self, task.now() + seconds)
  if not (ran and ok) and self.connection then
    self.connection:close()
  end
  if not ran then
    error(ok, 0)
  elseif not ok then
    if err.kind == "timeout" then
      err = errors.new("unavailable", self.op, err.msg, { code = "TIMEOUT" })
    elseif err.kind == "lost" then
      -- Nothing was begun yet.
      err = errors.new("unavailable", self.op, err.msg, { code = err.code, hint = err.hint })
    end
    return nil, err
  end
  return self
end

return ssh_session
