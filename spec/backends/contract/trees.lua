-- SPDX-License-Identifier: MIT
-- The contract: a deadline, and whoever gives up, ends everything that was started.

local assert = require("luassert")
local box = require("spec.backends.contract.box")
local busted = require("busted")
local helper = require("spec.helper")
local task = require("farcall.task")

local it = busted.it

-- A grandchild in a session of its own that minds no TERM, one in the same group that does not
-- either, and one that holds the output.
local STUBBORN = [[
setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1111; done' > /dev/null 2>&1 < /dev/null &
(trap "" TERM HUP INT; while :; do sleep 2222; done) &
echo up
trap "" TERM HUP INT
while :; do sleep 3333; done
]]

local function all_alive(one)
  return #one:living("sleep 1111") > 0 and #one:living("sleep 2222") > 0
    and #one:living("sleep 3333") > 0
end

---@param setup spec.Contract
return function(setup)
  it("ends at a deadline whatever was started", box.with(setup, function(one)
    local running = task.spawn(one.exec, one, { command = STUBBORN, timeout = 8 })
    assert.is_true(helper.eventually(function()
      return running:done() or all_alive(one)
    end))
    assert.is_true(all_alive(one), "was not alive")
    local ok, result, err = running:join()
    assert.is_true(ok and result ~= nil, tostring(err or result))
    assert.is_true(result.timed_out)
    if one:env().caps.stdout == "stream" then
      assert.equal("up\n", result.stdout)
    end
    one:assert_gone()
  end))

  it("ends whatever was started when its caller gives up", box.with(setup, function(one)
    local running = task.spawn(one.exec, one, { command = STUBBORN })
    assert.is_true(helper.eventually(function()
      return all_alive(one)
    end))
    running:cancel()
    assert.is_false((running:join()))
    one:assert_gone()
  end))

  it("leaves alone what it was not told to end", box.with(setup, function(one)
    local other = task.spawn(one.exec, one, { command = "sleep 4444", timeout = 120 })
    assert.is_true(helper.eventually(function()
      return #one:living("sleep 4444") > 0
    end))
    assert.is_true(assert(one:exec({ command = "sleep 5555", timeout = 1 })).timed_out)
    assert.is_true(#one:living("sleep 4444") > 0)
    assert.equal(0, #one:living("sleep 5555"))
    other:cancel()
    other:join()
    one:assert_gone()
  end))
end
