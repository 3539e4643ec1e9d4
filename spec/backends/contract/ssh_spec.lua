-- SPDX-License-Identifier: MIT
local contract = require("spec.backends.contract")
local errors = require("farcall.errors")
local helper = require("spec.helper")
local system = require("farcall.core.system")

if system.uid() ~= 0 then
  return
end

local pipe = assert(io.popen("sh spec/testbed/ssh.sh"))
local dir = assert(pipe:read("*l"), "no testbed")
pipe:close()

-- OpenSSH's own limits where 32 oneshots are to come through, room for many elsewhere.
local SERVERS = {
  { "libssh2", "ed25519", "default", true }, { "openssh", "rsa", "main" },
}

for _, server in ipairs(SERVERS) do
  local client, key, name, huge = unpack(server)
  local options = {
    host = "127.0.0.1", port = tonumber((helper.read(dir .. "/port." .. name):match("%d+"))),
    user = "farcall-far", identity = { dir .. "/" .. key }, agent = false, config = "none",
    known_hosts = { dir .. "/known_hosts" }, client = client, link_grace = 3,
  }
  local function but(fields)
    local all = {}
    for field, value in pairs(options) do
      all[field] = value
    end
    for field, value in pairs(fields) do
      all[field] = value
    end
    return all
  end
  contract.all(("ssh by %s, %s key, an ordinary user"):format(client, key), {
    use = "ssh", options = options, huge = huge or false, outlives = true,
    caps = {
      stdin = "stream", stdout = "stream", split = true, status = "exact", kill = "none",
      same_host = false,
    },
    -- For good: spec/faults/resume_spec.lua has connections that can be made anew.
    die = function(env)
      function env.raw.restore()
        return nil, errors.new("unavailable", "ssh", "the host has gone")
      end
      env.raw.session:close()
    end,
    wrong = {
      { what = "nobody listens", options = but({ port = 1 }), kind = "unavailable" },
      { what = "unknown host", options = but({ known_hosts = { "/nonexistent" } }), kind = "denied",
        code = "UNKNOWN_HOST" },
      { what = "wrong key", options = but({ identity = { dir .. "/host" } }), kind = "denied" },
    },
  }, { "c", "python" })
end
