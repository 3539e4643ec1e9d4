-- SPDX-License-Identifier: MIT
local build = require("spec.support.build")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local openssh = require("farcall.clients.openssh")
local sshd = require("spec.support.sshd")
local system = require("farcall.core.system")
local task = require("farcall.task")

local BUILD = assert(fs.realpath(build.dir))
local SUPERVISOR = BUILD .. "/farcall-supervisor"

local ALL = {}
for i = 0, 255 do
  ALL[#ALL + 1] = string.char(i)
end
ALL = table.concat(ALL)

describe("openssh", function()
  local server, session, runtime

  local function options(extra)
    local own = server:options({
      config = "none", environ = { PATH = "/usr/bin:/bin", HOME = server.dir },
      runtime_dir = runtime, supervisor = SUPERVISOR,
    })
    for key, value in pairs(extra or {}) do
      own[key] = value
    end
    return own
  end

  -- The body of a test with a server, and with a session unless extra is false. Nothing may be left
  -- of the session where it had its socket.
  local function with(lines, extra, body)
    return helper.task(function()
      server, runtime = sshd.start(lines), helper.scratch()
      if extra then
        session = assert(openssh.connect(options(extra)))
      end
      local ok, failure = pcall(body)
      if session then
        session:close()
        session = nil
      end
      server:stop()
      if not ok then
        error(failure, 0)
      end
      assert.same({}, fs.list(runtime))
    end)
  end

  local function refused(extra)
    local made, err = openssh.connect(options(extra))
    if made then
      made:close()
    end
    assert.is_nil(made)
    assert.is_true(errors.is(err))
    assert.same({}, fs.list(runtime))
    assert.same({}, helper.children())
    return err
  end

  local function kind_and_code(extra)
    local err = refused(extra)
    return { err.kind, err.code }
  end

  describe("runs commands", function()
    it("with all byte values, 64 MiB both ways", with(nil, {}, function()
      local bytes = ALL:rep(262144)
      local out, err, status = sshd.command(session, "cat", bytes)
      assert.is_true(out == bytes)
      assert.equal("", err)
      assert.same({ exit = 0 }, status)
    end))

    it("while keys are exchanged anew", with("RekeyLimit 256K\nKexAlgorithms curve25519-sha256",
      {}, function()
      assert.equal(1048576, #sshd.command(session, "head -c 1048576 /dev/zero"))
      assert.equal("1048576\n", (sshd.command(session, "wc -c", ("x"):rep(1048576))))
      local bytes = ALL:rep(2048)
      sshd.together(3, function()
        assert.is_true(sshd.command(session, "cat", bytes) == bytes)
      end)
    end))

    it("with stderr apart, exit codes and signals as they are", with(nil, {}, function()
      local out, err, status = sshd.command(session, "echo out; echo err >&2; exit 7")
      assert.same({ "out\n", "err\n", { exit = 7 } }, { out, err, status })
      for _, code in ipairs({ 0, 1, 126, 127, 128, 137, 254, 255 }) do
        assert.same({ exit = code }, select(3, sshd.command(session, "exit " .. code)))
      end
      assert.same({ signal = 9, name = "KILL" },
        select(3, sshd.command(session, "kill -KILL $$")))
      assert.same({ signal = 15, name = "TERM" },
        select(3, sshd.command(session, "kill -TERM $$")))
      assert.is_true(session:alive())
    end))

    it("with an empty input, a pipe, or bytes", with(nil, {}, function()
      assert.equal("0\n", (sshd.command(session, "wc -c")))
      assert.equal("0\n", (sshd.command(session, "wc -c", "null")))
      assert.equal("3\n", (sshd.command(session, "wc -c", "abc")))
      local process = assert(session:start({ command = "cat", stdin = "pipe" }))
      for i = 1, 20 do
        local word = ("line %d\n"):format(i)
        assert.is_true(process:write(word))
        assert.same({ "out", word }, { process:read(100) })
      end
      process:close_stdin()
      process:close_stdin()
      assert.same({ exit = 0 }, process:wait())
      assert.is_nil((process:write("late")))
    end))

    it("that do not read what is written to them", with(nil, {}, function()
      local process = assert(session:start({ command = "exit 3", stdin = "pipe" }))
      local ok, err
      repeat
        ok, err = process:write(("x"):rep(262144))
      until not ok
      assert.equal("lost", err.kind)
      assert.equal("EPIPE", err.code)
      assert.same({ exit = 3 }, process:wait())
      -- Also when the reading ends before the command does.
      process = assert(session:start({
        command = "exec 0<&-; sleep 0.3; echo on", stdin = "pipe",
      }))
      repeat
        ok, err = process:write(("x"):rep(262144))
      until not ok
      assert.equal("EPIPE", err.code)
      assert.same({ "on\n", "", { exit = 0 } }, { sshd.finish(process) })
    end))

    it("as long as a word over there may be, and not longer", with(nil, {}, function()
      local line = "echo '" .. ("x"):rep(openssh.max_command - 7) .. "'"
      assert.equal(#line - 6, #sshd.command(session, line))
      local process, err = session:start({ command = line .. " " })
      assert.is_nil(process)
      assert.same({ "limit", "E2BIG" }, { err.kind, err.code })
      assert.has_error(function()
        session:start({ command = "echo a\0b" })
      end)
      assert.equal("on\n", (sshd.command(session, "echo on")))
    end))

    it("and only those: no words of ssh, none of the server", with(nil, false, function()
      helper.write(server.dir .. "/banner", "Connection refused\nPermission denied (x)\n")
      helper.write(server.dir .. "/config", helper.read(server.dir .. "/config")
        .. "Banner " .. server.dir .. "/banner\n")
      sshd.run("kill -HUP " .. server.pid)
      assert(helper.eventually(function()
        return (helper.read(server.dir .. "/log") or ""):find("Received SIGHUP")
      end))
      assert(helper.eventually(function()
        session = openssh.connect(options())
        return session
      end))
      assert.same({ "out\n", "", { exit = 255 } },
        { sshd.command(session, "echo out; exit 255") })
    end))
  end)

  describe("runs many at once", function()
    it("64 with 1 MiB of input each", with(nil, {}, function()
      local bytes = ALL:rep(4096)
      sshd.together(64, function()
        local out, _, status = sshd.command(session, "cat", bytes)
        assert.is_true(out == bytes)
        assert.same({ exit = 0 }, status)
      end)
      assert.same({ open = 0, queued = 0 }, session:census())
    end))

    it("more than the server allows sessions, each once", with("MaxSessions 10", {}, function()
      sshd.together(32, function(i)
        local out, err, status = sshd.command(session,
          ("sleep 0.2; echo %d | tee -a %s/ran"):format(i, server.dir))
        assert.same({ i .. "\n", "", { exit = 0 } }, { out, err, status })
      end)
      assert.same({ open = 0, queued = 0 }, session:census())
      local _, count = helper.read(server.dir .. "/ran"):gsub("\n", "")
      assert.equal(32, count)
      -- All over one connection.
      local _, logins = sshd.run("grep -c 'Connection from\\|Accepted' " .. server.dir
        .. "/log || true"):gsub("1", "")
      assert.is_true(logins <= 1)
    end))

    it("but not on a server that opens none", with("MaxSessions 0", {}, function()
      local process, err = session:start({ command = "true" })
      assert.is_nil(process)
      assert.equal("unavailable", err.kind)
      assert.equal("REFUSED", err.code)
    end))

    it("after some were given up", with("MaxSessions 3", {}, function()
      local held = {}
      for i = 1, 3 do
        held[i] = assert(session:start({ command = "cat", stdin = "pipe" }))
      end
      local waiting = task.spawn(session.start, session, { command = "echo never" })
      assert(helper.eventually(function()
        return session:census().queued == 1
      end))
      waiting:cancel()
      assert.is_false(waiting:join())
      assert.equal(0, session:census().queued)
      local late = task.spawn(sshd.command, session, "echo late")
      held[2]:kill()
      held[2]:kill()
      assert.equal("CLOSED", select(2, held[2]:wait()).code)
      local _, out = late:join()
      assert.equal("late\n", out)
      held[1]:close_stdin()
      held[3]:close_stdin()
      assert.same({ exit = 0 }, held[1]:wait())
      assert.same({ exit = 0 }, held[3]:wait())
    end))

    it("after one that was let go and runs on for a while", with("MaxSessions 2", {}, function()
      for _ = 1, 2 do
        assert(session:start({ command = "sleep 1.5" })):kill()
      end
      assert.equal("on\n", (sshd.command(session, "echo on")))
      sshd.together(4, function(i)
        assert.equal(i .. "\n", (sshd.command(session, "echo " .. i)))
      end)
    end))

    it("also when starts are cancelled on their way", with("MaxSessions 4", {}, function()
      for _ = 1, 10 do
        local starts = {}
        for i = 1, 8 do
          starts[i] = task.spawn(session.start, session, { command = "true" })
        end
        for i = 1, 8, 2 do
          starts[i]:cancel()
        end
        for i = 2, 8, 2 do
          local ok, process = starts[i]:join()
          assert.is_true(ok)
          assert.same({ exit = 0 }, process:wait())
        end
      end
      assert(helper.eventually(function()
        return session:census().open == 0
      end))
    end))
  end)

  describe("holds back", function()
    it("a writer whose reader stops", with(nil, {}, function()
      local script = "i=0; while [ $i -lt 64 ]; do head -c 1048576 /dev/zero; i=$((i+1)); "
        .. "echo $i > " .. server.dir .. "/count; done"
      local process = assert(session:start({ command = script }))
      -- Until nothing moves any more.
      local last = -1
      assert(helper.eventually(function()
        local count = helper.read(server.dir .. "/count") or "0"
        task.sleep(0.3)
        local same = count == last and tonumber(count) ~= nil
        last = count
        return same
      end, 60))
      assert.is_true(tonumber(last) < 16)
      -- Others go on meanwhile.
      assert.equal("still\n", (sshd.command(session, "echo still")))
      assert.equal(67108864, #sshd.finish(process))
    end))

    it("our writing when the command does not read", with(nil, {}, function()
      local process = assert(session:start({ command = "exec sleep 1000", stdin = "pipe" }))
      local written = 0
      local writer = task.spawn(function()
        while process:write(("x"):rep(1048576)) do
          written = written + 1
        end
      end)
      task.sleep(0.5)
      assert.is_true(written < 16)
      assert.equal("still\n", (sshd.command(session, "echo still")))
      process:kill()
      writer:join()
      assert.equal("lost", select(2, process:wait()).kind)
      sshd.run("pkill -P " .. table.concat(server:pids(), ",") .. " sleep || true")
    end))
  end)

  describe("ends", function()
    local function all_are_lost(cause)
      local processes = {}
      for i = 1, 8 do
        processes[i] = assert(session:start({ command = "echo here; cat", stdin = "pipe" }))
        assert.same({ "out", "here\n" }, { processes[i]:read(100) })
      end
      local waiting = task.spawn(processes[1].read, processes[1], 100)
      cause()
      for _, process in ipairs(processes) do
        local status, err = process:wait()
        assert.is_nil(status)
        assert.equal("lost", err.kind)
        assert.is_nil(process:read(10))
        assert.is_nil((process:write("x")))
      end
      assert.is_true(waiting:join())
      assert.is_false(session:alive())
      local process, err = session:start({ command = "true" })
      assert.is_nil(process)
      assert.equal("lost", err.kind)
    end

    it("all processes when the server dies", with(nil, {}, function()
      all_are_lost(function()
        server:kill()
      end)
    end))

    it("all processes when the master dies", with(nil, {}, function()
      all_are_lost(function()
        local supervisor = helper.children()[1]
        sshd.run("kill -9 " .. helper.children(supervisor)[1])
      end)
    end))

    it("also those that wait for their turn", with("MaxSessions 1", {}, function()
      assert(session:start({ command = "cat", stdin = "pipe" }))
      local waiting = task.spawn(session.start, session, { command = "true" })
      assert(helper.eventually(function()
        return session:census().queued == 1
      end))
      server:kill()
      local _, process, err = waiting:join()
      assert.is_nil(process)
      assert.equal("lost", err.kind)
    end))

    it("when it is closed, twice", with(nil, {}, function()
      local process = assert(session:start({ command = "cat", stdin = "pipe" }))
      session:close()
      session:close()
      assert.is_false(session:alive())
      assert.equal("lost", select(2, process:wait()).kind)
      process:kill()
      assert.same({}, fs.list(runtime))
      assert.same({}, helper.children())
    end))

    it("when the link stalls and nothing is answered", with(nil, false, function()
      local relay = server:relay()
      helper.write(server.dir .. "/known_hosts",
        (server:known_line():gsub(":%d+", ":" .. relay.port, 1)))
      session = assert(openssh.connect(options({ port = relay.port, keepalive = 1 })))
      local process = assert(session:start({ command = "cat", stdin = "pipe" }))
      relay.stall(true)
      local status, err = process:wait()
      assert.is_nil(status)
      assert.same({ "lost", "TIMEOUT" }, { err.kind, err.code })
      assert.is_false(session:alive())
    end))

    it("not when it is only idle, on either side's question",
      with("ClientAliveInterval 1\nClientAliveCountMax 1", { keepalive = 1 }, function()
        local process = assert(session:start({ command = "cat", stdin = "pipe" }))
        task.sleep(3.5)
        assert.is_true(session:alive())
        process:close_stdin()
        assert.same({ exit = 0 }, process:wait())
        assert.equal("on\n", (sshd.command(session, "echo on")))
      end))

    it("with an engine that is killed", with(nil, false, function()
      local engine = helper.write(server.dir .. "/engine.lua", ([[
        package.path, package.cpath = %q, %q
        local openssh = require("farcall.clients.openssh")
        require("farcall.task").run(function()
          assert(openssh.connect({
            host = "127.0.0.1", port = %d, user = %q, identity_files = { %q },
            known_hosts = { %q }, config = "none", environ = { PATH = "/usr/bin:/bin" },
            runtime_dir = %q, supervisor = %q,
          }))
          local file = io.open(%q, "w")
          file:write("ready")
          file:close()
          require("farcall.task").sleep(1000)
        end)
      ]]):format(package.path, package.cpath, server.port, server.user, server.dir .. "/id",
        server.dir .. "/known_hosts", server.dir, SUPERVISOR, server.dir .. "/ready"))
      local pid = sshd.run(("%s/spec_host %s >%s/engine.log 2>&1 & echo $!"):format(BUILD, engine,
        server.dir))
      assert(helper.eventually(function()
        return helper.read(server.dir .. "/ready") == "ready"
      end, 30), helper.read(server.dir .. "/engine.log"))
      local below = helper.children(pid)
      assert.equal(1, #below)
      below = { below[1], helper.children(below[1])[1] }
      assert.equal(2, #below)
      sshd.run("kill -9 " .. pid)
      assert(helper.eventually(function()
        return not fs.stat("/proc/" .. below[1]) and not fs.stat("/proc/" .. below[2])
      end, 30))
    end))
  end)

  describe("knows its server", function()
    it("and refuses another key", with(nil, false, function()
      sshd.run(("ssh-keygen -q -t ed25519 -N '' -f %s/other"):format(server.dir))
      helper.write(server.dir .. "/known_hosts", server:known_line(server.dir .. "/other"))
      assert.same({ "denied", "HOSTKEY" }, kind_and_code())
      assert.same({ "denied", "HOSTKEY" }, kind_and_code({ accept_new = true }))
      -- The hint names the line, and is a command that works.
      helper.write(server.dir .. "/known_hosts", "# mine\n" .. server:known_line(server.dir
        .. "/other"))
      local hint = refused().hint
      assert.matches("(line 2 of " .. server.dir .. "/known_hosts) with ssh-keygen", hint, 1, true)
      sshd.run(hint:match("(ssh%-keygen %-R .*)") .. " >/dev/null 2>&1")
      assert.equal("# mine\n", helper.read(server.dir .. "/known_hosts"))
      helper.write(server.dir .. "/known_hosts", "@revoked * "
        .. server:known_line():match(" (.*)"))
      assert.same({ "denied", "HOSTKEY" }, kind_and_code({ accept_new = true }))
    end))

    it("and refuses one that it does not know, unless told otherwise", with(nil, false, function()
      local path = server.dir .. "/with space%h \"and\" more"
      local extra = { known_hosts = { path, server.dir .. "/second" } }
      assert.same({ "denied", "UNKNOWN_HOST" }, kind_and_code(extra))
      assert.is_nil(helper.read(path))
      extra.accept_new = true
      openssh.connect(options(extra)):close()
      assert.equal(server:known_line(), helper.read(path))
      extra.accept_new = false
      openssh.connect(options(extra)):close()
      assert.same({ "denied", "UNKNOWN_HOST" }, kind_and_code({ known_hosts = {} }))
      assert.equal("usage", refused({ known_hosts = { "/tmp/${HOME}" } }).kind)
    end))
  end)

  describe("logs in", function()
    it("with an RSA key", with(nil, false, function()
      local key = server:key("rsa", "-t rsa -b 2048")
      session = assert(openssh.connect(options({ identity_files = { key } })))
      assert.equal("in\n", (sshd.command(session, "echo in")))
    end))

    it("with a key of the agent, unless it may not ask", with(nil, false, function()
      local key = server:key("other", "-t rsa -b 2048")
      local socket, stop = sshd.agent(server.dir, { key })
      fs.unlink(key)
      local environ = { PATH = "/usr/bin:/bin", SSH_AUTH_SOCK = socket }
      local ok, failure = pcall(function()
        local extra = { identity_files = { server.dir .. "/none" }, environ = environ }
        openssh.connect(options(extra)):close()
        extra.agent = false
        assert.same({ "denied", "AUTH" }, kind_and_code(extra))
      end)
      stop()
      assert(ok, failure)
    end))

    it("but not with a wrong key, a locked one, or none", with(nil, false, function()
      sshd.run(("ssh-keygen -q -t ed25519 -N '' -f %s/wrong"):format(server.dir))
      local locked = server:key("locked", nil, "passphrase")
      for _, path in ipairs({ server.dir .. "/wrong", locked, server.dir .. "/no such" }) do
        assert.same({ "denied", "AUTH" }, kind_and_code({ identity_files = { path } }))
      end
    end))

    it("through another server that a config file names", with(nil, false, function()
      local far = sshd.start()
      local ok, failure = pcall(function()
        local known = helper.write(server.dir .. "/both", server:known_line() .. far:known_line())
        local config = helper.write(server.dir .. "/ssh_config", ([[
Host far
  HostName 127.0.0.1
  Port %d
  User %s
  IdentityFile %s/id
  ProxyJump jump
  RemoteCommand echo never
  RequestTTY force
  LocalForward %d 127.0.0.1:1
Host jump
  HostName 127.0.0.1
  Port %d
  User %s
  IdentityFile %s/id
Host *
  UserKnownHostsFile %s
]]):format(far.port, far.user, far.dir, far.port, server.port, server.user, server.dir, known))
        local own = {
          host = "far", config = config, environ = { PATH = "/usr/bin:/bin" },
          runtime_dir = runtime, supervisor = SUPERVISOR, connect_timeout = 60,
        }
        session = assert(openssh.connect(own))
        local out = sshd.command(session, "echo $SSH_CONNECTION")
        assert.matches(" 127.0.0.1 " .. far.port .. "\n$", out)
        assert.matches("Accepted publickey", helper.read(server.dir .. "/log"))
        local bytes = ALL:rep(16384)
        assert.is_true(sshd.command(session, "cat", bytes) == bytes)
        session:close()
        session = nil
        assert.same({}, helper.children())
        -- The jump's own troubles: its key is not known.
        helper.write(known, far:known_line())
        local made, err = openssh.connect(own)
        assert.is_nil(made)
        assert.same({ "denied", "UNKNOWN_HOST" }, { err.kind, err.code })
      end)
      far:stop()
      assert(ok, failure)
    end))
  end)

  describe("does not get there", function()
    it("when nobody listens, or there is no such host", with(nil, false, function()
      server:kill()
      assert.same({ "unavailable", "ECONNREFUSED" }, kind_and_code())
      assert.same({ "unavailable", "RESOLVE" }, kind_and_code({ host = "no-such-host.invalid" }))
    end))

    it("when nobody answers in time", with(nil, false, function()
      local relay = server:relay()
      relay.stall(true)
      local own = { port = relay.port, connect_timeout = 0.5 }
      assert.same({ "unavailable", "TIMEOUT" }, kind_and_code(own))
      own.connect_timeout = 60
      local waiting = task.spawn(openssh.connect, options(own))
      task.sleep(0.2)
      waiting:cancel()
      assert.is_false(waiting:join())
      assert.same({}, helper.children())
      assert.same({}, fs.list(runtime))
    end))

    it("with names that are options or words of a shell", with(nil, false, function()
      for _, name in ipairs({ "-oProxyCommand=touch x", "", "a b", "a;b", "$(id)", "a\nb" }) do
        assert.equal("usage", refused({ host = name }).kind)
        if name ~= "a b" then
          assert.equal("usage", refused({ user = name }).kind)
        end
      end
    end))

    it("without ssh, or by a config that is wrong", with(nil, false, function()
      assert.equal("unavailable", refused({ program = "/no/such/ssh" }).kind)
      local config = helper.write(server.dir .. "/bad", "NoSuchWord yes\n")
      assert.equal("config", refused({ config = config }).kind)
    end))
  end)

  it("finds a place for its socket when the runtime directory has too long a name",
    with(nil, false, function()
      local before = runtime
      for _, name in ipairs({ ("x"):rep(80), "a ${b}" }) do
        runtime = before .. "/" .. name
        fs.mkdir(runtime, 448)
        session = assert(openssh.connect(options()))
        assert.equal("on\n", (sshd.command(session, "echo on")))
        assert.same({}, fs.list(runtime))
        local place = session.dir
        assert.equal(448, fs.stat(place).mode)
        assert.equal(system.uid(), fs.stat(place).uid)
        session:close()
        session = nil
        assert.is_nil(fs.stat(place))
        fs.rmdir(runtime)
      end
      runtime = before
    end))
end)
