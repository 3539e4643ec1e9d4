-- SPDX-License-Identifier: MIT
-- The queue has no binding: its users are threads. The stress test is a program of its own, which
-- spec/stress/run.sh also runs for longer and with ThreadSanitizer.
local build = require("spec.support.build")

local function run(name, argument)
  local pipe = assert(io.popen(("%s/spec/stress/%s %d 2>&1; echo exit $?"):format(build.dir, name,
    argument)))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

describe("the oneshot queue", function()
  it("loses, doubles and reorders nothing, and no wake-up", function()
    assert.matches("exit 0\n$", run("stress_oneshot", 20000))
  end)

  it("carries requests and results of an embedding program, stopped or not", function()
    assert.matches("exit 0\n$", run("stress_handoff", 5000))
  end)

  it("carries the completions of work", function()
    assert.matches("exit 0\n$", run("stress_work", 20))
  end)
end)
