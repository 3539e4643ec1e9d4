-- SPDX-License-Identifier: MIT
-- A real sshd on a loopback port, of this user, with keys of its own; and relays in front of it
-- that can stall. Call stop() at the end of a test.

local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local relay = require("spec.support.relay")
local task = require("farcall.task")

local sshd = {}

local function run(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local text = pipe:read("*a")
  assert(pipe:close(), command .. ": " .. text)
  return (text:gsub("%s+$", ""))
end
sshd.run = run

local function free_port()
  return tonumber(run("python3 -I -S -c 'import socket; s = socket.socket();"
    .. " s.bind((\"127.0.0.1\", 0)); print(s.getsockname()[1])'"))
end

local Server = {}
Server.__index = Server

---Makes a key pair and lets it in; returns the private key's path.
function Server:key(name, kind, passphrase)
  local path = self.dir .. "/" .. name
  run(("ssh-keygen -q %s -N '%s' -f %s"):format(kind or "-t ed25519", passphrase or "", path))
  run(("cat %s.pub >> %s/authorized_keys"):format(path, self.dir))
  return path
end

---The line of known_hosts for its host key (or for that of another file).
function Server:known_line(file)
  local key = helper.read((file or self.dir .. "/host") .. ".pub"):match("^%S+ %S+")
  return ("[127.0.0.1]:%d %s\n"):format(self.port, key)
end

---Options for ssh_session.connect.
function Server:options(extra)
  local options = {
    host = "127.0.0.1", port = self.port, user = self.user, identity_files = { self.dir .. "/id" },
    known_hosts = { self.dir .. "/known_hosts" }, connect_timeout = 60,
  }
  for key, value in pairs(extra or {}) do
    options[key] = value
  end
  return options
end

---Pids of its processes: the server and what it has for each connection, not the commands.
function Server:pids()
  local pids = {}
  local text = run("ps -A -o pid=,ppid=,comm=")
  local wanted = { [self.pid] = true }
  for _ = 1, 3 do
    for pid, parent, name in text:gmatch("(%d+)%s+(%d+)%s+(%S+)") do
      if wanted[parent] and name == "sshd" then
        wanted[pid] = true
      end
    end
  end
  for pid in pairs(wanted) do
    pids[#pids + 1] = pid
  end
  return pids
end

local function wait_for(path)
  assert(helper.eventually(function()
    return (helper.read(path) or ""):find("%d")
  end, 20), path .. " did not come")
  return helper.read(path):match("%d+")
end

---Starts it, also once more.
function Server:start()
  fs.unlink(self.dir .. "/pid")
  run(("/usr/sbin/sshd -f %s/config -E %s/log"):format(self.dir, self.dir))
  self.pid = wait_for(self.dir .. "/pid")
end

---Kills the server and every connection of it at once.
function Server:kill()
  os.execute("kill -9 " .. table.concat(self:pids(), " ") .. " 2>/dev/null")
end

---A relay to it on another port; relay.address goes to connect. See relay.start.
function Server:relay(every, delay)
  local link = relay.start(self.port, every, delay)
  table.insert(self.relays, link)
  return link
end

function Server:stop()
  for _, link in ipairs(self.relays) do
    link.stop()
  end
  self:kill()
end

---@param lines? string more of sshd_config
function sshd.start(lines)
  local dir = helper.scratch()
  local self = setmetatable({
    dir = dir, port = free_port(), user = run("id -un"), relays = {},
  }, Server)
  run(("ssh-keygen -q -t ed25519 -N '' -f %s/host"):format(dir))
  self:key("id")
  -- SHLVL: bash would read the user's start files for each command.
  helper.write(dir .. "/config", table.concat({
    lines or "", "Port " .. self.port, "ListenAddress 127.0.0.1", "HostKey " .. dir .. "/host",
    "AuthorizedKeysFile " .. dir .. "/authorized_keys", "PidFile " .. dir .. "/pid",
    "StrictModes no", "UsePAM no", "PasswordAuthentication no", "SetEnv SHLVL=2",
    "MaxSessions 100", "MaxStartups 100", "",
  }, "\n"))
  helper.write(dir .. "/known_hosts", self:known_line())
  run("mkdir -p /run/sshd 2>/dev/null || true")
  self:start()
  return self
end

---An agent with these keys in it: its socket, and a function that ends it.
function sshd.agent(dir, keys)
  local text = run(("ssh-agent -a %s/agent"):format(dir))
  local pid = text:match("SSH_AGENT_PID=(%d+)")
  for _, key in ipairs(keys) do
    run(("SSH_AUTH_SOCK=%s/agent ssh-add -q %s"):format(dir, key))
  end
  return dir .. "/agent", function()
    os.execute("kill " .. pid)
  end
end

---All output of a process and its status.
function sshd.finish(process)
  local streams = { out = {}, err = {} }
  while true do
    local stream, bytes = process:read(1048576)
    if not stream then
      break
    end
    table.insert(streams[stream], bytes)
  end
  local status, err = process:wait()
  return table.concat(streams.out), table.concat(streams.err), status, err
end

---Runs a command to its end.
function sshd.command(session, command, stdin)
  return sshd.finish(assert(session:start({ command = command, stdin = stdin })))
end

---Runs fn(i) for each i at once; fails with the first failure.
function sshd.together(count, fn)
  local tasks = {}
  for i = 1, count do
    tasks[i] = task.spawn(fn, i)
  end
  for i = 1, count do
    local ok, failure = tasks[i]:join()
    assert(ok, tostring(failure))
  end
end

return sshd
