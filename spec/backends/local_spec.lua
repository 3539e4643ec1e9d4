-- SPDX-License-Identifier: MIT
local backend = require("farcall.backends.local")
local build = require("spec.support.build")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local task = require("farcall.task")

local SUPERVISOR = assert(fs.realpath(build.dir)) .. "/farcall-supervisor"

local function open(options, environ)
  local own = { tree = "auto", grace = 0.3, shell = "/bin/sh" }
  for key, value in pairs(options or {}) do
    own[key] = value
  end
  return assert(backend.open(own, {
    environ = environ or { PATH = "/usr/bin:/bin", HOME = "/home/x", API_KEY = "s3cret" },
    passthrough = {}, supervisor = SUPERVISOR, runtime_dir = "/tmp",
  }))
end

-- Reads a process to its end: out, err, status.
local function drain(process)
  local text = { out = {}, err = {} }
  for name, bytes in function()
    return process:read(65536)
  end do
    table.insert(text[name], bytes)
  end
  return table.concat(text.out), table.concat(text.err), process:wait()
end

local function run(env, spec)
  local process, err = env:start(type(spec) == "string" and { command = spec } or spec)
  if not process then
    return nil, err
  end
  return drain(process)
end

-- An `it` with an environment that is closed at the end.
local function with(options, fn, environ)
  return helper.task(function()
    local env = open(options, environ)
    local ok, failure = pcall(fn, env)
    env:close()
    if not ok then
      error(failure, 0)
    end
  end)
end

describe("backend local", function()
  it("has the shape of a backend", function()
    assert.equal("local", backend.name)
    assert.equal(1, backend.api)
    assert.is_true(#backend.summary > 0)
    for name, option in pairs(backend.options) do
      assert.is_string(option.doc, name)
      assert.is_string(option.type, name)
    end
  end)

  it("runs command lines and argument lists", with({}, function(env)
    local out, err, status = run(env, "echo out; echo err >&2; exit 3")
    assert.same({ "out\n", "err\n", { exit = 3 } }, { out, err, status })
    out, err, status = run(env, { argv = { "printf", "%s|", "a b", "", "$(id)", "-n", "'\"\n" } })
    assert.same({ "a b||$(id)|-n|'\"\n|", "", { exit = 0 } }, { out, err, status })
  end))

  it("tells signals apart from exit codes", with({}, function(env)
    assert.same({ signal = 9, name = "KILL" }, (select(3, run(env, "kill -9 $$"))))
    assert.same({ exit = 137 }, (select(3, run(env, "exit 137"))))
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
  end))

  it("gives an empty stdin unless told otherwise, and a pipe when told to", with({}, function(env)
    assert.equal("0\n", (run(env, "wc -c")))
    assert.equal("0\n", (run(env, { command = "wc -c", stdin = "" })))
    local process = assert(env:start({ argv = { "cat" }, stdin = "pipe" }))
    assert.is_true(process:write("one"))
    local _, bytes = process:read(100)
    assert.equal("one", bytes)
    process:close_stdin()
    local written, err = process:write("two")
    assert.is_nil(written)
    assert.is_true(errors.is(err))
    assert.same({ "", "", { exit = 0 } }, { drain(process) })
  end))

  it("notices that a process does not read its stdin", with({}, function(env)
    local process = assert(env:start({ command = "exec <&-; sleep 0.2", stdin = "pipe" }))
    local ok, err
    helper.eventually(function()
      ok, err = process:write(("x"):rep(1000000))
      return not ok
    end)
    assert.is_nil(ok)
    assert.equal("lost", err.kind)
    assert.same({ exit = 0 }, (select(3, drain(process))))
    -- Bytes that nobody reads hold up nothing.
    assert.same({ exit = 0 }, (select(3, run(env, { argv = { "true" }, stdin = ("x"):rep(1e6) }))))
  end))

  it("stops a writer that nobody reads", with({}, function(env)
    local dir = helper.scratch()
    local process = assert(env:start({
      command = "i=0; while [ $i -lt 4000 ]; do printf '%01000d' 0; i=$((i + 1)); echo $i > " .. dir
        .. "/count; done",
    }))
    local before
    assert(helper.eventually(function()
      local now = helper.read(dir .. "/count")
      local same = now and now ~= "" and now == before
      before = now
      task.sleep(0.1)
      return same
    end))
    assert.is_true(tonumber(before) < 1000)
    local out, _, status = drain(process)
    assert.equal(4000 * 1000, #out)
    assert.same({ exit = 0 }, status)
  end))

  it("reads no more than asked for", with({}, function(env)
    local process = assert(env:start({ command = "printf 0123456789; printf abc >&2" }))
    local text = { out = "", err = "" }
    for name, bytes in function()
      return process:read(3)
    end do
      assert.is_true(#bytes <= 3)
      text[name] = text[name] .. bytes
    end
    assert.same({ out = "0123456789", err = "abc" }, text)
    assert.is_nil((process:read(3)))
    process:wait()
  end))

  it("still gives the output when it is read after the end", with({}, function(env)
    local process = assert(env:start({ command = "printf 0123456789; printf abc >&2" }))
    assert.same({ exit = 0 }, process:wait())
    assert.same({ exit = 0 }, process:wait())
    local out, err = drain(process)
    assert.same({ "0123456789", "abc" }, { out, err })
  end))

  it("does not wait for a background child that holds the pipe", with({}, function(env)
    local out, _, status = run(env, "sleep 1000 & (setsid sleep 1000 &); echo done; exit 4")
    assert.same({ "done\n", { exit = 4 } }, { out, status })
  end))

  it("goes on after a script that closes its streams", with({}, function(env)
    local dir = helper.scratch()
    local out, err, status = run(env, "exec <&- >&- 2>&-; sleep 0.1; : > " .. dir .. "/x; exit 5")
    assert.same({ "", "", { exit = 5 } }, { out, err, status })
    assert.is_table(fs.stat(dir .. "/x"))
  end))

  it("kills the whole tree and returns when nothing is left", with({}, function(env)
    local dir = helper.scratch()
    local process = assert(env:start({
      command = ("trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do date +%%N > %s/beat; "
        .. "sleep 0.02; done' &); while :; do sleep 1; done"):format(dir),
    }))
    assert(helper.eventually(function()
      return helper.read(dir .. "/beat")
    end))
    process:kill()
    process:kill()
    assert.same({ signal = 9, name = "KILL" }, process:wait())
    fs.unlink(dir .. "/beat")
    task.sleep(0.1)
    assert.is_nil((fs.stat(dir .. "/beat")))
  end))

  it("kills while somebody reads", with({}, function(env)
    local said = helper.scratch() .. "/said"
    local process = assert(env:start({
      command = ("echo begun; : > %s; exec sleep 1000"):format(said),
    }))
    local reader = task.spawn(drain, process)
    assert(helper.eventually(function()
      return fs.stat(said)
    end))
    process:kill()
    local ok, out, _, status = reader:join()
    assert.same({ true, "begun\n", { signal = 15, name = "TERM" } }, { ok, out, status })
  end))

  it("ends at its own deadline", with({}, function(env)
    local process = assert(env:start({ command = "exec sleep 1000", timeout = 0.1 }))
    assert.same({ signal = 15, name = "TERM" }, process:wait())
    assert.is_true(process.deadline_passed)
  end))

  it("passes a signal on", with({}, function(env)
    local process = assert(env:start({
      command = "trap 'exit 5' INT; echo; while :; do sleep 0.02; done",
    }))
    process:read(10)
    process:signal("INT")
    assert.same({ exit = 5 }, (select(3, drain(process))))
  end))

  it("notices that its supervisor was killed", with({}, function(env)
    local process = assert(env:start({ command = "echo begun; exec sleep 1000" }))
    process:read(10)
    process.child:kill("KILL")
    local status, err = process:wait()
    assert.is_true(status ~= nil and status.signal ~= nil or err ~= nil and err.kind == "lost")
  end))

  it("tells why a program could not be started", with({}, function(env)
    local _, err = run(env, { argv = { "/no/such" } })
    assert.same({ "not_found", "ENOENT" }, { err.kind, err.code })
    assert.equal("exec /no/such: No such file or directory", tostring(err))
    _, err = run(env, { argv = { "true" }, cwd = "/no/such" })
    assert.equal("exec true: cannot enter directory /no/such: No such file or directory",
      tostring(err))
    _, err = run(env, { argv = { "true", ("x"):rep(backend.caps.max_command + 1) } })
    assert.same({ "limit", "E2BIG" }, { err.kind, err.code })
    assert.same({ exit = 0 },
      (select(3, run(env, { argv = { "true", ("x"):rep(backend.caps.max_command) } }))))
    if system.uid() ~= 0 then
      env.options.tree = "pidns"
      _, err = run(env, { argv = { "true" } })
      assert.equal("exec true: trees cannot be held by pidns here", err.op .. ": " .. err.msg)
      assert.matches("farcall doctor", err.hint, 1, true)
      env.options.tree = "auto"
    end
    env.supervisor = "/no/such/supervisor"
    _, err = run(env, { argv = { "true" } })
    assert.equal("unavailable", err.kind)
    env.supervisor = SUPERVISOR
  end))

  it("scrubs the environment", with({ env = { OWN = "1" }, passthrough = { "MY_TOKEN" } },
    function(env)
      local out = run(env, { argv = { "env" }, env = { EXTRA = "x y", HOME = "/other" } })
      local lines = {}
      for line in out:gmatch("[^\n]+") do
        lines[#lines + 1] = line
      end
      table.sort(lines)
      assert.same({ "EXTRA=x y", "HOME=/other", "MY_TOKEN=t", "OWN=1", "PATH=/usr/bin:/bin" },
        lines)
    end,
    { PATH = "/usr/bin:/bin", HOME = "/home/x", API_KEY = "k", MY_TOKEN = "t", OTHER = "o" }))

  it("starts in the directory that it was told to", function()
    local dir = helper.scratch()
    fs.mkdir(dir .. "/sub", 448)
    task.run(function()
      local env = open({ cwd = dir })
      assert.equal(dir, env.cwd)
      assert.equal(dir .. "\n", (run(env, "pwd")))
      assert.equal(dir .. "/sub\n", (run(env, { command = "pwd", cwd = "sub" })))
      assert.equal("/\n", (run(env, { command = "pwd", cwd = "/" })))
      env:close()
      env = open({})
      assert.equal(system.cwd(), env.cwd)
      env:close()
    end)
    assert.is_false((backend.check({ cwd = dir .. "/none" })))
    assert.is_true((backend.check({ cwd = dir })))
  end)

  it("makes a directory of its own and removes it", helper.task(function()
    local env = open({ own_cwd = true })
    local dir = env.cwd
    assert.equal(dir .. "\n", (run(env, "pwd; : > file")))
    assert.equal("directory", fs.stat(dir).type)
    env:close()
    env:close()
    assert.is_nil((fs.stat(dir)))
    assert.is_false(env:alive())
    local _, err = env:start({ argv = { "true" } })
    assert.equal("unavailable", err.kind)
  end))

  it("limits resources", with({ fsize = 4096, nofile = 33, core = 0, umask = 63 }, function(env)
    assert.equal("8\n33\n0\n0077\n", (run(env, "ulimit -f; ulimit -n; ulimit -c; umask")))
    local dir = helper.scratch()
    local status = select(3, run(env, "exec head -c 10000 /dev/zero > " .. dir .. "/big"))
    assert.same({ signal = 25, name = "XFSZ" }, status)
  end))

  it("puts and gets files", with({ own_cwd = true }, function(env)
    local text = ("\0\255"):rep(1000)
    assert.is_true(env:put("a.bin", text, { mode = 384 }))
    assert.equal(text, env:get("a.bin"))
    assert.equal("2000\n", (run(env, "wc -c < a.bin")))
    local _, err = env:get("none")
    assert.equal("not_found", err.kind)
  end))

  it("runs many at once", with({}, function(env)
    local tasks = {}
    for i = 1, 64 do
      tasks[i] = task.spawn(run, env, ("echo %d; exit %d"):format(i, i))
    end
    for i = 1, 64 do
      local ok, out, _, status = tasks[i]:join()
      assert.same({ true, i .. "\n", { exit = i } }, { ok, out, status })
    end
  end))

  it("leaves no process behind when the start is cancelled", with({}, function(env)
    local starter = task.spawn(env.start, env, { argv = { "sleep", "1000" } })
    starter:cancel()
    local ok = starter:join()
    assert.is_false(ok)
    assert.equal(0, #helper.children())
  end))

  it("ends what still runs when it is closed", helper.task(function()
    local env = open({})
    local process = assert(env:start({ argv = { "sleep", "1000" } }))
    env:close()
    assert.same({ signal = 15, name = "TERM" }, process:wait())
  end))

  it("ends what nobody holds any more when it is closed", helper.task(function()
    local env = open({})
    do
      assert(env:start({ argv = { "sleep", "1000" } }))
    end
    collectgarbage()
    assert.equal(1, #helper.children())
    env:close()
    assert.equal(0, #helper.children())
  end))
end)
