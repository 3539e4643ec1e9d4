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

---@return boolean
function docker.exists(name)
  return select(2, docker.cli("container inspect " .. name))
end

return docker
