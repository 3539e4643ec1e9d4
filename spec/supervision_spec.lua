-- SPDX-License-Identifier: MIT
-- Trees under a few lines of sh, on this machine by way of an adapter that kills nothing itself.
local engines = require("spec.support.engines")
local errors = require("farcall.errors")
local far = require("farcall.transports.file_sh")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local hex = require("farcall.hex")
local oneshot = require("farcall.oneshot")
local supervision = require("farcall.supervision")
local task = require("farcall.task")

local function with_bare(options, body)
  return engines.with({ backend_path = { "spec/fixtures/backends" } }, function(one)
    return body(assert(one:environment("bare", options)))
  end)
end

local function alive(pid)
  local stat = helper.read("/proc/" .. pid .. "/stat")
  return stat ~= nil and not stat:find("^%d+ %b() Z")
end

local function gone(pid)
  assert(pid, "its pid was not said")
  return helper.eventually(function()
    return not alive(pid)
  end, 60)
end

-- Prints the pid of a grandchild that has a session of its own and minds no TERM, then waits.
local STUBBORN = [[
setsid sh -c 'trap "" TERM HUP; echo $$; exec sleep 300' &
sleep 300
]]

local function first_line(process)
  local text = ""
  while not text:find("\n", 1, true) do
    local stream, bytes = process:read(4096)
    assert(stream)
    text = text .. bytes
  end
  return (text:match("^(%d+)\n"))
end

describe("supervision", function()
  for _, options in ipairs({ {}, { stdin = "none" }, { words = false } }) do
    it("kills a tree, sessions of its own included", function()
      with_bare(options, function(env)
        local process = assert(env:start({ command = STUBBORN }))
        local pid = first_line(process)
        assert.is_true(alive(pid))
        process:kill(1)
        assert.is_true(gone(pid))
        assert.is_true(process.gone)
        process:kill()
        assert.is_table((process:wait()))
      end)
    end)

    it("ends a oneshot at its deadline with all that it started", function()
      with_bare(options, function(env)
        local result = assert(oneshot.run(env, { command = STUBBORN, timeout = 4 }))
        assert.is_true(result.timed_out)
        assert.is_true(gone(result.stdout:match("%d+")))
      end)
    end)
  end

  it("ends a tree over there when its engine is lost", function()
    with_bare({}, function(env)
      local argv = supervision.argv({
        mark = supervision.new_mark(), argv = { "sh", "-c", STUBBORN }, grace = 1, stdin = "life",
      })
      local process = assert(env.bare:start({ argv = argv, stdin = "pipe" }))
      local pid = first_line(process)
      process:close_stdin()
      assert.is_true(gone(pid))
      process:wait()
      local deadline = assert(env.bare:start({ argv = supervision.argv({
        mark = supervision.new_mark(), argv = { "sh", "-c", STUBBORN }, grace = 1, stdin = "data",
        deadline = 4,
      }) }))
      pid = first_line(deadline)
      assert.is_true(gone(pid))
      deadline:wait()
    end)
  end)

  it("ends a run whose lease nobody renews, and removes its directory", function()
    with_bare({}, function(env)
      local dir = helper.scratch() .. "/farcall-run-x"
      assert(fs.mkdir(dir, 448, true))
      helper.write(dir .. "/turn", "1\n")
      local process = assert(env.bare:start({ argv = supervision.argv({
        mark = supervision.new_mark(), argv = { "sh", "-c", STUBBORN }, grace = 1, stdin = "data",
        dir = dir, lease = 4,
      }) }))
      local pid = first_line(process)
      for turn = 2, 13 do
        task.sleep(0.5)
        helper.write(dir .. "/turn", turn .. "\n")
        assert.is_true(alive(pid))
      end
      assert.is_true(gone(pid))
      process:wait()
      assert.is_nil(fs.stat(dir))
    end)
  end)

  it("tells exit codes and leaves standard error alone", function()
    with_bare({}, function(env)
      for _, code in ipairs({ 0, 1, 2, 77, 126, 127, 255 }) do
        local result = assert(oneshot.run(env,
          { command = "echo e >&2; exit " .. code, timeout = 60 }))
        assert.equal(code, result.exit_code)
        assert.equal("e\n", result.stderr)
      end
      local result = assert(oneshot.run(env, { command = "kill -KILL $$", timeout = 60 }))
      assert.equal(137, result.exit_code)
      assert.equal("", result.stderr)
    end)
  end)

  it("hands standard input through, and words as they are", function()
    local bytes = {}
    for i = 0, 255 do
      bytes[#bytes + 1] = string.char(i)
    end
    local all = table.concat(bytes):rep(400)
    for _, options in ipairs({ {}, { stdin = "bytes" }, { stdin = "none" }, { words = false },
      { stdin = "none", words = false, max_command = 65536 } })
    do
      with_bare(options, function(env)
        for _, timeout in ipairs({ false, 60 }) do
          local result = assert(oneshot.run(env,
            { argv = { "cat" }, stdin = all, timeout = timeout or nil }))
          assert.equal(#all, #result.stdout)
          assert.is_true(all == result.stdout)
          local words = { "", "-n", "a b",
            "'", '"', "$(echo x)", "`id`", "\\", "\n", "*", "é", "!" }
          local argv = { "printf", "%s\\n" }
          for _, word in ipairs(words) do
            argv[#argv + 1] = word
          end
          result = assert(oneshot.run(env, {
            argv = argv, timeout = timeout or nil, env = { ["A_B"] = "x '\"$y\nz" }, cwd = "/",
          }))
          assert.equal(table.concat(words, "\n") .. "\n", result.stdout)
          result = assert(oneshot.run(env, {
            command = 'printf %s "$A_B"; pwd', timeout = timeout or nil, cwd = "/usr",
            env = { ["A_B"] = "x '\"$y\nz" },
          }))
          assert.equal("x '\"$y\nz/usr\n", result.stdout)
        end
      end)
    end
  end)

  it("feeds a process that reads as it goes where standard input does not live", function()
    with_bare({ stdin = "none" }, function(env)
      local process = assert(env:start({ argv = { "cat" }, stdin = "pipe" }))
      assert(process:write("one\n"))
      local _, bytes = process:read(100)
      assert.equal("one\n", bytes)
      assert(process:write("two\n"))
      _, bytes = process:read(100)
      assert.equal("two\n", bytes)
      process:close_stdin()
      assert.is_nil(process:read(100))
      assert.equal(0, process:wait().exit)
    end)
  end)

  it("refuses what cannot be sent", function()
    with_bare({ max_command = 70000 }, function(env)
      local _, err = oneshot.run(env, { argv = { "true", ("x"):rep(80000) } })
      assert.equal("limit", err.kind)
      assert.equal("E2BIG", err.code)
      _, err = oneshot.run(env, { argv = { "true", "a\0b" } })
      assert.equal("usage", err.kind)
      _, err = oneshot.run(env, { argv = { "true" }, env = { ["A=B"] = "c" } })
      assert.is_true(errors.is(err))
      assert.equal("usage", err.kind)
    end)
  end)

  it("leaves no input of an exec that never began", function()
    local function left()
      local names = {}
      for _, name in ipairs(fs.list("/tmp")) do
        names[name] = name:find("^farcall%-in%-") and true or nil
      end
      return names
    end
    -- Others may have some there just now, which go by themselves.
    local function none_new(before)
      local new = left()
      return helper.eventually(function()
        for name in pairs(new) do
          new[name] = not before[name] and fs.stat("/tmp/" .. name) and true or nil
        end
        return next(new) == nil
      end, 60)
    end
    with_bare({ stdin = "none" }, function(env)
      local before, large = left(), ("x"):rep(300000)
      assert.is_nil((oneshot.run(env.bare, { argv = { "cat" }, stdin = large, cwd = "/nowhere" })))
      assert.is_nil((oneshot.run(env.bare, { argv = { "cat", large }, stdin = large })))
      assert.is_nil((env:start({ argv = { "cat" }, stdin = "pipe", cwd = "/nowhere" })))
      local cancelled = task.spawn(oneshot.run, env.bare,
        { argv = { "cat" }, stdin = large:rep(9) })
      task.sleep(0.05)
      cancelled:cancel()
      assert.is_false((cancelled:join()))
      assert.is_true(none_new(before))
    end)
    with_bare({ stdin = "none", ends = true }, function(env)
      local before = left()
      assert.is_nil((oneshot.run(env.bare,
        { argv = { "cat" }, stdin = ("x"):rep(300000), cwd = "/nowhere" })))
      assert.is_true(none_new(before))
    end)
  end)

  it("does not believe a supervisor that was killed", function()
    with_bare({}, function(env)
      local process = assert(env:start({ command = "echo $PPID; sleep 300", timeout = 60 }))
      local pid = first_line(process)
      assert.is_true(alive(pid))
      os.execute("kill -KILL " .. pid)
      process:kill(0)
      process:wait()
      assert.is_true(process.gone)
      process = assert(env:start({ command = "kill -KILL $PPID", timeout = 60 }))
      while process:read(4096) do end -- luacheck: ignore 542
      process:wait()
      assert.is_false(process.gone)
    end)
  end)

  it("sweeps a run whose engine and supervisor were killed, and its execs", function()
    with_bare({}, function(env)
      local dir = "/tmp/farcall-run-" .. hex.random(8)
      assert(fs.mkdir(dir .. "/c", 448, true))
      helper.write(dir .. "/turn", "0\n")
      helper.write(dir .. "/token", "x")
      assert.equal(0, os.execute(("mkfifo %s/bell.0 %s/bell.1"):format(dir, dir)))
      local collectors = {}
      for turn = 1, 3 do
        collectors[turn] = assert(env.bare:start({ argv = {
          "sh", "-c", far.CYCLE, "sh", "m", dir, ("%d"):format(turn), "fifo", "0", "args",
        } }))
      end
      local supervised = assert(env.bare:start({
        argv = supervision.argv({
          mark = supervision.new_mark(), grace = 1,
          argv = { "sh", "-c", "echo $$; sleep 300; : " .. dir }, stdin = "data",
          dir = dir, lease = 45,
        }), env = { FARCALL_RUN_DIR = dir },
      }))
      local pid = first_line(supervised)
      os.execute("touch -d '1 hour ago' " .. dir)
      assert(supervision.sweep(env))
      assert.is_table(fs.stat(dir))
      -- Its subshells too, by their ids: the name is this spec's own.
      os.execute("kill -KILL $(pgrep -f '[f]arcall:" .. dir .. "')")
      assert(supervision.sweep(env))
      assert.is_nil(fs.stat(dir))
      assert.is_true(gone(pid))
      for _, collector in ipairs(collectors) do
        while collector:read(4096) do end -- luacheck: ignore 542
        assert.equal(0, collector:wait().exit)
      end
    end)
  end)

  it("sweeps directories that no process knows of", function()
    with_bare({}, function(env)
      local dir = "/tmp/farcall-run-" .. hex.random(8)
      assert(fs.mkdir(dir, 448, true))
      assert(supervision.sweep(env))
      assert.is_table(fs.stat(dir))
      os.execute("touch -d '1 hour ago' " .. dir)
      -- Somebody else's sweep may have been first.
      assert(supervision.sweep(env))
      assert.is_nil(fs.stat(dir))
    end)
  end)
end)
