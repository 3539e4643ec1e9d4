-- SPDX-License-Identifier: MIT
-- Services that are driven by a program on this machine.
local contract = require("spec.backends.contract")
local system = require("farcall.core.system")

local CAPS = {
  argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
  kill = "native", same_host = false, isolated = true,
}

contract.all("bubblewrap", {
  use = "bubblewrap", caps = CAPS, huge = false,
  wrong = {
    { what = "no program", options = { program = "/no/such" }, kind = "not_found" },
  },
}, { "c", "python" })

if system.uid() ~= 0 then
  return
end

local function testbed(name)
  local pipe = assert(io.popen("sh spec/testbed/" .. name .. ".sh"))
  local dir = assert(pipe:read("*l"), "no testbed")
  pipe:close()
  return dir
end

local apptainer = testbed("apptainer")
contract.all("singularity", {
  use = "singularity", caps = CAPS, huge = false,
  options = {
    program = apptainer .. "/bin/apptainer", image = apptainer .. "/debian.sif",
  },
  shared = { key = ("contract-%d"):format(system.pid()) },
  wrong = {
    { what = "no image", options = {
      program = apptainer .. "/bin/apptainer", image = "/no/such.sif",
    }, kind = "not_found" },
    { what = "no program", options = { program = "/no/such", image = "/no/such.sif" },
      kind = "not_found" },
  },
}, { "c" })

local podman = testbed("podman")
contract.all("podman", {
  use = "podman", caps = CAPS, huge = false,
  options = { program = podman .. "/bin/podman", image = "farcall-spec/debian" },
  shared = { key = ("contract-%d"):format(system.pid()) },
  wrong = {
    { what = "no image", options = {
      program = podman .. "/bin/podman", image = "localhost/farcall-spec/none",
    }, kind = "unavailable" },
  },
}, { "c" })
