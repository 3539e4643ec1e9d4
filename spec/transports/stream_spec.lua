-- SPDX-License-Identifier: MIT
-- Scripts by stream on this machine.
local engines = require("spec.support.engines")
local helper = require("spec.helper")
local stream_suite = require("spec.support.stream_suite")

describe("a script by stream, here,", function()
  stream_suite.all({ use = "local", options = {} })

  it("in a Lua without sockets calls through the program of each runner", function()
    for _, form in ipairs({ "c", "python" }) do
      local dir = helper.scratch()
      for _, name in ipairs({ "sh", "mkfifo", "python3" }) do
        assert.equal(0, os.execute(("ln -s /usr/bin/%s %s/%s"):format(name, dir, name)))
      end
      assert.equal(0, os.execute(("ln -s $(command -v lua5.3) %s/lua"):format(dir)))
      local over = { runner_forms = { form }, environ = { PATH = dir, HOME = dir } }
      engines.with(over, function(one)
        local result = assert(one:run({ transport = "stream", language = "lua",
          env = { LUA_CPATH_5_3 = "/none" }, script = [[
local farcall = require("farcall")
assert(not pcall(require, "socket"))
for i = 1, 3 do
  io.write(farcall.terminal("/bin/echo " .. i).output)
end]] }))
        assert.same({ "success", "1\n2\n3\n", form },
          { result.status, result.output:gsub("\n\n", "\n"), result.runner }, result.stderr)
      end)
    end
  end)
end)
