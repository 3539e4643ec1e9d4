-- SPDX-License-Identifier: MIT
-- The runner, in each of its forms: what it starts, carries and leaves. Every test that asserts
-- "all gone" first proves that all was alive.
local build = require("spec.support.build")
local connect = require("farcall.clients.runner_connect")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local marked = require("spec.support.marked")
local proc = require("farcall.core.proc")
local runner_link = require("spec.support.runner_link")
local sha256 = require("farcall.core.sha256")
local sock = require("farcall.core.sock")
local system = require("farcall.core.system")
local task = require("farcall.task")

-- With sanitizers, where there is such a build.
local DIR = fs.realpath(build.dir .. "/runner-checked")
  or assert(fs.realpath(build.dir .. "/runner"))

local function machine()
  local pipe = io.popen("uname -m")
  local name = pipe:read("*l")
  pipe:close()
  return name
end

-- {form, argv}
local FORMS = {
  { "static", { DIR .. "/farcall-runner-" .. machine() } },
  { "Python", { "/usr/bin/python3", "-Xdev", "-Werror",
    fs.realpath("spec/support/runner_python.py") } },
}

local ALL_BYTES = {}
for byte = 0, 255 do
  ALL_BYTES[#ALL_BYTES + 1] = string.char(byte)
end
ALL_BYTES = table.concat(ALL_BYTES)

local TREE = "trap '' TERM; (trap '' TERM; setsid sleep 1000 & sleep 1000 & wait) & "
  .. "setsid sh -c \"trap '' TERM; while :; do sleep 0.1; done\" & while :; do sleep 0.1; done"

local function alive(run, count)
  assert(helper.eventually(function()
    return #marked(run.mark) >= count
  end, 30), "not all came up")
end

local function all_gone(run, seconds)
  assert(helper.eventually(function()
    return #marked(run.mark) == 0
  end, seconds or 10), "something is left")
end

local function rss_kb(pid)
  return tonumber(helper.read("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+)"))
end

local function exists(path)
  return fs.stat(path) ~= nil
end

for _, form in ipairs(FORMS) do
  local argv = form[2]

  local function start(options)
    return runner_link.start(argv, options)
  end

  -- The program through which a script in sh reaches the socket in a directory.
  local function joining(verb, dir)
    if form[1] == "static" then
      return { argv[1], verb, dir .. "/socket" }
    end
    local path = helper.write(dir .. "/" .. verb, connect.PROGRAM)
    return { argv[1], argv[2], argv[3], path, dir .. "/socket" }
  end

  describe("runner, " .. form[1], function()
    it("says who it is", helper.task(function()
      local link = start()
      local version, pid, uid, level, name, hash =
        link.hello:match("^hello (%d) (%d+) (%d+) (%S+) (%S+) (%S+)$")
      assert.same({ "1", link.runner:pid(), system.uid(), machine() },
        { version, tonumber(pid), tonumber(uid), name })
      assert.is_truthy(("pidns cgroup subreaper group ?"):find(level, 1, true))
      local program = argv[#argv]
      assert.equal(form[1] == "static" and sha256.hex(helper.read(program)) or "-", hash)
      link:close()
      assert.same({ how = "exit", number = 0 }, link.runner_ended)
    end))

    it("tells exit codes and signals exactly", helper.task(function()
      local link = start()
      for _, code in ipairs({ 0, 1, 7, 127, 128, 255 }) do
        assert.equal(("exited %d;gone;"):format(code), link:exec("exit " .. code):finish())
      end
      for _, number in ipairs({ 1, 2, 9, 11, 13, 15 }) do
        assert.equal(("signalled %d;gone;"):format(number),
          link:exec(("kill -%d $$"):format(number)):finish())
      end
      assert.equal("exec-failed exec 2;gone;", link:exec({ "/no/such" }):finish())
      assert.equal("exec-failed cwd 2;gone;",
        link:exec("true", { options = { "--cwd", "/no/such" } }):finish())
      link:close()
    end))

    it("carries all bytes in all three streams", helper.task(function()
      local link = start()
      local bytes = ALL_BYTES:rep(8 * 1024 * 1024 / 256)
      local run = link:exec("tee /dev/stderr", { stdin = bytes })
      assert.equal("exited 0;gone;", run:finish())
      assert.is_true(run.out.text() == bytes)
      assert.is_true(run.err.text() == bytes)
      link:close()
    end))

    it("gives words and variables as they are", helper.task(function()
      local link = start()
      local words = { "", " ", "a b", "$(id)", "`id`", "'\"\\", "\n", "-n", "\255\254\1", "--",
        ("x"):rep(100000) }
      local run = link:exec({ "/bin/sh", "-c", 'printf "%s\\n" "$V" "$@"', "sh", unpack(words) },
        { env = { "V=1\n$(id) =" } })
      assert.equal("exited 0;gone;", run:finish())
      assert.equal("1\n$(id) =\n" .. table.concat(words, "\n") .. "\n", run.out.text())
      link:close()
    end))

    it("starts where it was started, and leaves scripts nothing of its own", helper.task(function()
      local dir = helper.scratch()
      local link = start({ cwd = dir })
      local held = link:exec("read x", { stdin = true })
      local run = link:exec("pwd; umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; "
        .. "ulimit -Sn; cd /proc/self/fd; echo *")
      local umask = io.popen("umask; ulimit -Sn")
      local expected = umask:read("*a"):gsub("\n$", "")
      umask:close()
      assert.equal("exited 0;gone;", run:finish())
      local mask, limit = expected:match("^(%d+)\n(%S+)$")
      -- 3 is the shell's own handle of the directory that it reads.
      assert.equal(("%s\n%s\nSigBlk:\t%s\nSigIgn:\t%s\n%s\n0 1 2 3\n"):format(dir, mask,
        ("0"):rep(16), ("0"):rep(16), limit), (run.out.text():gsub("0 1 2\n$", "0 1 2 3\n")))
      held.stdin:finish()
      assert.equal("exited 1;gone;", held:finish())
      link:close()
    end))

    it("runs many at once, each with its own streams", helper.task(function()
      local link = start()
      local runs = {}
      for i = 1, 32 do
        runs[i] = link:exec(("cat; echo %d >&2; exit %d"):format(i, i), { stdin = true })
      end
      for i, run in ipairs(runs) do
        run.stdin:write(("%d\n"):format(i):rep(10000))
        run.stdin:finish()
      end
      for i, run in ipairs(runs) do
        assert.equal(("exited %d;gone;"):format(i), run:finish())
        assert.is_true(run.out.text() == ("%d\n"):format(i):rep(10000))
        assert.equal(i .. "\n", run.err.text())
      end
      link:close()
    end))

    it("ends the input of one script while others run", helper.task(function()
      local link = start()
      local first = link:exec("cat", { stdin = true })
      local second = link:exec("cat", { stdin = true })
      first.stdin:finish()
      assert.equal("exited 0;gone;", first:finish())
      second.stdin:finish()
      assert.equal("exited 0;gone;", second:finish())
      link:close()
    end))

    it("kills a tree when told to", helper.task(function()
      local link = start()
      local run = link:exec(TREE)
      alive(run, 5)
      run.control.channel:write("kill 100\n")
      assert.equal("signalled 9;gone;", run:finish())
      assert.same({}, marked(run.mark))
      link:close()
    end))

    it("passes a signal and ends at a deadline", helper.task(function()
      local link = start()
      local run = link:exec("trap 'exit 5' INT; echo; while :; do sleep 0.05; done")
      assert(helper.eventually(function()
        return run.out.size > 0
      end))
      run.control.channel:write("signal 2\n")
      assert.equal("exited 5;gone;", run:finish())
      run = link:exec("sleep 1000", { options = { "--deadline-ms", "100" } })
      assert.equal("deadline;signalled 15;gone;", run:finish())
      link:close()
    end))

    it("kills a tree whose control channel is closed", helper.task(function()
      local link = start()
      local run = link:exec(TREE)
      alive(run, 5)
      run.control.channel:close()
      all_gone(run)
      run = link:exec(TREE)
      alive(run, 5)
      run.control.channel:finish()
      assert.equal("signalled 9;gone;", run:finish())
      link:close()
    end))

    for how, stop in pairs({
      ["its engine is gone"] = function(link)
        link:cut()
      end,
      ["it is killed"] = function(link)
        link.runner:kill("KILL")
      end,
      ["it is asked to end"] = function(link)
        link.runner:kill("TERM")
      end,
      ["the engine ends it"] = function(link)
        link:open("quit")
      end,
      ["the engine sends garbage"] = function(link)
        link.child:stdin():write(("\255"):rep(100))
      end,
      ["the engine says the same twice"] = function(link)
        link.child:stdin():write("\0\0\0\2\1\0\0\5pipe\0")
      end,
      ["the engine sends half a frame"] = function(link)
        link.child:stdin():write("\0\0\1\0\1\0\0")
        link.child:stdin():finish()
        link.child:stdin():on_drained(function()
          link:cut()
        end)
      end,
    }) do
      it("leaves nothing when " .. how, helper.task(function()
        local link = start()
        local base = helper.scratch()
        local answer = link:hold("mkdir", base)
        local dir = assert(answer:match("^ok (.*)\n$"))
        helper.write(dir .. "/file", "")
        local runs = {}
        for i = 1, 3 do
          runs[i] = link:exec(TREE)
        end
        for i = 1, 3 do
          alive(runs[i], 5)
        end
        stop(link)
        for i = 1, 3 do
          all_gone(runs[i])
        end
        assert(helper.eventually(function()
          return link.runner_ended.how
        end, 20))
        if how ~= "it is killed" then
          assert.same({ how = "exit", number = 0 }, link.runner_ended)
          assert.is_false(exists(dir))
        end
        link:release()
      end))
    end

    it("listens", helper.task(function()
      local link = start()
      local dir = helper.scratch()
      local answer, channel = link:hold("listen", dir .. "/socket")
      assert.equal("ok\n", answer)
      assert.equal(384, fs.stat(dir .. "/socket").mode % 512) -- 0600
      local peers, big = {}, ALL_BYTES:rep(4000)
      for i = 1, 20 do
        peers[i] = assert(sock.connect(task.loop(), dir .. "/socket"))
        peers[i]:write(i .. "\n" .. big)
        peers[i]:finish()
      end
      local seen = {}
      assert(helper.eventually(function()
        for _, peer in ipairs(link.accepted) do
          if peer.sink.ended and not seen[peer] then
            seen[peer] = true
            seen[#seen + 1] = peer
            local number, rest = peer.sink.text():match("^(%d+)\n(.*)$")
            assert.is_true(rest == big)
            peer.channel:write(number .. " answered")
            peer.channel:finish()
          end
        end
        return #seen == 20
      end))
      local words = ("accepted\0%d\0%d\0%d\0"):format(channel:id(), system.pid(), system.uid())
      for i = 1, 20 do
        assert.equal(words, link.accepted[i].request)
        local sink = runner_link.sink(peers[i])
        assert(helper.eventually(function()
          return sink.ended
        end))
        assert.equal(i .. " answered", sink.text())
        peers[i]:close()
        link.accepted[i].channel:close()
      end
      assert.matches("^error listen 98\n$", link:ask("listen", dir .. "/socket"))
      assert.matches("^error listen %d+\n$", link:ask("listen", dir .. "/no/socket"))
      assert.matches("^error listen 36\n$", link:ask("listen", dir .. ("/x"):rep(100)))
      channel:close()
      assert(helper.eventually(function()
        return not exists(dir .. "/socket")
      end))
      link:close()
    end))

    it("closes a connection that the engine closes", helper.task(function()
      local link = start()
      local dir = helper.scratch()
      assert.equal("ok\n", (link:hold("listen", dir .. "/socket")))
      local peer = assert(sock.connect(task.loop(), dir .. "/socket"))
      assert(helper.eventually(function()
        return link.accepted[1]
      end))
      link.accepted[1].channel:close()
      local sink = runner_link.sink(peer)
      assert(helper.eventually(function()
        return sink.ended
      end))
      peer:close()
      link:close()
    end))

    it("makes private directories and removes them", helper.task(function()
      local link = start()
      local base = helper.scratch()
      local answer, channel = link:hold("mkdir", "/no/such", "relative", base)
      local dir = assert(answer:match("^ok (" .. base:gsub("%p", "%%%0")
        .. "/farcall%-run%-%x+)\n$"))
      assert.equal(448, fs.stat(dir).mode % 512) -- 0700
      os.execute(("mkdir -p %s/a/b/c; echo >%s/a/b/c/f; ln -s %s %s/a/up; chmod 0 %s/a/b"):format(
        dir, dir, base, dir, dir))
      helper.write(base .. "/kept", "")
      channel:close()
      assert(helper.eventually(function()
        return not exists(dir)
      end))
      assert.is_true(exists(base .. "/kept"))
      assert.equal("error mkdir 2\n", link:ask("mkdir", "/no/such"))
      assert.matches("^error mkdir 22\n$", link:ask("mkdir"))
      link:close()
    end))

    it("lets no directory look old that is used", helper.task(function()
      local link = start()
      local answer, channel = link:hold("mkdir", helper.scratch())
      local dir = assert(answer:match("^ok (.*)\n$"))
      local now = system.time()
      os.execute(("touch -d @%d %s"):format(now - 1000, dir))
      assert.is_true(fs.stat(dir).mtime < now - 900)
      assert(helper.eventually(function()
        return fs.stat(dir).mtime > now - 100
      end, 60))
      channel:close()
      link:close()
    end))

    for _, other in ipairs(FORMS) do
      it("removes what a dead one has left, and nothing else, " .. other[1], helper.task(function()
        local base, boot = helper.scratch(), helper.read("/proc/sys/kernel/random/boot_id")
        local function begin(name)
          local link = runner_link.start(other[2],
            { grace = 60000, dir = base .. "/farcall-link-" .. name })
          local answer
          answer, link.held = link:hold("mkdir", base)
          local dir = assert(answer:match("^ok (.*)\n$"))
          helper.write(dir .. "/token", "")
          return link, { dir, link.dir }
        end
        local dead, gone = begin("dead")
        local living, kept = begin("living")
        -- Not a runner's; of another kernel; no files at all; somewhere else.
        os.execute(("cd %s && mkdir farcall-run-1 farcall-run-2 farcall-run-3 farcall-run-4 away &&"
          .. " mkfifo farcall-run-3/claim && mkdir farcall-run-4/claim && ln -s away farcall-run-5")
          :format(base))
        helper.write(base .. "/farcall-run-2/claim", ("0"):rep(#boot))
        helper.write(base .. "/away/claim", boot)
        for _, name in ipairs({ "run-1", "run-2", "run-3/claim", "run-4/claim", "run-5/claim" }) do
          kept[#kept + 1] = base .. "/farcall-" .. name
        end
        dead.runner:kill("KILL")
        assert(helper.eventually(function()
          return dead.runner_ended.how
        end))
        local link = start({ grace = 60000, dir = base .. "/farcall-link-mine" })
        local _, channel = link:hold("mkdir", base)
        channel:close()
        for i = 1, 2 do
          assert(helper.eventually(function()
            return not exists(gone[i])
          end), gone[i])
        end
        link:close()
        assert.is_false(exists(base .. "/farcall-link-mine"))
        for _, path in ipairs(kept) do
          assert.is_true(exists(path), path)
        end
        dead:release()
        living:close()
        assert.is_false(exists(kept[1]) or exists(kept[2]))
      end))
    end

    local function put(link, path, mode, size, bytes)
      local sink = runner_link.sink(link:open("put", path, mode, size))
      sink.channel:write(bytes)
      sink.channel:finish()
      assert(helper.eventually(function()
        return sink.ended
      end))
      sink.channel:close()
      return sink.text()
    end

    it("writes files whole or not at all", helper.task(function()
      local link = start()
      local dir = helper.scratch()
      local bytes = ALL_BYTES:rep(16384)
      assert.equal("ok\n", put(link, dir .. "/big", "640", tostring(#bytes), bytes))
      assert.is_true(helper.read(dir .. "/big") == bytes)
      assert.equal(416, fs.stat(dir .. "/big").mode % 4096)
      assert.equal("ok\n", put(link, dir .. "/big", "4755", "0", ""))
      assert.equal("", helper.read(dir .. "/big"))
      assert.equal(2541, fs.stat(dir .. "/big").mode % 4096)
      assert.matches("^error size 22\n$", put(link, dir .. "/big", "600", "3", "1234"))
      assert.matches("^error size 22\n$", put(link, dir .. "/big", "600", "5", "1234"))
      assert.matches("^error open 2\n$", put(link, dir .. "/no/such", "600", "0", ""))
      assert.matches("^error rename 21\n$", put(link, dir, "600", "0", ""))
      for _, words in ipairs({ { "x", "1" }, { "8", "1" }, { "10000", "1" }, { "600", "-1" },
        { "600", "" }, { "600", "99999999999999999999" } }) do
        assert.equal("error request 22\n", put(link, dir .. "/bad", words[1], words[2], ""))
      end
      assert.equal("error request 22\n", put(link, "relative", "600", "0", ""))
      -- One that is given up.
      local channel = link:open("put", dir .. "/half", "600", "100")
      channel:write("1234")
      channel:close()
      assert.equal("error request 38\n", link:ask("nothing"))
      assert.same({ "big" }, fs.list(dir))
      link:close()
    end))

    it("reads regular files", helper.task(function()
      local link = start()
      local dir = helper.scratch()
      local bytes = ALL_BYTES:rep(16384)
      helper.write(dir .. "/big", bytes)
      assert.is_true(link:ask("get", dir .. "/big", "0", "100000000") == "ok 4194304\n" .. bytes)
      assert.equal("ok 4194304\n" .. bytes:sub(11, 30), link:ask("get", dir .. "/big", "10", "20"))
      assert.equal("ok 4194304\n", link:ask("get", dir .. "/big", "5000000", "20"))
      assert.equal("ok 4194304\n", link:ask("get", dir .. "/big", "0", "0"))
      assert.equal("error open 2\n", link:ask("get", dir .. "/none", "0", "1"))
      assert.equal("error open 21\n", link:ask("get", dir, "0", "1"))
      assert.equal("error open 22\n", link:ask("get", "/dev/zero", "0", "1"))
      os.execute("mkfifo " .. dir .. "/fifo")
      assert.equal("error open 22\n", link:ask("get", dir .. "/fifo", "0", "1"))
      assert.equal("error request 22\n", link:ask("get", dir .. "/big", "x", "1"))
      -- One that is given up in the middle.
      local channel = link:open("get", dir .. "/big", "0", "100000000")
      task.sleep(0.05)
      channel:close()
      link:close()
    end))

    it("refuses what it does not know", helper.task(function()
      local link = start()
      assert.equal("error request 38\n", link:ask("nothing"))
      assert.equal("error request 38\n", link:ask(""))
      local sink = runner_link.sink(assert(link.mux:open("no end")))
      assert(helper.eventually(function()
        return sink.ended
      end))
      assert.equal("error request 22\n", sink.text())
      sink.channel:close()
      local pipe = link:open("pipe")
      local id = tostring(pipe:id())
      for _, words in ipairs({ {}, { "1" }, { id }, { id, id }, { id, "99999" }, { "x", id } }) do
        assert.equal("exec-failed pipes 22\ngone\n", link:ask("exec", unpack(words)))
      end
      pipe:close()
      link:close()
    end))

    it("holds little for a script whose output nobody reads", helper.task(function()
      local link = start()
      local before = rss_kb(link.runner:pid())
      local run = link:exec("exec cat /dev/zero", { unread = true })
      alive(run, 1)
      task.sleep(0.5)
      assert.is_true(rss_kb(link.runner:pid()) - before < 8000)
      run.out.channel:close()
      run.err.channel:close()
      run.out.ended = true
      assert.equal("signalled 13;gone;", run:finish())
      link:close()
    end))

    it("holds little for a script that does not read", helper.task(function()
      local link = start()
      local before = rss_kb(link.runner:pid())
      local run = link:exec("exec sleep 1000", { stdin = ("x"):rep(32 * 1024 * 1024) })
      alive(run, 1)
      task.sleep(0.5)
      assert.is_true(rss_kb(link.runner:pid()) - before < 8000)
      run.control.channel:write("kill\n")
      assert.equal("signalled 15;gone;", run:finish())
      -- Nor does what is left of it stop others.
      assert.equal("exited 0;gone;", link:exec("true"):finish())
      link:close()
    end))

    it("takes input that a script does not want", helper.task(function()
      local link = start()
      local run = link:exec("head -c 1; exec <&-; sleep 0.2; exit 4",
        { stdin = ("x"):rep(4 * 1024 * 1024) })
      assert.equal("exited 4;gone;", run:finish())
      assert.equal("x", run.out.text())
      link:close()
    end))

    it("gives up an engine that is silent for too long", helper.task(function()
      local link = start({ lease = 2000 })
      local run = link:exec(TREE)
      -- Pings are signs of life.
      for _ = 1, 8 do
        task.sleep(0.4)
        link.mux:ping()
      end
      alive(run, 5)
      assert(helper.eventually(function()
        return link.runner_ended.how
      end))
      assert.same({ how = "exit", number = 0 }, link.runner_ended)
      all_gone(run)
      link:release()
    end))

    describe("with a grace", function()
      local function start_graceful(grace)
        return start({ grace = grace or 60000, dir = helper.scratch() .. "/link" })
      end

      it("goes on with a new link where the old one ended", helper.task(function()
        local link = start_graceful()
        local run = link:exec("i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); "
          .. "echo line $i of the script; echo $i >&2; done; cat", { stdin = true })
        local expected_in = {}
        for cut = 1, 8 do
          local text = ("from the engine %d\n"):format(cut):rep(3000)
          expected_in[#expected_in + 1] = text
          run.stdin:write(text)
          assert(helper.eventually(function()
            return run.out.size >= cut * 1500
          end))
          link:cut()
          if cut % 2 == 0 then
            task.sleep(0.05)
          end
          assert.is_true(link:attach())
        end
        run.stdin:finish()
        assert.equal("exited 0;gone;", run:finish())
        local out, err = {}, {}
        for i = 1, 3000 do
          out[i] = ("line %d of the script\n"):format(i)
          err[i] = i .. "\n"
        end
        assert.is_true(run.out.text() == table.concat(out) .. table.concat(expected_in))
        assert.equal(table.concat(err), run.err.text())
        link:close()
        assert.is_false(exists(link.dir))
      end))

      it("takes a new link while it still believes in the old one", helper.task(function()
        local link = start_graceful()
        local run = link:exec("cat", { stdin = true })
        local old = link.child
        link.child = nil
        link.mux:suspend()
        assert.is_true(link:attach())
        run.stdin:write("x")
        run.stdin:finish()
        assert.equal("exited 0;gone;", run:finish())
        assert.equal("x", run.out.text())
        old:stdin():close()
        old:stdout():close()
        link:close()
      end))

      it("gives the link to nobody else", helper.task(function()
        local link = start_graceful()
        local run = link:exec(TREE)
        alive(run, 5)
        assert.matches("^error token 13 ", link:attach(("0"):rep(64)))
        assert.matches("^error token ", link:attach("x"))
        link:cut()
        -- Who says nothing, and who says something else.
        local idlers = {}
        for i = 1, 30 do
          local child = assert(proc.spawn(task.loop(), {
            argv = { "python3", "-c", ([[
import socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect("%s/link")
if %d %% 2: s.send(b"x" * 104)
print("in", flush=True)
time.sleep(1000)]]):format(link.dir, i) }, stdout = "pipe", stdin = "null",
          }))
          idlers[i] = { child = child }
          child:on_exit(function()
            idlers[i].ended = true
          end)
          assert(helper.eventually(function()
            return child:stdout():read(10)
          end))
        end
        assert.matches("^error token 13 ", link:attach(("0"):rep(64)))
        assert.matches("^error resume 22 ", link:attach(nil, 1e15))
        assert.is_true(link:attach())
        assert.is_true(#marked(run.mark) >= 5)
        run.control.channel:write("kill 0\n")
        assert.equal("signalled 9;gone;", run:finish())
        for _, idler in ipairs(idlers) do
          idler.child:kill("KILL")
          assert(helper.eventually(function()
            return idler.ended
          end))
          idler.child:close()
        end
        link:close()
      end))

      it("ends when it is over", helper.task(function()
        local link = start_graceful(300)
        local run = link:exec(TREE)
        alive(run, 5)
        link:cut()
        all_gone(run)
        assert(helper.eventually(function()
          return link.runner_ended.how
        end))
        assert.is_false(exists(link.dir))
        link:release()
      end))

      it("does not outlive garbage", helper.task(function()
        local link = start_graceful()
        local run = link:exec(TREE)
        alive(run, 5)
        link.child:stdin():write(("\255"):rep(100))
        all_gone(run)
        link:close()
      end))

      it("refuses a directory that is there, and a runner that is not", helper.task(function()
        local dir = helper.scratch()
        local pipe = io.popen((": | %s serve %s 1000 %s; echo $?"):format(
          table.concat(argv, " "), ("a"):rep(32), dir))
        assert.matches("^\na+ error directory 17 [^\n]+\n1\n$", pipe:read("*a"))
        pipe:close()
        pipe = io.popen(("printf '%s 0\\n' | %s attach %s %s; echo $?"):format(("0"):rep(64),
          table.concat(argv, " "), ("a"):rep(32), dir))
        assert.matches("^\na+ error connect 2 [^\n]+\n1\n$", pipe:read("*a"))
        pipe:close()
      end))
    end)

    it("works over a socket, and leaves its flags alone", helper.task(function()
      local ours, theirs = assert(sock.pair(task.loop()))
      local command = ("exec %s serve %s 0 <&3 >&3"):format(table.concat(argv, " "), ("a"):rep(32))
      local child = assert(proc.spawn(task.loop(), {
        argv = { "/bin/sh", "-c", command }, fds = { [3] = theirs },
        env = { "PATH=/usr/local/bin:/usr/bin:/bin" },
      }))
      local ended
      child:on_exit(function(_, number)
        ended = number
      end)
      local hello
      assert(helper.eventually(function()
        hello = ours:readline(200) or hello
        return hello and hello:find("hello")
      end))
      local flags = helper.read(("/proc/%d/fdinfo/%d"):format(system.pid(), theirs))
      -- O_NONBLOCK is 04000.
      assert.equal(0, math.floor(tonumber(flags:match("flags:%s*(%d+)"), 8) / 2048) % 2)
      proc.close_fd(theirs)
      ours:write(("0"):rep(64) .. "\n\0\0\0\2\1\0\0\8nothing\0")
      assert(helper.eventually(function()
        local bytes = ours:read(1000)
        return bytes and bytes:find("error request 38", 1, true)
      end))
      ours:close()
      assert(helper.eventually(function()
        return ended
      end))
      assert.equal(0, ended)
      child:close()
    end))

    it("joins a program with a socket", helper.task(function()
      local dir = helper.scratch()
      local peer
      local listener = assert(sock.listen(task.loop(), dir .. "/socket", {}, function(io)
        peer = io
        local sink = runner_link.sink(io)
        task.spawn(function()
          helper.eventually(function()
            return sink.ended
          end)
          io:write(sink.text())
          io:finish()
        end)
      end))
      local words = joining("connect", dir)
      local child = assert(proc.spawn(task.loop(), {
        argv = words,
        stdin = "pipe", stdout = "pipe",
      }))
      local code
      child:on_exit(function(_, number)
        code = number
      end)
      local big = ALL_BYTES:rep(4000)
      child:stdin():write(big)
      child:stdin():finish()
      local sink = runner_link.sink(child:stdout())
      assert(helper.eventually(function()
        return sink.ended and code
      end))
      assert.equal(0, code)
      assert.is_true(sink.text() == big)
      child:close()
      peer:close()
      listener:close()
    end))

    it("asks a socket, a line for a line", helper.task(function()
      local dir = helper.scratch()
      local line = ("x"):rep(200000)
      local replies = { line .. "\nmore", line }
      local held = {}
      local listener = assert(sock.listen(task.loop(), dir .. "/socket", {}, function(io)
        held[#held + 1] = io
        io:on_readable(function()
          local asked = io:readline(100)
          if asked then
            assert.equal("question", asked)
            io:on_readable(nil)
            io:write(table.remove(replies, 1))
            -- The second one ends without its line's end.
            if #replies == 0 then
              io:finish()
            end
          end
        end)
      end))
      for _, expected in ipairs({ { 0, line .. "\n" }, { 1, line } }) do
        local words = joining("ask", dir)
        local child = assert(proc.spawn(task.loop(), {
          argv = words, stdin = "pipe", stdout = "pipe",
        }))
        local code
        child:on_exit(function(_, number)
          code = number
        end)
        child:stdin():write("question\n")
        child:stdin():finish()
        local sink = runner_link.sink(child:stdout())
        assert(helper.eventually(function()
          return sink.ended and code
        end))
        assert.same({ expected[1], #expected[2] }, { code, #sink.text() })
        assert.is_true(sink.text() == expected[2])
        child:close()
      end
      for _, io in ipairs(held) do
        io:close()
      end
      listener:close()
    end))

    it("tells what it starts where its program is", helper.task(function()
      local link = start()
      local run = link:exec('printf %s "$FARCALL_RUNNER"')
      assert.equal("exited 0;gone;", run:finish())
      assert.equal(argv[1], run.out.text())
      link:close()
    end))

    it("says how it is to be called", helper.task(function()
      for _, words in ipairs({ "", "serve", "serve short 0", "serve " .. ("a"):rep(32) .. " x",
        "attach x", "nothing" })
      do
        local pipe = io.popen(("%s %s 2>&1 </dev/null; echo $?"):format(table.concat(argv, " "),
          words))
        assert.matches("^usage:.*\n2\n$", pipe:read("*a"))
        pipe:close()
      end
    end))
  end)
end
