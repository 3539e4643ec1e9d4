-- SPDX-License-Identifier: MIT
-- What holds for every backend over clients/command.lua, against the real program. The files of the
-- backends add what is their own.

local assert = require("luassert")
local build = require("spec.support.build")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local task = require("farcall.task")

local suite = {}

suite.SUPERVISOR = assert(fs.realpath(build.dir)) .. "/farcall-supervisor"

---A context as the engine makes it. environ over what is needed.
function suite.context(environ, fields)
  local id = system.random(5):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end)
  local ctx = {
    environ = { PATH = os.getenv("PATH"), HOME = os.getenv("HOME"), API_KEY = "s3cret" },
    passthrough = {}, supervisor = suite.SUPERVISOR, runtime_dir = helper.scratch(),
    name = "farcall-spec-" .. id, labels = { ["farcall.engine"] = "engine-" .. id },
  }
  for name, value in pairs(environ or {}) do
    ctx.environ[name] = value
  end
  for name, value in pairs(fields or {}) do
    ctx[name] = value
  end
  return ctx
end

---The options as the catalog fills them in.
function suite.options(backend, given)
  local options = {}
  for name, declaration in pairs(backend.options) do
    options[name] = declaration.default
  end
  for name, value in pairs(given or {}) do
    options[name] = value
  end
  return options
end

---Reads a process to its end: out, err, status.
function suite.drain(process)
  local text = { out = {}, err = {} }
  for name, bytes in function()
    return process:read(65536)
  end do
    table.insert(text[name], bytes)
  end
  return table.concat(text.out), table.concat(text.err), process:wait()
end

function suite.run(env, spec)
  local process, err = env:start(type(spec) == "string" and { command = spec } or spec)
  if not process then
    return nil, err
  end
  return suite.drain(process)
end

local run, drain = suite.run, suite.drain

---@param it function busted's, which only the files of specs have
---@param name string
---@param setup fun(): farcall.Backend, table, table, table? the backend, its options, variables of
---the operator; where starting takes long, a key and name, so that the tests share one
function suite.tests(it, name, setup)
  local function with(given, fn, more)
    return helper.task(function()
      local backend, options, environ, fields = setup()
      for key, value in pairs(given) do
        options[key] = value
      end
      local ctx = suite.context(environ, fields)
      ctx.passthrough = more and more.passthrough or {}
      local env = assert(backend.open(suite.options(backend, options), ctx))
      local ok, failure = pcall(fn, env, ctx)
      env:close()
      if not ok then
        error(failure, 0)
      end
    end)
  end

  it("runs command lines and hostile arguments", with({}, function(env)
    local out, err, status = run(env, "echo out; echo err >&2; exit 3")
    assert.same({ "out\n", "err\n", { exit = 3 } }, { out, err, status })
    out, err, status = run(env, {
      argv = { "printf", "%s|", "a b", "", "$(id)", "`id`", "-n", "'\"\n\\", "--", "\255\1" },
    })
    assert.same({ "a b||$(id)|`id`|-n|'\"\n\\|--|\255\1|", "", { exit = 0 } }, { out, err, status })
    local long = ("x"):rep(env.caps.max_command)
    out = run(env, { argv = { "printf", "%s", long } })
    assert.is_true(out == long)
    out, err = run(env, { argv = { "printf", "%s", long .. "x" } })
    assert.is_nil(out)
    assert.same({ "limit", "E2BIG" }, { err.kind, err.code })
    for _, bad in ipairs({
      { argv = { "a\0b" } }, { command = "a\0b" }, { argv = { "a" }, env = { A = "\0" } },
      { argv = { "a" }, env = { ["A=B"] = "x" } }, { argv = { "a" }, cwd = "/\0" },
    }) do
      out, err = run(env, bad)
      assert.same({ n = 2, nil, "usage" }, { n = 2, out, err.kind })
    end
  end))

  it("tells every exit code, and signals apart from them", with({}, function(env)
    for _, code in ipairs({ 0, 1, 2, 125, 126, 127, 128, 137, 255 }) do
      assert.same({ exit = code }, (select(3, run(env, "exit " .. code))))
    end
    assert.same({ signal = 9, name = "KILL" }, (select(3, run(env, "kill -9 $$"))))
    assert.same({ signal = 15, name = "TERM" }, (select(3, run(env, "kill -15 $$"))))
  end))

  it("moves every byte value and 8 MiB through stdin and stdout", with({}, function(env)
    local bytes = {}
    for byte = 0, 255 do
      bytes[#bytes + 1] = string.char(byte)
    end
    local text = table.concat(bytes):rep(8 * 1024 * 1024 / 256)
    local out, _, status = run(env, { argv = { "cat" }, stdin = text })
    assert.same({ exit = 0 }, status)
    assert.is_true(out == text)
    assert.equal("0\n", (run(env, "wc -c")))
  end))

  it("carries on a conversation", with({}, function(env)
    local process = assert(env:start({ argv = { "cat" }, stdin = "pipe" }))
    for _, word in ipairs({ "one", "two" }) do
      assert.is_true(process:write(word))
      local stream, bytes = process:read(100)
      assert.same({ "out", word }, { stream, bytes })
    end
    process:close_stdin()
    assert.same({ "", "", { exit = 0 } }, { drain(process) })
  end))

  it("has an environment of its own, and takes variables as they are",
    with({ env = { OWN = "1" } }, function(env)
      local value = "a 'b' \"c\" $(id) `id` \\n\n,x=y {} \255"
      local out = run(env, { argv = { "printenv", "X" }, env = { X = value } })
      assert.equal(value .. "\n", out)
      out = run(env, { argv = { "env" } })
      assert.is_truthy(out:find("OWN=1", 1, true))
      assert.is_truthy(out:find("LET_ME=in", 1, true))
      assert.is_nil(out:find("s3cret", 1, true))
      assert.is_nil(out:find("OTHER", 1, true))
      assert.equal("/elsewhere\n", (run(env, { command = "echo $HOME",
        env = { HOME = "/elsewhere" } })))
    end, { passthrough = { "LET_ME" } }))

  it("does not show variables to those who list processes", with({}, function(env)
    local secret = "v" .. tostring(math.random(1e9, 2e9))
    local process = assert(env:start({
      command = "echo; cat", stdin = "pipe", env = { SECRET = secret },
    }))
    process:read(10)
    for _, pid in ipairs(fs.list("/proc")) do
      local line = pid:find("^%d+$") and helper.read("/proc/" .. pid .. "/cmdline")
      assert.is_nil(line and line:find(secret, 1, true))
    end
    process:close_stdin()
    drain(process)
  end))

  it("starts in the directory that it was told to", with({ cwd = "/usr" }, function(env)
    assert.equal("/usr\n", (run(env, "pwd")))
    assert.equal("/usr/bin\n", (run(env, { command = "pwd", cwd = "bin" })))
    assert.equal("/\n", (run(env, { command = "pwd", cwd = "/" })))
    local _, err = run(env, { command = "pwd", cwd = "/no/such" })
    assert.equal("exec sh: cannot enter directory /no/such: No such file or directory",
      tostring(err))
  end))

  it("tells why a program could not be started", with({}, function(env)
    local _, err = run(env, { argv = { "/no/such" } })
    assert.same({ "not_found", "ENOENT" }, { err.kind, err.code })
    assert.equal("exec /no/such: No such file or directory", tostring(err))
  end))

  it("is contained: no file, no process of the machine", with({}, function(env)
    local dir = helper.scratch()
    helper.write(dir .. "/file", "x")
    assert.same({ exit = 1 }, (select(3, run(env, { argv = { "test", "-e", dir } }))))
    local here = run(env, "ls /proc | grep -c '^[0-9]'")
    assert.is_true(tonumber(here) < 12)
    assert.same({ exit = 1 },
      (select(3, run(env, { argv = { "test", "-e", suite.SUPERVISOR } }))))
  end))

  it("keeps files between execs, and its own", helper.task(function()
    local backend, options, environ = setup()
    local envs = {}
    for i = 1, 2 do
      envs[i] = assert(backend.open(suite.options(backend, options), suite.context(environ)))
      assert.same({ exit = 0 }, (select(3, run(envs[i], ("echo %d > /tmp/file"):format(i)))))
    end
    for i = 1, 2 do
      assert.equal(i .. "\n", (run(envs[i], "cat /tmp/file")))
    end
    for i = 1, 2 do
      envs[i]:close()
    end
  end))

  it("runs 32 at once beside one that sleeps", with({}, function(env)
    local sleeper = assert(env:start({ command = "exec sleep 1000" }))
    local tasks = {}
    for i = 1, 32 do
      tasks[i] = task.spawn(run, env, { command = "cat; exit " .. i, stdin = "in" .. i })
    end
    for i = 1, 32 do
      local ok, out, _, status = tasks[i]:join()
      assert.same({ true, "in" .. i, { exit = i } }, { ok, out, status })
    end
    sleeper:kill()
    assert.same({ signal = 15, name = "TERM" }, sleeper:wait())
  end))

  it("kills the whole tree, what left its session too", with({ grace = 0.3 }, function(env)
    local process = assert(env:start({
      command = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do date +%N > /tmp/beat; "
        .. "sleep 0.02; done' &); echo up; while :; do sleep 1; done",
    }))
    process:read(10)
    assert(helper.eventually(function()
      return run(env, "cat /tmp/beat") ~= ""
    end))
    process:kill()
    process:kill()
    assert.same({ signal = 9, name = "KILL" }, process:wait())
    assert.same({ exit = 1 }, (select(3, run(env, "rm /tmp/beat; sleep 0.2; test -e /tmp/beat"))))
  end))

  it("lets a script end by itself when it is killed", with({}, function(env)
    local process = assert(env:start({
      command = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done",
    }))
    process:read(10)
    process:kill()
    local out, _, status = drain(process)
    assert.same({ "bye\n", { exit = 7 } }, { out, status })
  end))

  it("ends at its own deadline", with({}, function(env)
    local process = assert(env:start({ command = "exec sleep 1000", timeout = 0.1 }))
    assert.same({ signal = 15, name = "TERM" }, process:wait())
    assert.is_true(process.deadline_passed)
  end))

  it("stops a writer that nobody reads", with({}, function(env)
    local process = assert(env:start({
      command = "i=0; while [ $i -lt 4000 ]; do printf '%01000d' 0; i=$((i + 1)); "
        .. "echo $i > /tmp/count; done",
    }))
    local before
    assert(helper.eventually(function()
      local now = run(env, "cat /tmp/count")
      local same = now ~= "" and now == before
      before = now
      return same
    end))
    assert.is_true(tonumber(before) < 3000)
    assert.equal(4000 * 1000, #(drain(process)))
  end))

  it("leaves nothing when a start is cancelled or the environment closed", with({}, function(env)
    local starter = task.spawn(env.start, env, { argv = { "sleep", "1000" } })
    starter:cancel()
    assert.is_false((starter:join()))
    assert.equal(0, #helper.children())
    local process = assert(env:start({ argv = { "sleep", "1000" } }))
    env:close()
    env:close()
    assert.same({ signal = 15, name = "TERM" }, process:wait())
    assert.is_false(env:alive())
    local _, err = env:start({ argv = { "true" } })
    assert.equal("unavailable", err.kind)
  end))

  it("leaves what is shared until it is reaped", helper.task(function()
    local backend, options, environ, fields = setup()
    if fields then
      local ctx = suite.context(environ, fields)
      local env = assert(backend.open(suite.options(backend, options), ctx))
      env:close()
      for _ = 1, 2 do
        assert.is_true(backend.reap(ctx.name, suite.options(backend), ctx))
      end
    end
  end))

  it("says that the program is missing, and where to get it", helper.task(function()
    local backend, options = setup()
    local env, err = backend.open(suite.options(backend, options),
      suite.context({ PATH = "/no/such" }))
    assert.is_nil(env)
    assert.is_true(errors.is(err))
    assert.equal("not_found", err.kind)
    assert.is_truthy(err.hint:find(name, 1, true))
  end))
end

return suite
