-- SPDX-License-Identifier: MIT
local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local openssh = require("farcall.clients.openssh")
local sshd = require("spec.support.sshd")

local SUPERVISOR = assert(fs.realpath(build.dir)) .. "/farcall-supervisor"

describe("openssh", function()
  it("runs", helper.task(function()
    local server = sshd.start()
    local runtime = helper.scratch()
    local session = assert(openssh.connect(server:options({
      config = "none", environ = { PATH = os.getenv("PATH") }, runtime_dir = runtime,
      supervisor = SUPERVISOR,
    })))
    for _, code in ipairs({ 0, 1, 255 }) do
      assert.same({ exit = code }, select(3, sshd.command(session, "exit " .. code)))
    end
    assert.same({ signal = 9, name = "KILL" }, select(3, sshd.command(session, "kill -9 $$")))
    session:close()
    server:stop()
  end))
end)
