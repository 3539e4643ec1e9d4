-- SPDX-License-Identifier: MIT
local backend = require("farcall.backends.docker")
local docker = require("spec.support.docker")
local errors = require("farcall.errors")
local helper = require("spec.helper")
local system = require("farcall.core.system")
local task = require("farcall.task")
local ffi = require("ffi")

ffi.cdef("int seteuid(unsigned user);")

local DEBIAN, BUSYBOX = "farcall-spec/debian", "farcall-spec/busybox"

local function unique()
  return "farcall-spec-" .. (system.random(8):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

local function context(name, key)
  return {
    name = name or unique(), key = key, environ = {}, passthrough = {}, runtime_dir = "/tmp",
    engine = "spec", labels = {
      ["farcall.engine"] = "spec", ["farcall.created"] = "1", ["farcall.key"] = key,
    },
  }
end

local function options(own)
  local all = {}
  for name, option in pairs(backend.options) do
    all[name] = option.default
  end
  all.image = not (own and own.attach) and DEBIAN or nil
  for name, value in pairs(own or {}) do
    all[name] = value
  end
  return all
end

local function open(own, ctx)
  return backend.open(options(own), ctx or context())
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

-- The body of an `it` with an environment that is closed at the end.
local function with(own, fn)
  return helper.task(function()
    local env = assert(open(own))
    local ok, failure = pcall(fn, env)
    local closed, err = env:close()
    local census = task.loop():census()
    if not ok then
      error(failure, 0)
    end
    assert.is_nil(err)
    assert.is_true(closed)
    assert.same({ 0, 0 }, { census.fds, census.timers })
    assert.is_false(docker.exists(env.name))
  end)
end

local function refused(own, ctx)
  local env, err = open(own, ctx)
  assert.is_nil(env)
  assert.is_true(errors.is(err))
  return err
end

local function every_byte()
  local bytes = {}
  for i = 0, 255 do
    bytes[#bytes + 1] = string.char(i)
  end
  return table.concat(bytes)
end

describe("backend docker", function()
  docker.setup()

  it("runs command lines and argument lists", with({}, function(env)
    local out, err, status = run(env, "echo out; echo err >&2; exit 3")
    assert.same({ "out\n", "err\n", { exit = 3 } }, { out, err, status })
    out, err, status = run(env, { argv = { "printf", "%s|", "a b", "", "$(id)", "-n", "'\"\n" } })
    assert.same({ "a b||$(id)|-n|'\"\n|", "", { exit = 0 } }, { out, err, status })
    out = run(env, {
      command = "echo \"$A\"; pwd", env = { A = "x y" }, cwd = "/usr/bin",
    })
    assert.equal("x y\n/usr/bin\n", out)
  end))

  it("brings hostile arguments through, UTF-8 or not", with({}, function(env)
    local words = {
      every_byte():sub(2), "\255\n\n", "%s\\n", "\237\160\128", "\226\128\168", "=x", "~", "",
      ("\255"):rep(30000),
    }
    local out, _, status = run(env, { argv = { "printf", "%s\\001", unpack(words) } })
    assert.same({ exit = 0 }, status)
    assert.is_true(out == table.concat(words, "\1") .. "\1")
    local long = ("x"):rep(backend.caps.max_command)
    out = run(env, { argv = { "printf", "%s", long } })
    assert.is_true(out == long)
    local none, err = env:start({ argv = { "printf", ("\255"):rep(100000) } })
    assert.is_nil(none)
    assert.same({ "limit", "E2BIG" }, { err.kind, err.code })
  end))

  it("knows every exit code, and guesses no signal", with({ image = BUSYBOX }, function(env)
    for _, code in ipairs({ 0, 1, 2, 77, 126, 127, 128, 137, 143, 255 }) do
      assert.same({ exit = code }, (select(3, run(env, "exit " .. code))))
    end
    assert.same({ exit = 137 }, (select(3, run(env, "kill -9 $$"))))
  end))

  it("moves every byte value and 8 MiB through stdin and stdout", with({}, function(env)
    local bytes = every_byte():rep(32768)
    local out, err, status = run(env, { argv = { "cat" }, stdin = bytes })
    assert.is_true(out == bytes)
    assert.same({ "", { exit = 0 } }, { err, status })
    out, err, status = run(env, { command = "cat >&2", stdin = bytes })
    assert.is_true(err == bytes)
    assert.same({ "", { exit = 0 } }, { out, status })
  end))

  it("talks with a process", with({ image = BUSYBOX }, function(env)
    local process = assert(env:start({ argv = { "cat" }, stdin = "pipe" }))
    for i = 1, 20 do
      assert(process:write("line " .. i .. "\n"))
      assert.same({ "out", "line " .. i .. "\n" }, { process:read(1000) })
    end
    process:close_stdin()
    process:close_stdin()
    assert.is_nil((process:read(1000)))
    assert.same({ exit = 0 }, process:wait())
    assert.same({ exit = 0 }, process:wait())
    local none, err = process:write("x")
    assert.is_nil(none)
    assert.equal("lost", err.kind)
  end))

  it("gives an empty standard input unless told otherwise", with({ image = BUSYBOX },
    function(env)
      assert.equal("0\n", (run(env, "wc -c")))
      assert.equal("0\n", (run(env, { command = "wc -c", stdin = "" })))
      assert.equal("3\n", (run(env, { command = "wc -c", stdin = "abc" })))
    end))

  it("goes on when a process does not read its input", with({ image = BUSYBOX }, function(env)
    local out, _, status = run(env, { command = "echo done", stdin = ("x"):rep(8388608) })
    assert.same({ "done\n", { exit = 0 } }, { out, status })
  end))

  it("stops a writer whom nobody reads", with({ image = BUSYBOX }, function(env)
    local process = assert(env:start({
      command = "i=0; while i=$((i+1)) && [ $i -le 2000 ]; do"
        .. " head -c 32768 /dev/zero; echo $i > /tmp/count; done",
    }))
    local function count()
      return tonumber((run(env, "cat /tmp/count"))) or 0
    end
    local before, now = -1, 0
    -- It stands still once the buffers in between are full.
    assert.is_true(helper.eventually(function()
      before, now = now, count()
      task.sleep(0.3)
      return now > 0 and now == before
    end, 20))
    assert.is_true(now < 500)
    local size = 0
    for _, bytes in function()
      return process:read(100000)
    end do
      size = size + #bytes
    end
    assert.equal(2000 * 32768, size)
    assert.same({ exit = 0 }, process:wait())
  end))

  it("runs many at once", with({}, function(env)
    local tasks = {}
    for i = 1, 32 do
      tasks[i] = task.spawn(function()
        return run(env, { argv = { "sh", "-c", "sleep 0.3; echo $0; cat", "n" .. i },
          stdin = ("%d."):format(i):rep(1000) })
      end)
    end
    for i, one in ipairs(tasks) do
      local _, out, err, status = one:join()
      assert.same({ "n" .. i .. "\n" .. ("%d."):format(i):rep(1000), "", { exit = 0 } },
        { out, err, status })
    end
  end))

  it("says what cannot be started, as an error of start", with({}, function(env)
    local function failure(spec)
      local process, err = env:start(spec)
      assert.is_nil(process)
      return { err.kind, err.code }
    end
    assert.same({ "not_found", "ENOENT" }, failure({ argv = { "no-such-program" } }))
    assert.same({ "not_found", "ENOENT" }, failure({ argv = { "/no/such/program" } }))
    assert.same({ "denied", "EACCES" }, failure({ argv = { "/etc/passwd" } }))
    assert.same({ "not_found", "ENOENT" }, failure({ argv = { "ls" }, cwd = "/no/such" }))
    assert.same({ "not_found", "ENOTDIR" }, failure({ argv = { "ls" }, cwd = "/etc/passwd" }))
    -- What only looks like it is a result.
    local out, _, status = run(env, "echo 'OCI runtime exec failed: not found'; exit 127")
    assert.same({ "OCI runtime exec failed: not found\n", { exit = 127 } }, { out, status })
    assert.is_true(env:alive())
  end))

  it("lets go of what is killed", with({ image = BUSYBOX }, function(env)
    local process = assert(env:start({ argv = { "sleep", "1000" } }))
    process:kill()
    process:kill()
    assert.is_nil((process:read(10)))
    local status, err = process:wait()
    assert.is_nil(status)
    assert.equal("cancelled", err.kind)
    assert.is_true(env:alive())
    assert.equal("ok\n", (run(env, "echo ok")))
  end))

  it("wakes readers, writers and waiters when it lets go", with({ image = BUSYBOX },
    function(env)
      local process = assert(env:start({ argv = { "sleep", "1000" }, stdin = "pipe" }))
      local reader = task.spawn(process.read, process, 10)
      local writer = task.spawn(process.write, process, ("x"):rep(64 * 1024 * 1024))
      local waiter = task.spawn(process.wait, process)
      task.sleep(0.2)
      process:kill()
      assert.same({ true }, { reader:join() })
      local _, none, err = writer:join()
      assert.is_nil(none)
      assert.equal("lost", err.kind)
      _, none, err = waiter:join()
      assert.is_nil(none)
      assert.equal("cancelled", err.kind)
    end))

  it("survives being cancelled anywhere", with({ image = BUSYBOX }, function(env)
    for _, seconds in ipairs({ 0, 0.001, 0.005, 0.02, 0.05, 0.1 }) do
      local one = task.spawn(run, env, { argv = { "cat" }, stdin = "pipe" })
      task.sleep(seconds)
      one:cancel()
      one:join()
    end
    local opening = task.spawn(open, { image = BUSYBOX }, context("farcall-spec-cancelled"))
    task.sleep(0.03)
    opening:cancel()
    assert.is_false((opening:join()))
    assert.is_false(docker.exists("farcall-spec-cancelled"))
    assert.equal("ok\n", (run(env, "echo ok")))
  end))

  describe("when the container goes", function()
    for what, line in pairs({
      ["is removed"] = "rm -f ", ["is stopped"] = "stop -t 0 ", ["is killed"] = "kill ",
    }) do
      it(what .. " in the middle of an exec, says lost", with({ image = BUSYBOX }, function(env)
        local process = assert(env:start({ argv = { "sleep", "1000" } }))
        docker.cli(line .. env.name)
        local _, _, status, err = drain(process)
        assert.is_nil(status)
        assert.equal("lost", err.kind)
        assert.is_false(env:alive())
        local none, again = env:start({ argv = { "true" } })
        assert.is_nil(none)
        assert.equal("lost", again.kind)
      end))
    end

    it("notices at the next start that it is gone", with({ image = BUSYBOX }, function(env)
      assert.is_true(env:alive())
      docker.cli("rm -f " .. env.name)
      local none, err = env:start({ argv = { "true" } })
      assert.is_nil(none)
      assert.equal("lost", err.kind)
      assert.is_false(env:alive())
    end))
  end)

  for what, signal in pairs({ ["is restarted"] = "TERM", ["dies"] = "KILL" }) do
    it("says lost when the engine " .. what .. " in the middle of an exec", helper.task(function()
      local engine = docker.own()
      local own = { image = BUSYBOX, socket = engine.socket }
      local ok, failure = pcall(function()
        local name = unique()
        local env = assert(open(own, context(name, "key")))
        local process = assert(env:start({ argv = { "sleep", "1000" }, stdin = "pipe" }))
        local waiter = task.spawn(process.wait, process)
        engine.stop(signal)
        local _, status, err = waiter:join()
        assert.is_nil(status)
        assert.equal("lost", err.kind)
        assert.is_false(env:alive())
        local none
        none, err = env:start({ argv = { "true" } })
        assert.is_nil(none)
        assert.equal("unavailable", err.kind)
        assert.is_true(env:close())
        engine.start()
        -- The same environment again: started anew.
        env = assert(open(own, context(name, "key")))
        assert.equal("ok\n", (run(env, "echo ok")))
        env:close()
      end)
      engine.close()
      if not ok then
        error(failure, 0)
      end
    end))
  end

  it("says what it could not remove", helper.task(function()
    local engine = docker.own()
    local own = { image = BUSYBOX, socket = engine.socket }
    local ok, failure = pcall(function()
      local env = assert(open(own))
      engine.stop("TERM")
      local none, err = env:close()
      assert.is_nil(none)
      assert.equal("unavailable", err.kind)
      engine.start()
      assert.is_true(backend.reap(env.name, options(own), context()))
    end)
    engine.close()
    if not ok then
      error(failure, 0)
    end
  end))

  describe("hardening", function()
    it("leaves no capabilities and no way to more", with({}, function(env)
      local out = run(env, "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status")
      for _, set in ipairs({ "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" }) do
        assert.is_truthy(out:find(set .. ":\t0000000000000000\n", 1, true), out)
      end
      assert.is_truthy(out:find("NoNewPrivs:\t1\n", 1, true), out)
      assert.is_truthy(out:find("Seccomp:\t2\n", 1, true), out)
      local _, _, status = run(env, "chown 1 /etc/passwd || mount -t tmpfs x /mnt")
      assert.is_true(status.exit ~= 0)
    end))

    it("has no network but the loopback", with({ image = BUSYBOX }, function(env)
      assert.equal("lo\n", (run(env, "ls /sys/class/net")))
    end))

    it("bounds memory, processors and processes", with({
      image = BUSYBOX, memory = 64 * 2 ^ 20, cpus = 0.5, pids = 20,
    }, function(env)
      local out = docker.cli("inspect -f '{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}}"
        .. " {{.HostConfig.CpuPeriod}} {{.HostConfig.PidsLimit}}' " .. env.name)
      assert.equal("67108864 50000 100000 20", out)
      local _, err, status = run(env, "for i in $(seq 40); do sleep 5 & done")
      assert.is_true(status.exit ~= 0)
      assert.is_truthy(err:find("can't fork", 1, true), err)
    end))

    it("reaps what processes leave behind", with({ image = BUSYBOX }, function(env)
      run(env, "for i in 1 2 3; do (sleep 0.1 &) ; done")
      assert.is_true(helper.eventually(function()
        return not run(env, "cat /proc/[0-9]*/stat"):find(" Z ", 1, true)
          and not run(env, "ps"):find("sleep 0.1", 1, true)
      end))
    end))

    it("is what the options say", with({
      image = BUSYBOX, read_only = true, user = "65534:65534", cap_add = { "NET_RAW" },
      env = { A = "1 2" }, cwd = "/etc", binds = { "/etc:/hostetc:ro" },
      tmpfs = { "/tmp:size=1m", "/scratch" }, network = "on", new_privileges = true,
    }, function(env)
      local out = run(env, "id -u; pwd; echo \"$A\"; touch /x 2>&1; touch /tmp/y && echo tmp;"
        .. " touch /scratch/z && echo scratch; [ -f /hostetc/hostname ] && echo bind;"
        .. " ls /sys/class/net | wc -l; grep -E 'CapBnd|NoNewPrivs' /proc/self/status")
      assert.equal("65534\n/etc\n1 2\ntouch: /x: Read-only file system\ntmp\nscratch\nbind\n2\n"
        .. "CapBnd:\t0000000000002000\nNoNewPrivs:\t0\n", out)
    end))

    it("cannot see another environment", helper.task(function()
      local one, other = assert(open({ image = BUSYBOX })), assert(open({ image = BUSYBOX }))
      run(one, "echo secret > /tmp/file")
      local process = assert(one:start({ argv = { "sleep", "777" } }))
      assert.equal("", (run(other, "cat /tmp/file 2>/dev/null; ps | grep '[7]77'")))
      process:kill()
      one:close()
      other:close()
    end))
  end)

  describe("ownership", function()
    it("removes what is private, once", helper.task(function()
      local env = assert(open({ image = BUSYBOX }))
      assert.is_true(docker.exists(env.name))
      assert.equal("spec", (docker.cli(
        "inspect -f '{{index .Config.Labels \"farcall.engine\"}}' " .. env.name)))
      assert.is_true(env:close())
      assert.is_true(env:close())
      assert.is_false(docker.exists(env.name))
      assert.is_false(env:alive())
      local none, err = env:start({ argv = { "true" } })
      assert.is_nil(none)
      assert.equal("unavailable", err.kind)
    end))

    it("makes what has a key once, for all who ask at the same time, and leaves it",
      helper.task(function()
        local name = unique()
        local tasks = {}
        for i = 1, 6 do
          tasks[i] = task.spawn(open, { image = BUSYBOX }, context(name, "shared"))
        end
        local ids = {}
        for i, one in ipairs(tasks) do
          local _, env, err = one:join()
          assert.is_nil(err)
          ids[env.id] = true
          run(env, "echo " .. i .. " >> /tmp/visits")
          env:close()
        end
        assert.is_truthy(next(ids))
        assert.is_nil(next(ids, (next(ids))))
        local env = assert(open({ image = BUSYBOX }, context(name, "shared")))
        assert.equal("6\n", (run(env, "wc -l < /tmp/visits")))
        env:close()
        -- Stopped by somebody: started again.
        docker.cli("kill " .. name)
        env = assert(open({ image = BUSYBOX }, context(name, "shared")))
        assert.equal("ok\n", (run(env, "echo ok")))
        env:close()
        assert.equal("denied", refused({ image = BUSYBOX }, context(name, "another")).kind)
        assert.is_true(docker.exists(name))
        assert.is_true(backend.reap(name, options(), context()))
        assert.is_true(backend.reap(name, options(), context()))
        assert.is_false(docker.exists(name))
      end))

    it("visits what it is attached to", helper.task(function()
      local name = unique()
      docker.cli("run -d --name " .. name .. " " .. BUSYBOX .. " sleep 1000")
      local env = assert(open({ attach = name }, context()))
      assert.equal("ok\n", (run(env, "echo ok")))
      assert.equal(name, env.name)
      env:close()
      env = assert(open({
        attach = name, user = "65534", cwd = "/etc", env = { A = "1", B = "2" },
      }, context()))
      assert.equal("65534 /etc 1 3\n", (run(env, {
        command = "echo $(id -u) $(pwd) $A $B", env = { B = "3" },
      })))
      env:close()
      assert.equal("true", (docker.cli("inspect -f '{{.State.Running}}' " .. name)))
      -- Not farcall's: reap refuses it, list does not name it.
      local none, err = backend.reap(name, options(), context())
      assert.is_nil(none)
      assert.equal("denied", err.kind)
      for _, item in ipairs(assert(backend.list(options(), context()))) do
        assert.is_true(item.name ~= name)
      end
      docker.cli("kill " .. name)
      assert.equal("unavailable", refused({ attach = name }).kind)
      docker.cli("rm " .. name)
      assert.equal("not_found", refused({ attach = name }).kind)
    end))

    it("lists what it has made", helper.task(function()
      local env = assert(open({ image = BUSYBOX }))
      local found
      for _, item in ipairs(assert(backend.list(options(), context()))) do
        found = found or item.name == env.name and item
      end
      assert.equal("1", found.labels["farcall.created"])
      env:close()
    end))
  end)

  describe("says why it cannot be opened:", function()
    it("no image", helper.task(function()
      local err = refused({ image = "no-such-image" })
      assert.same({ "not_found", "NOIMAGE" }, { err.kind, err.code })
    end))

    it("no daemon", helper.task(function()
      local err = refused({ socket = "/nowhere/docker.sock" })
      assert.same({ "unavailable", "ENOENT" }, { err.kind, err.code })
      assert.is_truthy(err.hint:find("socket", 1, true))
      err = refused({ socket = "tcp://127.0.0.1:1" })
      assert.same({ "unavailable", "ECONNREFUSED" }, { err.kind, err.code })
      assert.equal("config", refused({ socket = "docker" }).kind)
    end))

    it("no right to use it", helper.task(function()
      -- As long as the connection is made, somebody else.
      assert.equal(0, ffi.C.seteuid(65534))
      local ok, err = pcall(refused, {})
      assert.equal(0, ffi.C.seteuid(0))
      assert.is_true(ok, err)
      assert.same({ "denied", "EACCES" }, { err.kind, err.code })
    end))

    it("options that make no sense", helper.task(function()
      assert.is_false((backend.check({})))
      assert.is_false((backend.check({ image = "a", attach = "b" })))
      assert.is_true(backend.check({ image = "a" }))
      local name = unique()
      local err = refused({ network = "no-such-network" }, context(name))
      assert.is_truthy(err.msg:find("no-such-network", 1, true))
      assert.is_false(docker.exists(name))
    end))
  end)

  describe("with Podman's service", function()
    local pipe = assert(io.popen("sh spec/testbed/podman.sh"))
    local own = {
      socket = pipe:read("*l") .. "/podman.sock", image = "localhost/" .. DEBIAN,
    }
    pipe:close()

    local function with_podman(fn)
      return helper.task(function()
        local env = assert(open(own))
        local ok, failure = pcall(fn, env)
        local closed, err = env:close()
        if not ok then
          error(failure, 0)
        end
        assert.is_nil(err)
        assert.is_true(closed)
      end)
    end

    it("runs commands", with_podman(function(env)
      for _, code in ipairs({ 0, 1, 126, 127, 255 }) do
        local out, err, status = run(env, "echo out; echo err >&2; exit " .. code)
        assert.same({ "out\n", "err\n", { exit = code } }, { out, err, status })
      end
      local bytes = every_byte():rep(4096)
      local out, err, status = run(env, { argv = { "cat" }, stdin = bytes })
      assert.is_true(out == bytes)
      assert.same({ "", { exit = 0 } }, { err, status })
      out = run(env, { argv = { "sh", "-c", "echo $A; pwd" }, env = { A = "b" }, cwd = "/usr" })
      assert.equal("b\n/usr\n", out)
      assert.is_truthy(run(env, "grep CapBnd /proc/self/status"):find("0000000000000000", 1, true))
    end))

    it("says what cannot be started", with_podman(function(env)
      for _ = 1, 3 do
        local none, err = env:start({ argv = { "no-such-program" } })
        assert.is_nil(none)
        assert.same({ "not_found", "ENOENT" }, { err.kind, err.code })
      end
      assert.is_true(env:alive())
    end))

    it("says lost when the container goes", with_podman(function(env)
      local process = assert(env:start({ argv = { "sleep", "1000" } }))
      assert.is_true(backend.reap(env.name, options(own), context()))
      local _, _, status, err = drain(process)
      assert.is_nil(status)
      assert.equal("lost", err.kind)
      assert.is_false(env:alive())
    end))

    it("shares what has a key, and lists it", helper.task(function()
      local name = unique()
      for i = 1, 2 do
        local env = assert(open(own, context(name, "shared")))
        assert.equal(i .. "\n", (run(env, "echo x >> /tmp/n; wc -l < /tmp/n")))
        env:close()
      end
      local found
      for _, item in ipairs(assert(backend.list(options(own), context()))) do
        found = found or item.name == name
      end
      assert.is_true(found)
      assert.is_true(backend.reap(name, options(own), context()))
      assert.equal("not_found", refused({ socket = own.socket, image = "no-such" }).kind)
    end))
  end)

  it("leaves nothing when opened and closed again and again", helper.task(function()
    for _ = 1, 5 do
      local env = assert(open({ image = BUSYBOX }))
      run(env, { argv = { "cat" }, stdin = "x" })
      env:close()
    end
    local census = task.loop():census()
    assert.same({ 0, 0 }, { census.fds, census.timers })
    assert.equal("", (docker.cli("ps -aq --filter label=farcall.engine=spec")))
  end))
end)
