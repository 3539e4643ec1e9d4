-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local task = require("farcall.task")

describe("task", function()
  it("returns what the main function returns", function()
    assert.same({ 1, nil, 3 }, { task.run(function(a)
      return a, nil, 3
    end, 1) })
  end)

  it("raises what the main function raises, with a traceback for a bug", function()
    local expected = errors.new("usage", "x", "y")
    local ok, err = pcall(task.run, function()
      error(expected, 0)
    end)
    assert.is_false(ok)
    assert.equal(expected, err)
    ok, err = pcall(task.run, function()
      task.sleep(0)
      error("boom")
    end)
    assert.is_false(ok)
    assert.equal("internal", err.kind)
    assert.matches("boom.*traceback", tostring(err))
  end)

  it("sleeps side by side", function()
    local order = {}
    task.run(function()
      local spawned = {}
      for _, delay in ipairs({ 0.03, 0.01, 0.02 }) do
        spawned[#spawned + 1] = task.spawn(function()
          task.sleep(delay)
          order[#order + 1] = delay
        end)
      end
      for _, each in ipairs(spawned) do
        each:join()
      end
    end)
    assert.same({ 0.01, 0.02, 0.03 }, order)
  end)

  it("hands a child's results and failures to who joins it", function()
    task.run(function()
      local good = task.spawn(function()
        task.sleep(0)
        return 1, 2
      end)
      assert.same({ true, 1, 2 }, { good:join() })
      assert.same({ true, 1, 2 }, { good:join() })
      local bad = task.spawn(function()
        error(errors.new("lost", "link", "gone"), 0)
      end)
      local ok, err = bad:join()
      assert.is_false(ok)
      assert.equal("lost", err.kind)
    end)
  end)

  it("ends a task at its deadline, with its clean-up done", function()
    task.run(function()
      local cleaned = false
      local result, err = task.timeout(0.02, function()
        local ok, why = pcall(task.sleep, 10)
        assert(not ok)
        task.shield(task.sleep, 0.01)
        cleaned = true
        error(why, 0)
      end)
      assert.is_nil(result)
      assert.equal("timeout", err.kind)
      assert.is_true(cleaned)
    end)
  end)

  it("returns the results of what was in time", function()
    task.run(function()
      assert.same({ 1, 2 }, { task.timeout(5, function()
        task.sleep(0)
        return 1, 2
      end) })
    end)
  end)

  it("cancels the child of a timeout together with who waits for it", function()
    task.run(function()
      local inner_ended = false
      local outer = task.spawn(function()
        task.timeout(10, function()
          pcall(task.sleep, 10)
          inner_ended = true
        end)
      end)
      outer:cancel()
      outer:join()
      assert.is_true(inner_ended)
    end)
  end)

  it("hands permits out in the order of asking, past who gave up", function()
    task.run(function()
      local gate, order, spawned = task.semaphore(1), {}, {}
      gate.acquire()
      for i = 1, 4 do
        spawned[i] = task.spawn(function()
          gate.acquire()
          order[#order + 1] = i
          gate.release()
        end)
      end
      spawned[2]:cancel()
      gate.release()
      for _, each in ipairs(spawned) do
        each:join()
      end
      assert.same({ 1, 3, 4 }, order)
      gate.acquire()
      gate.release()
    end)
  end)

  it("wakes everybody who waits for an event, and later comers at once", function()
    task.run(function()
      local event, seen = task.event(), 0
      local spawned = {}
      for i = 1, 3 do
        spawned[i] = task.spawn(function()
          local value = event.wait()
          seen = seen + value
        end)
      end
      event.set(2)
      event.set(50)
      for _, each in ipairs(spawned) do
        each:join()
      end
      assert.equal(6, seen)
      assert.equal(2, event.wait())
    end)
  end)

  it("cancels what the main task left behind", function()
    local ended = false
    task.run(function()
      task.spawn(function()
        pcall(task.sleep, 60)
        ended = true
      end)
    end)
    assert.is_true(ended)
  end)

  it("says so when the main task waits for what cannot come", function()
    local ok, err = pcall(task.run, function()
      task.await(function() end)
    end)
    assert.is_false(ok)
    assert.matches("cannot come", tostring(err))
  end)

  it("refuses to wait outside a task", function()
    assert.has_error(function()
      task.sleep(1)
    end)
  end)
end)
