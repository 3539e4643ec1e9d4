-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local helper = require("spec.helper")
local ssh_session = require("farcall.clients.ssh_session")
local sshd = require("spec.support.sshd")
local task = require("farcall.task")

local ALL = {}
for i = 0, 255 do
  ALL[#ALL + 1] = string.char(i)
end
ALL = table.concat(ALL)

describe("ssh_session", function()
  local server, session

  -- The body of a test with a server, and with a session unless extra is false.
  local function with(lines, extra, body)
    return helper.task(function()
      server = sshd.start(lines)
      if extra then
        session = assert(ssh_session.connect(server:options(extra)))
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
    end)
  end

  local function refused(options)
    local made, err = ssh_session.connect(options)
    if made then
      made:close()
    end
    assert.is_nil(made)
    assert.is_true(errors.is(err))
    return err
  end

  describe("runs commands", function()
    it("with all byte values, 8 MiB both ways", with(nil, {}, function()
      local bytes = ALL:rep(32768)
      local out, err, status = sshd.command(session, "cat", bytes)
      assert.is_true(out == bytes)
      assert.equal("", err)
      assert.same({ exit = 0 }, status)
    end))

    it("while keys are exchanged anew", with("RekeyLimit 256K", {}, function()
      local bytes = ALL:rep(32768)
      assert.is_true(sshd.command(session, "cat", bytes) == bytes)
      sshd.together(4, function()
        assert.is_true(sshd.command(session, "cat", bytes:sub(1, 2097152)) == bytes:sub(1, 2097152))
      end)
    end))

    it("with stderr apart, exit codes and signals as they are", with(nil, {}, function()
      local out, err, status = sshd.command(session, "echo out; echo err >&2; exit 7")
      assert.same({ "out\n", "err\n", { exit = 7 } }, { out, err, status })
      for _, code in ipairs({ 0, 1, 126, 127, 128, 137, 255 }) do
        assert.same({ exit = code }, select(3, sshd.command(session, "exit " .. code)))
      end
      assert.same({ signal = 9, name = "KILL" },
        select(3, sshd.command(session, "kill -KILL $$")))
      assert.same({ signal = 15, name = "TERM" },
        select(3, sshd.command(session, "kill -TERM $$")))
    end))

    it("with an empty input, a pipe, or bytes", with(nil, {}, function()
      assert.equal("0\n", (sshd.command(session, "wc -c")))
      assert.equal("0\n", (sshd.command(session, "wc -c", "null")))
      assert.equal("3\n", (sshd.command(session, "wc -c", "abc")))
      local process = assert(session:start({ command = "cat", stdin = "pipe" }))
      for i = 1, 20 do
        local word = ("line %d\n"):format(i)
        assert.is_true(process:write(word))
        local stream, bytes = process:read(100)
        assert.same({ "out", word }, { stream, bytes })
      end
      process:close_stdin()
      process:close_stdin()
      assert.same({ exit = 0 }, process:wait())
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
      process = assert(session:start({ command = "head -c 10 >/dev/null", stdin = "pipe" }))
      process:write(("x"):rep(4194304))
      assert.same({ exit = 0 }, process:wait())
    end))

    it("as long as libssh2 sends, and not longer", with(nil, {}, function()
      local line = "echo '" .. ("x"):rep(ssh_session.max_command - 7) .. "'"
      assert.equal(#line - 6, #sshd.command(session, line))
      local process, err = session:start({ command = line .. " " })
      assert.is_nil(process)
      assert.same({ "limit", "E2BIG" }, { err.kind, err.code })
      assert.equal("on\n", (sshd.command(session, "echo on")))
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
      assert.equal(0, session:census().open)
    end))

    it("also through a link that stalls", with(nil, false, function()
      local relay = server:relay(1048576)
      session = assert(ssh_session.connect(server:options({ address = relay.address })))
      local bytes = ALL:rep(4096)
      sshd.together(64, function()
        assert.equal("1048576\n", (sshd.command(session, "wc -c", bytes)))
      end)
    end))

    it("more than the server allows sessions", with("MaxSessions 10", {}, function()
      sshd.together(32, function(i)
        local out, _, status = sshd.command(session, "sleep 0.2; echo " .. i)
        assert.equal(i .. "\n", out)
        assert.same({ exit = 0 }, status)
      end)
      assert.equal(0, session:census().open)
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
      task.sleep(0.05)
      waiting:cancel()
      assert.is_false(waiting:join())
      local late = task.spawn(sshd.command, session, "echo late")
      held[2]:kill()
      held[2]:kill()
      local _, out = late:join()
      assert.equal("late\n", out)
      held[1]:close_stdin()
      held[3]:close_stdin()
      assert.same({ exit = 0 }, held[1]:wait())
      assert.same({ exit = 0 }, held[3]:wait())
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
      assert.is_true(session:census().memory < 2097152)
      -- Others go on meanwhile.
      assert.equal("still\n", (sshd.command(session, "echo still")))
      local out = sshd.finish(process)
      assert.equal(67108864, #out)
    end))

    it("our writing when the command does not read", with(nil, {}, function()
      local process = assert(session:start({ command = "sleep 1000", stdin = "pipe" }))
      local written = 0
      local writer = task.spawn(function()
        while process:write(("x"):rep(1048576)) do
          written = written + 1
        end
      end)
      task.sleep(0.5)
      assert.is_true(written < 16)
      assert.is_true(session:census().memory < 2097152)
      process:kill()
      writer:join()
      assert.equal("lost", select(2, process:wait()).kind)
    end))
  end)

  describe("ends", function()
    it("all processes when the server dies", with(nil, {}, function()
      local processes = {}
      for i = 1, 8 do
        processes[i] = assert(session:start({ command = "echo here; sleep 1000", stdin = "pipe" }))
        assert.same({ "out", "here\n" }, { processes[i]:read(100) })
      end
      local waiting = task.spawn(processes[1].read, processes[1], 100)
      server:kill()
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
    end))

    it("when it is closed, twice", with(nil, {}, function()
      local process = assert(session:start({ command = "sleep 1000" }))
      session:close()
      session:close()
      assert.is_false(session:alive())
      assert.equal("lost", select(2, process:wait()).kind)
      process:kill()
    end))

    it("when the link stalls and nothing is answered", with(nil, false, function()
      local relay = server:relay()
      session = assert(ssh_session.connect(server:options({
        address = relay.address, keepalive = 0.5,
      })))
      local process = assert(session:start({ command = "sleep 1000" }))
      relay.stall(true)
      local status, err = process:wait()
      assert.is_nil(status)
      assert.equal("lost", err.kind)
      assert.equal("TIMEOUT", err.code)
      assert.is_false(session:alive())
    end))

    it("not when it is only idle, on either side's question",
      with("ClientAliveInterval 1\nClientAliveCountMax 1", { keepalive = 1 }, function()
        task.sleep(4.5)
        assert.is_true(session:alive())
        assert.equal("on\n", (sshd.command(session, "echo on")))
        task.sleep(2.5)
        assert.equal("on\n", (sshd.command(session, "echo on")))
      end))
  end)

  describe("knows its server", function()
    it("and refuses another key", with(nil, false, function()
      sshd.run(("ssh-keygen -q -t ed25519 -N '' -f %s/other"):format(server.dir))
      helper.write(server.dir .. "/known_hosts", server:known_line(server.dir .. "/other"))
      local err = refused(server:options())
      assert.equal("denied", err.kind)
      assert.equal("HOSTKEY", err.code)
      assert.equal("HOSTKEY", refused(server:options({ accept_new = true })).code)
      -- The hint names the line, and is a command that works.
      helper.write(server.dir .. "/known_hosts", "# mine\n" .. server:known_line(server.dir
        .. "/other"))
      local hint = refused(server:options()).hint
      assert.matches("(line 2 of " .. server.dir .. "/known_hosts) with ssh-keygen", hint, 1, true)
      sshd.run(hint:match("(ssh%-keygen %-R .*)") .. " >/dev/null 2>&1")
      assert.equal("# mine\n", helper.read(server.dir .. "/known_hosts"))
    end))

    it("and refuses one that it does not know, unless told otherwise", with(nil, false, function()
      local path = server.dir .. "/new/known_hosts"
      local options = server:options({ known_hosts = { path } })
      local err = refused(options)
      assert.equal("denied", err.kind)
      assert.equal("UNKNOWN_HOST", err.code)
      assert.is_nil(helper.read(path))
      options.accept_new = true
      assert(ssh_session.connect(options)):close()
      assert.equal(server:known_line(), helper.read(path))
      assert.equal("600\n700", sshd.run("stat -c %a " .. path .. " " .. server.dir .. "/new"))
      options.accept_new = false
      assert(ssh_session.connect(options)):close()
      assert.equal(server:known_line(), helper.read(path))
    end))

    it("by hashed names, wildcards and an alias", with(nil, false, function()
      local path = server.dir .. "/known_hosts"
      sshd.run("ssh-keygen -H -f " .. path)
      assert.is_truthy(helper.read(path):find("^|1|"))
      assert(ssh_session.connect(server:options())):close()
      local key = server:known_line():match(" (.*)")
      helper.write(path, "# none\n\n[127.*]:*,!x " .. key)
      assert(ssh_session.connect(server:options())):close()
      helper.write(path, "[127.*]:*,![127.0.0.1]:* " .. key)
      assert.equal("UNKNOWN_HOST", refused(server:options()).code)
      helper.write(path, "other\nthe-alias " .. key)
      assert(ssh_session.connect(server:options({ host_key_alias = "The-Alias" }))):close()
    end))

    it("and refuses a revoked key", with(nil, false, function()
      helper.write(server.dir .. "/known_hosts", server:known_line() .. "@revoked * "
        .. server:known_line():match(" (.*)"))
      assert.equal("HOSTKEY", refused(server:options()).code)
      assert.equal("HOSTKEY", refused(server:options({ accept_new = true })).code)
    end))

    it("and says when only an RSA key is known", with(nil, false, function()
      sshd.run(("ssh-keygen -q -t rsa -N '' -f %s/other"):format(server.dir))
      helper.write(server.dir .. "/known_hosts", server:known_line(server.dir .. "/other"))
      local err = refused(server:options())
      assert.equal("unsupported", err.kind)
      assert.equal("RSA_SHA2", err.code)
    end))
  end)

  describe("logs in", function()
    it("with keys of every kind that it can", with(nil, false, function()
      -- As PEM: of those in OpenSSH's own format libssh2 1.10 forgets to free a number at each
      -- log-in (bn_exponent in its openssl.c), which the leak checkers would see.
      for i, kind in ipairs({ "-t ed25519", "-t ecdsa -b 256 -m PEM", "-t ecdsa -b 384 -m PEM",
        "-t ecdsa -b 521 -m PEM" }) do
        local key = server:key("key" .. i, kind)
        assert(ssh_session.connect(server:options({ identity_files = { key } }))):close()
      end
    end))

    it("but not with a key that is not let in", with(nil, false, function()
      sshd.run(("ssh-keygen -q -t ed25519 -N '' -f %s/stranger"):format(server.dir))
      local err = refused(server:options({ identity_files = { server.dir .. "/stranger" } }))
      assert.equal("denied", err.kind)
      assert.equal("AUTH", err.code)
      assert.is_truthy(err.hint:find(server.dir .. "/stranger", 1, true))
      assert.equal("AUTH", refused(server:options({ identity_files = {} })).code)
      assert.equal("AUTH", refused(server:options({ identity_files = { "/nowhere" } })).code)
      assert.equal("AUTH", refused(server:options({
        identity_files = { helper.write(server.dir .. "/junk", ALL) },
      })).code)
    end))

    it("says that an RSA key cannot be used", with(nil, false, function()
      local err = refused(server:options({ identity_files = { server:key("rsa", "-t rsa") } }))
      assert.equal("denied", err.kind)
      assert.equal("RSA_SHA2", err.code)
    end))

    it("says that a key has a passphrase, and takes it from an agent", with(nil, false, function()
      local key = server:key("locked", "-t ed25519", "secret")
      local options = server:options({ identity_files = { key } })
      local err = refused(options)
      assert.equal("PASSPHRASE", err.code)
      assert.is_truthy(err.hint:find("agent", 1, true))
      sshd.run(("cp %s %s.open && ssh-keygen -q -p -P secret -N '' -f %s.open"):format(key, key,
        key))
      local agent, stop = sshd.agent(server.dir, { key .. ".open" })
      options.agent = agent
      local made = ssh_session.connect(options)
      stop()
      assert(made):close()
    end))

    it("with the keys of an agent alone", with(nil, false, function()
      local agent, stop = sshd.agent(server.dir, { server.dir .. "/id" })
      local made, failure = ssh_session.connect(server:options({
        identity_files = {}, agent = agent,
      }))
      stop()
      assert(made, tostring(failure))
      assert.equal("in\n", (sshd.command(made, "echo in")))
      made:close()
      -- One that is not there is passed over.
      assert(ssh_session.connect(server:options({ agent = server.dir .. "/none" }))):close()
    end))
  end)

  describe("says why it cannot connect", function()
    it("to nobody", with(nil, false, function()
      local options = server:options()
      server:kill()
      assert(helper.eventually(function()
        return refused(options).code == "ECONNREFUSED"
      end))
      assert.equal("unavailable", refused(options).kind)
    end))

    it("to a name that there is not", with(nil, false, function()
      local err = refused(server:options({ host = "no.such.host.invalid" }))
      assert.equal("unavailable", err.kind)
      assert.equal("RESOLVE", err.code)
    end))

    it("when nothing is said in time", with(nil, false, function()
      local relay = server:relay()
      relay.stall(true)
      local err = refused(server:options({ address = relay.address, connect_timeout = 0.5 }))
      assert.equal("unavailable", err.kind)
      assert.equal("TIMEOUT", err.code)
    end))

    it("when it is cancelled", with(nil, false, function()
      local relay = server:relay()
      relay.stall(true)
      local connecting = task.spawn(ssh_session.connect, server:options({
        address = relay.address,
      }))
      task.sleep(0.1)
      connecting:cancel()
      assert.is_false(connecting:join())
    end))
  end)
end)
