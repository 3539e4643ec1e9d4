-- SPDX-License-Identifier: MIT
local far_side = require("spec.support.far_side")

local function run(ctx, command, more)
  local args = { command = command }
  for key, value in pairs(more or {}) do
    args[key] = value
  end
  return far_side.call("terminal", ctx, args)
end

describe("tool terminal", function()
  far_side.it("gives output and exit code", function(ctx)
    assert.same({ output = "a\nb\n", exit_code = 0 }, assert(run(ctx, "echo a; echo b >&2")))
    assert.same({ output = "", exit_code = 3 }, assert(run(ctx, "exit 3")))
    assert.equal("it's $HOME\n", assert(run(ctx, [[printf '%s\n' "it's \$HOME"]])).output)
  end)

  far_side.it("has an empty stdin", function(ctx)
    assert.same({ output = "", exit_code = 0 }, assert(run(ctx, "cat")))
  end)

  far_side.it("runs in a directory", function(ctx, dir)
    os.execute(("mkdir -p '%s/-sub dir'"):format(dir))
    assert.equal(dir .. "\n", assert(run(ctx, "pwd")).output)
    assert.equal(dir .. "/-sub dir\n", assert(run(ctx, "pwd", { workdir = "-sub dir" })).output)
    assert.equal(126, assert(run(ctx, "pwd", { workdir = "missing" })).exit_code)
  end)

  far_side.it("kills after the timeout", function(ctx)
    local reply = assert(run(ctx, "echo before; sleep 60 & sleep 60", { timeout = 2 }))
    assert.equal("before\n", reply.output)
    assert.same({ 124, true }, { reply.exit_code, reply.timed_out })
    assert.truthy(reply.error:find("2 s", 1, true))
  end)

  far_side.it("tells a signal and keeps output within its limit", function(ctx)
    local reply = assert(run(ctx, "kill -9 $$"))
    assert.same({ 137, "KILL" }, { reply.exit_code, reply.signal })
    reply = assert(run(ctx, "head -c 3000000 /dev/zero | tr '\\000' x"))
    assert.equal(1048576, #reply.output)
    assert.is_true(reply.truncated)
  end)

  far_side.it("refuses NUL", function(ctx)
    local reply, err = run(ctx, "echo \0")
    assert.is_nil(reply)
    assert.equal("usage", err.kind)
  end)
end)
