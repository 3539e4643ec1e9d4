-- SPDX-License-Identifier: MIT
-- The contract: environments open, close, die, are apart, and leave nothing.

local assert = require("luassert")
local box = require("spec.backends.contract.box")
local busted = require("busted")
local engine = require("farcall.engine")
local environments = require("farcall.environments")
local errors = require("farcall.errors")
local helper = require("spec.helper")
local task = require("farcall.task")

local it = busted.it

local function reopened(one)
  local times = 0
  for _, text in ipairs(one.logged) do
    times = times + (text:find("is dead, another one is opened", 1, true) and 1 or 0)
  end
  return times
end

---@param setup spec.Contract
return function(setup)
  local function with(fn)
    return box.with(setup, fn, { private = true })
  end

  it("can be closed twice, and does nothing afterwards", with(function(one)
    local env = one:env()
    one:output("true")
    env:close()
    env:close()
    assert.is_false(env:alive())
    local process, err = env:start({ argv = { "true" } })
    assert.is_nil(process)
    assert.is_true(errors.is(err))
    one.engine:close()
    one.engine:close()
    local result
    result, err = one:exec("true")
    assert.is_nil(result)
    assert.equal("unavailable", err.kind)
  end))

  it("is opened once for all who ask at the same time", with(function(one)
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = task.spawn(one.env, one)
    end
    for i = 1, 4 do
      local ok, env = tasks[i]:join()
      assert.is_true(ok, tostring(env))
      assert.equal(one:env(), env)
    end
  end))

  it("leaves nothing when it is opened, used and closed again and again", function()
    local fds
    for round = 1, 3 do
      with(function(one)
        local before = one:temporary()
        one:output({ command = "cat; sleep 0 &", stdin = "x" })
        local shell = one:shell()
        assert(shell:run({ command = "sleep 1234 &" }))
        shell:close()
        assert.is_true(assert(one:exec({ command = "sleep 4321", timeout = 1 })).timed_out)
        one:assert_gone()
        one:assert_no_new_temporary(before)
      end)()
      collectgarbage()
      collectgarbage()
      local now = 0
      for _ in pairs(helper.open_fds()) do
        now = now + 1
      end
      -- The first round may load what stays.
      fds = round == 1 and now or fds
      assert.equal(fds, now)
      assert.same({}, helper.children())
    end
  end)

  if setup.die then
    it("is seen to be dead, and opened again, once", with(function(one)
      local env = one:env()
      assert.equal("1\n", one:output("echo 1"))
      setup.die(env)
      local result, err = one:exec("echo 2")
      if not result then
        assert.is_true(errors.is(err))
        assert.is_true(err.kind == "lost" or err.kind == "unavailable", tostring(err))
        assert.is_false(env:alive())
      end
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = task.spawn(one.output, one, "echo " .. i)
      end
      for i = 1, 4 do
        local ok, text = tasks[i]:join()
        assert.is_true(ok, tostring(text))
        assert.equal(i .. "\n", text)
      end
      assert.equal(1, reopened(one))
      assert.is_true(one:env() ~= env)
    end))

    it("says lost when it dies in the middle of an exec", with(function(one)
      local env = one:env()
      local count = "echo >> /tmp/farcall-contract-" .. one.mark
      local running = task.spawn(one.exec, one, {
        -- Beyond a link that is gone a command ends at its deadline, where that is all there is.
        command = count .. "; sleep 5432", timeout = setup.outlives and 3 or nil,
      })
      assert.is_true(helper.eventually(function()
        return #one:living("sleep 5432") > 0
      end))
      setup.die(env)
      local ok, result, err = running:join()
      assert.is_true(ok, tostring(result))
      assert.is_nil(result)
      assert.equal("lost", err.kind)
      assert.is_false(env:alive())
      -- What it was in the middle of was not done a second time.
      assert.equal("1\n", one:output(("f=/tmp/farcall-contract-%s; if [ -e $f ]; then wc -l < $f;"
        .. " else echo 1; fi; rm -f $f"):format(one.mark)):gsub(" ", "") .. "")
      one:assert_gone(40)
    end))
  end

  if setup.caps.isolated then
    it("cannot see another one", with(function(one)
      local path = "/tmp/contract-" .. one.mark
      one:output(("echo secret > %s"):format(path))
      local sleeper = task.spawn(one.exec, one, { command = "sleep 6543" })
      assert.is_true(helper.eventually(function()
        return #one:living("sleep 6543") > 0
      end))
      local result = assert(one:exec({
        backend = "second",
        command = ("cat %s; cat /proc/[0-9]*/cmdline | tr '\\000' ' ' | grep -c 'sleep [6]543'")
          :format(path),
      }))
      assert.equal("0\n", result.stdout)
      sleeper:cancel()
      sleeper:join()
    end))
  end

  for _, wrong in ipairs(setup.wrong or {}) do
    it("says why it cannot be opened: " .. wrong.what, box.with(setup, function(one)
      for name, value in pairs(wrong.environ or {}) do
        one.engine.cfg.environ[name] = value
      end
      local result, err = one:exec("echo never")
      assert.is_nil(result)
      assert.is_true(errors.is(err))
      assert.same({ wrong.kind, wrong.code or err.code }, { err.kind, err.code }, tostring(err))
      -- Not a line of what happened, and never somewhere else.
      assert.is_true(#err.msg > 0)
      local run, run_err = one.engine:run(one:filled({ script = "print(1)", language = "python" }))
      assert.is_nil(run)
      assert.equal(wrong.kind, run_err.kind)
    end, { private = true, own = wrong.options }))
  end

  if setup.shared then
    it("stays when it has a key, until it is removed", box.with(setup, function(one)
      local name = environments.name(setup.use, setup.shared.key)
      local path = "/tmp/contract-" .. one.mark
      one:output("echo kept > " .. path)
      one.engine:close()
      local again = engine.new(one.engine.cfg)
      local ok, failure = pcall(function()
        local result = assert(again:exec(one:filled({ command = "cat " .. path })))
        assert.equal("kept\n", result.stdout)
        local where = assert(again.catalog:backend(setup.use, one.options))
        local ctx = again.environments:context()
        local function listed()
          for _, item in ipairs(assert(where.backend.list(where.options, ctx))) do
            if item.name == name then
              return true
            end
          end
          return false
        end
        assert.is_true(listed())
        again:close()
        assert.is_true(listed())
        for _ = 1, 2 do
          assert.is_true(where.backend.reap(name, where.options, ctx))
        end
        assert.is_false(listed())
      end)
      again:close()
      if not ok then
        error(failure, 0)
      end
    end))
  end
end
