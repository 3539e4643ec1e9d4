-- SPDX-License-Identifier: MIT
-- A host that runs sshd. Many channels on one connection: by libssh2 within the engine where it
-- can serve, else by the system's own ssh with a private ControlMaster. Nothing is installed there.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local openssh = require("farcall.clients.openssh")
local past_noise = require("farcall.clients.past_noise")
local scrub = require("farcall.scrub")
local ssh_config = require("farcall.clients.ssh_config")
local ssh_session = require("farcall.clients.ssh_session")

-- What libssh2 fails with where OpenSSH may yet come in.
local BEYOND = {
  RSA_SHA2 = "libssh2 cannot do RSA with SHA-2 (with ed25519 keys it can: ssh-keygen -t ed25519)",
  KEX = "libssh2 and the host share no algorithm",
  KEYTYPE = "libssh2 cannot use certificates and FIDO keys",
}
-- What to do about an error that says too little.
local HINTS = {
  RESOLVE = "host takes a name, an address, or an alias of ~/.ssh/config",
  ECONNREFUSED = "no sshd listens there: see the options host and port",
}
local KEY_FILES = { "id_ed25519", "id_ecdsa", "id_rsa" }

---@type farcall.Backend
local backend = {
  name = "ssh",
  summary = "a host by SSH: keys or agent, ~/.ssh/config, one connection for everything",
  api = 1,
  options = {
    host = { type = "string", required = true, doc = "name, address, or alias of ~/.ssh/config" },
    port = { type = "integer", doc = "22 unless ~/.ssh/config says otherwise" },
    user = { type = "string", doc = "login name; yours unless set" },
    identity = { type = "list", doc = "files of private keys; those of ~/.ssh unless set" },
    agent = { type = "boolean", default = true, doc = "ask the agent at SSH_AUTH_SOCK" },
    known_hosts = { type = "list", doc = "files of host keys; those of OpenSSH unless set" },
    accept_new = {
      type = "boolean", default = false,
      doc = "take the key of a host that is not known, and note it; else it is refused",
    },
    config = { type = "string", doc = "file in place of ~/.ssh/config; `none`: no file at all" },
    connect_timeout = { type = "seconds", default = 30, doc = "until logged in" },
    keepalive = {
      type = "seconds", default = 15, doc = "of silence before the host is asked; three are death",
    },
    client = {
      type = "string", default = "auto", one_of = { "auto", "libssh2", "openssh" },
      doc = "who speaks SSH: libssh2 where it can, or this one",
    },
    cwd = { type = "string", doc = "where commands start; the home directory unless set" },
    link_grace = {
      type = "seconds", default = 10,
      doc = "how long a script goes on over there when the link is lost, for another link",
    },
  },
  caps = {
    stdin = "stream", stdout = "stream", split = true, status = "exact", kill = "none",
    parallel = true, max_command = openssh.max_command,
  },
}

function backend.check(options)
  if options.host:sub(1, 1) == "-" or options.host:find("[%s%c]") or options.host == "" then
    return false, ("host: %q is no name of a host"):format(options.host)
  end
  if options.port and (options.port < 1 or options.port > 65535) then
    return false, ("port: %d is none"):format(options.port)
  end
  return true
end

local function expand_home(paths, home)
  local list = {}
  for i, path in ipairs(paths or {}) do
    list[i] = path:gsub("^~/", home .. "/")
  end
  return list
end

local function existing(dir, names)
  local list = {}
  for _, name in ipairs(names) do
    if fs.stat(dir .. "/" .. name) then
      list[#list + 1] = dir .. "/" .. name
    end
  end
  return list
end

local function config_files(options, home)
  if options.config == "none" then
    return {}
  elseif options.config then
    return expand_home({ options.config }, home)
  end
  return { home .. "/.ssh/config", "/etc/ssh/ssh_config" }
end

-- The operator's options over ~/.ssh/config over what OpenSSH does by itself.
local function plan(options, said, environ)
  local home = environ.HOME or "/"
  local chosen = options.identity and expand_home(options.identity, home)
  if not chosen and #said.identity_files > 0 then
    chosen = said.identity_files
  end
  local agent = environ.SSH_AUTH_SOCK
  if said.agent and said.agent:lower() == "none" then
    agent = nil
  elseif said.agent and said.agent ~= "SSH_AUTH_SOCK" then
    local variable = said.agent:match("^%$([%w_]+)$")
    agent = said.agent
    if variable then
      agent = environ[variable]
    end
  end
  return {
    host = said.hostname, port = options.port or said.port or 22,
    user = options.user or said.user or environ.USER or environ.LOGNAME or "root",
    identity_files = chosen or existing(home .. "/.ssh", KEY_FILES),
    agent = options.agent and agent ~= "" and agent or nil, only_files = said.only_files,
    known_hosts = options.known_hosts and expand_home(options.known_hosts, home) or said.known_hosts
      or { home .. "/.ssh/known_hosts", home .. "/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts" },
    host_key_alias = said.host_key_alias, accept_new = options.accept_new,
    connect_timeout = options.connect_timeout, keepalive = options.keepalive,
  }
end

local function by_openssh(options, planned, ctx)
  local home = ctx.environ.HOME or "/"
  return openssh.connect({
    host = options.host, port = options.port, user = options.user,
    identity_files = options.identity and planned.identity_files or nil,
    known_hosts = options.known_hosts and planned.known_hosts or nil,
    accept_new = options.accept_new, connect_timeout = options.connect_timeout,
    keepalive = options.keepalive, environ = ctx.environ, runtime_dir = ctx.runtime_dir,
    supervisor = ctx.supervisor, agent = options.agent,
    config = options.config and (config_files(options, home)[1] or "none") or nil,
  })
end

-- libssh2 where it can, OpenSSH where it cannot; says so once when it is not the first.
---@async
local function connect(options, planned, said, ctx)
  if options.client == "libssh2" then
    return ssh_session.connect(planned)
  elseif options.client == "openssh" then
    return by_openssh(options, planned, ctx)
  end
  local why = #said.foreign > 0 and "ssh_config has " .. table.concat(said.foreign, ", ")
  if not why then
    local session, err = ssh_session.connect(planned)
    if session or not BEYOND[err.code] then
      return session, err
    end
    why = BEYOND[err.code]
  end
  if ctx.log then
    ctx.log("info", ("ssh %s: by OpenSSH, because %s"):format(options.host, why))
  end
  return by_openssh(options, planned, ctx)
end

---@class farcall.SshEnv: farcall.Env
local Env = {}
Env.__index = Env

---@async
function Env:start(spec)
  if self.closed then
    return nil, errors.new("unavailable", self.name, "the environment is closed")
  end
  local process, err = self.session:start({
    command = self.mark:line(spec.command), stdin = spec.stdin,
  })
  return process and self.mark:follow(process), err
end

function Env:alive()
  return not self.closed and self.session:alive()
end

---A new connection where the last one is lost. What ran in that one is lost with it.
---@async
---@param anew? boolean also where the last one is not known to be dead
---@return true?
---@return farcall.Error? err
function Env:restore(anew)
  if not self.closed and self.session:alive() and not anew then
    return true
  end
  local session, err
  if not self.closed then
    session, err = self.connect()
  end
  if self.closed then
    if session then
      session:close()
    end
    return nil, errors.new("unavailable", self.name, "the environment is closed")
  elseif not session then
    return nil, err
  end
  local last = self.session
  self.session = session
  last:close()
  return true
end

---@async
function Env:close()
  if not self.closed then
    self.closed = true
    self.session:close()
  end
end

---@async
---@param options table
---@param ctx farcall.BackendContext
---@return farcall.Env?
---@return farcall.Error? err
function backend.open(options, ctx)
  local home = ctx.environ.HOME or "/"
  local files = config_files(options, home)
  if options.config and files[1] and not fs.stat(files[1]) then
    return nil, errors.new("config", files[1], "there is no such file")
  end
  local said, err = ssh_config.read(files, options.host,
    { home = home, user = ctx.environ.USER or ctx.environ.LOGNAME })
  if not said then
    return nil, err
  end
  local planned = plan(options, said, ctx.environ)
  local function again()
    return connect(options, planned, said, ctx)
  end
  local session
  session, err = again()
  if not session then
    err.hint = err.hint or HINTS[err.code]
    return nil, err
  end
  local caps = {}
  for name, value in pairs(backend.caps) do
    caps[name] = value
  end
  local mark = past_noise.new()
  caps.max_command = (session.max_command or ssh_session.max_command) - mark.overhead
  return setmetatable({
    name = planned.user .. "@" .. options.host, session = session, connect = again, mark = mark,
    caps = caps, cwd = options.cwd, link_grace = options.link_grace, passed = scrub.passed(ctx),
  }, Env)
end

return backend
