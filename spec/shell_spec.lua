-- SPDX-License-Identifier: MIT
local engines = require("spec.support.engines")
local errors = require("farcall.errors")
local shells = require("farcall.shell")
local task = require("farcall.task")

local function with_shell(body)
  return function()
    engines.with(nil, function(one)
      local shell = assert(one:shell({}))
      local ok, err = pcall(body, shell, one)
      shell:close()
      if not ok then
        error(err, 0)
      end
    end)
  end
end

local function output(shell, command)
  local result = assert(shell:run({ command = command }))
  return result.stdout
end

describe("shell", function()
  it("keeps cwd, variables and functions", with_shell(function(shell)
    output(shell, "cd /usr/lib; x=5; f() { echo \"f $x $1\"; }")
    assert.equal("/usr/lib\nf 5 a\n", output(shell, "pwd; f a"))
  end))

  it("keeps the streams apart and tells exact exit codes", with_shell(function(shell)
    for _, code in ipairs({ 0, 1, 42, 124, 127, 255 }) do
      local result = assert(shell:run({ command = ("echo o; echo e >&2; (exit %d)"):format(code) }))
      assert.same({ code, "o\n", "e\n" }, { result.exit_code, result.stdout, result.stderr })
    end
  end))

  it("does not mind output without a final newline, or any bytes", with_shell(function(shell)
    assert.equal("abc", output(shell, "printf abc"))
    local every = {}
    for byte = 0, 255 do
      every[#every + 1] = string.char(byte)
    end
    local escaped = {}
    for byte = 0, 255 do
      escaped[#escaped + 1] = ("\\%03o"):format(byte)
    end
    assert.equal(table.concat(every), output(shell, "printf '" .. table.concat(escaped) .. "'"))
  end))

  it("survives a syntax error and an unset variable", with_shell(function(shell)
    output(shell, "x=kept")
    local result = assert(shell:run({ command = "if then; fi (" }))
    assert.not_equal(0, result.exit_code)
    assert.equal("kept\n", output(shell, "echo $x"))
  end))

  it("survives exit, says so, and starts anew", with_shell(function(shell)
    local result = assert(shell:run({ command = "echo bye; exit 9" }))
    assert.equal(9, result.exit_code)
    assert.equal("bye\n", result.stdout)
    assert.is_true(result.restarted)
    assert.equal("again\n", output(shell, "echo again"))
  end))

  it("is replaced when it is killed", with_shell(function(shell)
    local result = assert(shell:run({ command = "kill -9 $$" }))
    assert.equal("KILL", result.signal)
    assert.equal("back\n", output(shell, "echo back"))
  end))

  it("does not wait for a background child that holds its pipe", with_shell(function(shell)
    local began = task.now()
    assert.equal("now\n", output(shell, "sleep 60 & echo now"))
    assert.is_true(task.now() - began < 20)
    assert.equal("next\n", output(shell, "echo next"))
  end))

  it("gives a command no input to eat", with_shell(function(shell)
    assert.equal("", output(shell, "cat"))
    assert.equal("on\n", output(shell, "echo on"))
  end))

  it("is not led astray by redirecting its own streams", with_shell(function(shell)
    output(shell, "exec >/dev/null")
    local result = assert(shell:run({ command = "echo lost; echo e >&2" }))
    assert.same({ 0, "", "e\n" }, { result.exit_code, result.stdout, result.stderr })
  end))

  it("comes through a flood and keeps what it may", with_shell(function(shell)
    local result = assert(shell:run({ command = "head -c 30000000 /dev/urandom; exit_code=3",
      max_output = 100000 }))
    assert.equal(100000, #result.stdout)
    assert.is_true(result.truncated)
    assert.equal("ok\n", output(shell, "echo ok"))
  end))

  it("kills what passes its deadline", with_shell(function(shell)
    local result = assert(shell:run({ command = "echo a; sleep 60", timeout = 2 }))
    assert.is_true(result.timed_out)
    assert.equal("a\n", result.stdout)
    assert.equal("b\n", output(shell, "echo b"))
  end))

  it("queues commands while oneshots pass by", with_shell(function(shell, one)
    local long = task.spawn(function()
      return assert(shell:run({ command = "sleep 1; echo long" }))
    end)
    local queued = task.spawn(function()
      return assert(shell:run({ command = "echo queued" }))
    end)
    for _ = 1, 5 do
      assert(one:exec({ command = "true" }))
    end
    assert.is_false(long:done())
    assert.equal("long\n", select(2, long:join()).stdout)
    assert.equal("queued\n", select(2, queued:join()).stdout)
  end))

  it("is replaced when it has died between two commands", with_shell(function(shell)
    output(shell, "(sleep 0.1; kill -KILL $$) > /dev/null 2>&1 8>&1 9>&1 &")
    task.sleep(1.5)
    -- Whether the command was read nobody knows, so it is not given to another shell.
    local result = shell:run({ command = "echo lost" })
    assert.is_true(result == nil or result.restarted)
    assert.equal("again\n", output(shell, "echo again"))
  end))

  it("says that it was lost with its link", with_shell(function(_, one)
    local env = assert(one:environment())
    local shell = shells.new({ start = function(_, spec)
      local process = assert(env:start(spec))
      return {
        write = function(_, bytes) return process:write(bytes) end,
        read = function() return nil end,
        kill = function() return process:kill() end,
        wait = function()
          process:kill()
          return nil, errors.new("lost", "exec", "the link was cut")
        end,
      }
    end })
    local result, err = shell:run({ command = "true" })
    assert.is_nil(result)
    assert.equal("lost", err.kind)
    shell:close()
  end))

  it("refuses NUL", with_shell(function(shell)
    local result, err = shell:run({ command = "echo \0" })
    assert.is_nil(result)
    assert.equal("usage", err.kind)
  end))
end)
