-- SPDX-License-Identifier: MIT
-- The contract: the persistent shell.

local assert = require("luassert")
local box = require("spec.backends.contract.box")
local busted = require("busted")
local helper = require("spec.helper")
local task = require("farcall.task")

local it = busted.it

local function said(shell, command)
  return assert(shell:run({ command = command })).stdout
end

---@param setup spec.Contract
return function(setup)
  local function with_shell(fn)
    return box.with(setup, function(one)
      return fn(one:shell(), one)
    end)
  end

  it("keeps a shell's directory, variables and functions", with_shell(function(shell)
    said(shell, "cd /etc; x='a  b'; f() { echo \"f $x $1\"; }; export E=1")
    assert.equal("/etc\nf a  b c\n1\n", said(shell, "pwd; f c; sh -c 'echo $E'"))
  end))

  it("tells a shell's exit codes and streams apart", with_shell(function(shell, one)
    for _, code in ipairs({ 0, 1, 126, 127, 137, 255 }) do
      local result = assert(shell:run({ command = ("echo o; echo e >&2; (exit %d)"):format(code) }))
      assert.equal(code, result.exit_code)
      if one:env().caps.split then
        assert.same({ "o\n", "e\n" }, { result.stdout, result.stderr })
      end
    end
    assert.equal("no end of line", said(shell, "printf 'no end of line'"))
  end))

  it("survives in a shell what commands do", with_shell(function(shell)
    said(shell, "x=kept")
    assert.is_true(assert(shell:run({ command = "if then; fi (" })).exit_code ~= 0)
    assert.equal("kept\n", said(shell, "echo $x"))
    -- A child in the background that holds its streams; a command that would eat its input.
    assert.equal("now\n", said(shell, "sleep 6666 & echo now"))
    assert.equal("kept\n", said(shell, "cat; echo $x"))
    local flood = assert(shell:run({ command = "head -c 4000000 /dev/urandom; echo; : >&2" }))
    assert.same({ 4000001, 0 }, { #flood.stdout, flood.exit_code })
    assert.equal("kept\n", said(shell, "echo $x"))
  end))

  it("has a new shell after exit, a kill or a deadline", with_shell(function(shell, one)
    local result = assert(shell:run({ command = "echo bye; exit 9" }))
    assert.same({ 9, "bye\n", true }, { result.exit_code, result.stdout, result.restarted })
    assert.equal("anew\n", said(shell, "echo anew"))
    result = assert(shell:run({ command = "kill -9 $$" }))
    assert.is_true(result.restarted)
    assert.equal("anew\n", said(shell, "echo anew"))
    said(shell, "export CONTRACT_MARK=" .. one.mark)
    local slow = task.spawn(shell.run, shell, {
      command = "echo slow; setsid sh -c 'trap \"\" TERM; sleep 7777; :' & sleep 8888", timeout = 5,
    })
    assert.is_true(helper.eventually(function()
      return #one:living("sleep 7777") > 0
    end))
    local _, ended = slow:join()
    assert.same({ true, "slow\n", true }, { ended.timed_out, ended.stdout, ended.restarted })
    one:assert_gone()
    assert.equal("anew\n", said(shell, "echo anew"))
  end))

  it("queues a shell's commands in order", with_shell(function(shell)
    local tasks = {}
    for i = 1, 6 do
      tasks[i] = task.spawn(shell.run, shell, { command = ("n=${n}%d; echo $n"):format(i) })
    end
    for i = 1, 6 do
      local _, result = tasks[i]:join()
      assert.equal(("123456"):sub(1, i) .. "\n", result.stdout)
    end
  end))

  it("ends a closed shell with what it has started", with_shell(function(shell, one)
    said(shell, "sh -c 'trap \"\" TERM; sleep 9999; :' & :")
    assert.is_true(helper.eventually(function()
      return #one:living("sleep 9999") > 0
    end))
    shell:close()
    shell:close()
    one:assert_gone()
    local result, err = shell:run({ command = "echo no" })
    assert.is_nil(result)
    assert.equal("unavailable", err.kind)
  end))
end
