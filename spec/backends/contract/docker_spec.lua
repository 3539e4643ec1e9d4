-- SPDX-License-Identifier: MIT
local contract = require("spec.backends.contract")
local docker = require("spec.support.docker")
local system = require("farcall.core.system")

docker.setup()

-- What has no key and was made by this engine.
local function left(engine)
  local names = {}
  local text = docker.cli("ps -a --filter label=farcall.engine=" .. engine
    .. " --format '{{.Names}} {{.Label \"farcall.key\"}}'")
  for name in text:gmatch("(%S+) *\n") do
    names[#names + 1] = name
  end
  return names
end

for _, image in ipairs({ "debian", "busybox" }) do
  contract.all("docker, " .. image, {
    use = "docker", options = { image = "farcall-spec/" .. image },
    shared = { key = ("contract-%s-%d"):format(image, system.pid()) },
    caps = {
      argv = true, stdin = "stream", stdout = "stream", split = true, status = "code",
      kill = "none", same_host = false, isolated = true,
    },
    python = image ~= "busybox", huge = image == "debian", left = left,
    die = function(env)
      docker.cli("rm -f " .. env.name)
    end,
    wrong = {
      { what = "no such image", options = { image = "farcall-spec/none" }, kind = "not_found" },
      { what = "no daemon", options = { socket = "/no/such/socket" }, kind = "unavailable" },
      { what = "nobody listens", options = { socket = "tcp://127.0.0.1:1" }, kind = "unavailable",
        code = "ECONNREFUSED" },
    },
  }, image == "debian" and { "c", "python" } or { "c" })
end
