-- SPDX-License-Identifier: MIT
-- The real Docker engine, for specs: set up once a process, spoken to by the docker program.

local docker = {}

docker.SOCKET = "/var/run/docker.sock"

local ready

---Starts the engine and makes the images where they are missing.
function docker.setup()
  if not ready then
    assert(os.execute("sh spec/testbed/docker.sh") == 0, "spec/testbed/docker.sh failed")
    ready = true
  end
end

---What `docker ...` prints, and whether it succeeded.
---@param line string
---@return string, boolean
function docker.cli(line)
  local pipe = assert(io.popen("docker -H unix://" .. docker.SOCKET .. " " .. line
    .. " 2>&1; echo \"status $?\""))
  local text = pipe:read("*a")
  pipe:close()
  local output, status = text:match("^(.-)status (%d+)\n$")
  return (output:gsub("%s+$", "")), status == "0"
end

-- In a network namespace of its own: a second daemon would take the first one's bridge down.
local OWN = [[
setsid unshare -n dockerd -H unix://%s/socket --data-root %s/data --exec-root %s/exec \
  --pidfile %s/pid --bridge none --iptables=false --ip-masq=false >>%s/log 2>&1 </dev/null &
pid=$!
i=0
until docker -H unix://%s/socket version >/dev/null 2>&1; do
  i=$((i + 1))
  [ "$i" -lt 300 ] || { tail %s/log >&2; exit 1; }
  sleep 0.1
done
echo "$pid" >%s/daemon
]]

---A daemon of the specs' own, which may be killed: others use the ordinary one meanwhile. It has
---no networks.
---@param images? string[] those of farcall-spec that it has; busybox when absent
---@return {socket: string, start: function, signal: fun(signal: string), stop: fun(signal: string),
---close: function}
function docker.own(images)
  local pipe = assert(io.popen("mktemp -d /var/tmp/farcall-dockerd-XXXXXX"))
  local dir = pipe:read("*l")
  pipe:close()
  local self, pid = { socket = dir .. "/socket" }, nil

  ---`run`, instead of os.execute, may wait as a task does.
  function self.start(run)
    assert((run or os.execute)((OWN:gsub("%%s", dir))) == 0, "dockerd did not start")
    local file = assert(io.open(dir .. "/daemon"))
    pid = assert(file:read("*n"))
    file:close()
  end

  function self.signal(signal)
    assert(os.execute(("kill -%s %d"):format(signal, pid)) == 0)
  end

  ---Returns when it is gone; its containers may be left, if it was killed.
  function self.stop(signal, run)
    local line = "kill -%s %d; while kill -0 %d 2>/dev/null; do sleep 0.05; done"
    assert((run or os.execute)(line:format(signal, pid, pid)) == 0)
  end

  function self.close()
    os.execute(("docker -H unix://%s ps -aq | xargs -r docker -H unix://%s rm -f >/dev/null")
      :format(self.socket, self.socket))
    self.stop("TERM")
    -- A daemon that was killed left mounts.
    os.execute(("awk '$2 ~ \"^%s\" { print $2 }' /proc/mounts | sort -r | xargs -r -n1 umount -l")
      :format(dir))
    os.execute("rm -rf " .. dir)
  end

  self.start()
  for _, name in ipairs(images or { "busybox" }) do
    assert(os.execute(("docker -H unix://%s import $(sh spec/testbed/root.sh %s)"
      .. " farcall-spec/%s >/dev/null"):format(self.socket, name, name)) == 0)
  end
  return self
end

---@return boolean
function docker.exists(name)
  return select(2, docker.cli("container inspect " .. name))
end

return docker
