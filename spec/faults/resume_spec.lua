-- SPDX-License-Identifier: MIT
-- Runs over SSH whose connection breaks and comes back: the runner over there waits, the engine
-- goes to it again, and the script notices nothing but the time.
local faults = require("spec.support.faults")
local helper = require("spec.helper")
local runner = require("farcall.clients.runner")
local runner_link = require("farcall.clients.runner_link")
local sshd = require("spec.support.sshd")
local task = require("farcall.task")

-- Seconds: more than a new connection takes on any machine.
local GRACE = 40
local SHORT_GRACE = 2
local PATIENCE = 40

local function once(notes, wanted)
  local expected = {}
  for _, text in ipairs(wanted) do
    expected[text] = 1
  end
  assert.same(expected, notes:count())
end

-- How a script is lost, by each client one way.
local LOST = { libssh2 = "calling", openssh = "idle" }
local HAS_PROGRAM = { libssh2 = true, openssh = false }

-- What every command of the host goes through, in sh.
local EATS = 'exec sh -c "$SSH_ORIGINAL_COMMAND" < /dev/null'
local KEEPS = 'mkfifo "$0.in" 2> /dev/null; exec sh -c "$SSH_ORIGINAL_COMMAND" <> "$0.in"'
local HOLDS_NO_PROGRAM = [=[
[ "$1" ] || exec unshare -m sh "$0" inside
for dir in /tmp /var/tmp /dev/shm; do
  mount --bind $dir $dir && mount -o remount,bind,noexec $dir || exit 1
done
mount --bind /dev/null "$(readlink -f /usr/bin/python3)" || exit 1
HOME=$(dirname "$0") PATH=/usr/bin:/bin
unset XDG_CACHE_HOME
export HOME PATH
exec sh -c "$SSH_ORIGINAL_COMMAND"
]=]
local PYTHON = 'from farcall import note, terminal\nprint(note(text="first"))\n'
  .. 'print(terminal("cat; echo far")["output"])\n'

for _, client in ipairs({ "libssh2", "openssh" }) do
  describe("without a stream over ssh by " .. client, function()
    local server

    after_each(function()
      server:stop()
    end)

    local function job_of(over)
      local job = {
        backend = "ssh", language = "python", script = PYTHON, options = {
          host = "127.0.0.1", port = server.port, user = server.user, agent = false,
          identity = { server.dir .. "/id" }, known_hosts = { server.dir .. "/known_hosts" },
          config = "none", client = client,
        },
      }
      for name, value in pairs(over) do
        job[name] = value
      end
      return job
    end

    local function run(forced, over, reason, lines)
      faults.with({}, function(engine, notes)
        local dir = helper.scratch()
        server = sshd.start(("ForceCommand sh %s\n%s"):format(
          helper.write(dir .. "/forced", forced), lines or ""))
        for round = 1, 2 do
          local result, err = engine:run(job_of(over))
          assert(result, tostring(err))
          faults.ended(result, { status = "success", calls = over.calls or { "note done",
            "terminal done" }, output = over.output or "first\nfar\n\n" })
          assert.equal("file", result.transport)
          assert.matches(reason[round], result.transport_reason, 1, true)
        end
        assert.same({ first = 2 }, notes:count())
      end)
    end

    local function run_by_stream(over)
      faults.with({}, function(engine)
        server = sshd.start("SetEnv HOME=" .. over.home)
        local job = job_of({ script = "echo here", language = "sh" })
        if over.every then
          local link = server:relay(over.every, over.delay)
          job.options.port = link.port
          job.options.known_hosts = { helper.write(server.dir .. "/known_link",
            (server:known_line():gsub(":%d+", ":" .. link.port, 1))) }
        end
        local result = assert(engine:run(job))
        faults.ended(result, { status = "success", calls = {}, output = "here\n" })
        assert.same({ "stream", "c" }, { result.transport, result.runner },
          result.transport_reason)
      end)
    end

    local DEAF = { "stream: what is written to an exec's standard input does not arrive there",
      "stream: an exec of this environment has no live standard input" }

    it("goes by files where a shell eats what comes", function()
      run(EATS, {}, DEAF)
    end)

    -- One host has the program already, and the runner says hello; the other one waits for it.
    it("goes by files where nothing that is sent arrives", function()
      local home = helper.scratch()
      if HAS_PROGRAM[client] then
        run_by_stream({ home = home })
        server:stop()
      end
      -- It is found out long before these have passed.
      local hello, first = runner_link.HELLO_TIMEOUT, runner.FIRST_ANSWER
      runner_link.HELLO_TIMEOUT, runner.FIRST_ANSWER = 300, 300
      local ok, failure = pcall(run, KEEPS, {}, DEAF, "SetEnv HOME=" .. home)
      runner_link.HELLO_TIMEOUT, runner.FIRST_ANSWER = hello, first
      assert(ok, failure)
    end)

    it("is not thought deaf because its line is slow", function()
      -- 64 kbit/s: the program takes 12 s.
      run_by_stream({ home = helper.scratch(), every = 400, delay = 0.1 })
    end)

    it("goes by files where nothing can hold the program, and there is no Python", function()
      local why = "stream: no directory takes a program; there is no python3"
      run(HOLDS_NO_PROGRAM, {
        language = "sh", script = "call note text=first\n", calls = { "note done" },
        output = "first\n",
      }, { why, why })
    end)
  end)
end

for _, client in ipairs({ "libssh2", "openssh" }) do
  describe("a lost link of a runner over ssh by " .. client, function()
    local server, link

    before_each(function()
      task.run(function()
        server = sshd.start()
        link = server:relay()
      end)
    end)

    after_each(function()
      server:stop()
    end)

    local function options(over)
      local known = helper.write(server.dir .. "/known_link",
        (server:known_line():gsub(":%d+", ":" .. link.port, 1)))
      local all = {
        host = "127.0.0.1", port = link.port, user = server.user, agent = false,
        identity = { server.dir .. "/id" }, known_hosts = { known }, config = "none",
        client = client, keepalive = 1, link_grace = GRACE,
      }
      for name, value in pairs(over or {}) do
        all[name] = value
      end
      return all
    end

    -- The connection is gone at both ends when this returns, and no new one is let through.
    local function cut()
      link.cut(true)
      assert(helper.eventually(function()
        return #server:pids() == 1
      end, PATIENCE), "the connection lives on")
    end

    local function logins()
      local _, count = helper.read(server.dir .. "/log"):gsub("Accepted publickey", "")
      return count
    end

    -- Connections are let through again, and the engine has made its so-manieth.
    local function mend(login)
      link.cut(false)
      assert(helper.eventually(function()
        return logins() >= login
      end, PATIENCE), "nobody comes back")
    end

    local function run(engine, notes, script, fault, over)
      local result, err = faults.run(engine, notes,
        { backend = "ssh", options = options(over), script = script }, fault)
      assert(result, tostring(err))
      assert.equal("stream", result.transport, tostring(result.transport_reason))
      return result
    end

    local function good(result, output)
      local said = tostring(result.error) .. "\n" .. result.stderr
      assert.equal("success", result.status, said)
      assert.equal(0, result.exit_code, said)
      assert.is_true(result.output == output, "another output of " .. #result.output .. " bytes\n"
        .. result.output:sub(1, 300))
    end

    it("does not stop a script that computes, nor what it says and calls meanwhile", function()
      local go = helper.scratch() .. "/go"
      faults.with({}, function(engine, notes)
        local result = run(engine, notes, ([[
import os, time
from farcall import note
print("begun", note(text="first"), flush=True)
open(%q + "ing", "w").close()
while not os.path.exists(%q):
    time.sleep(0.02)
for i in range(100):
    print(i, flush=True)
open(%q + "ne", "w").close()
print(note(text="second"))
]]):format(go, go, go), function()
          -- Until then it would wait for its reply.
          assert(helper.eventually(function()
            return helper.read(go .. "ing")
          end, PATIENCE))
          cut()
          helper.write(go, "")
          assert(helper.eventually(function()
            return helper.read(go .. "ne")
          end, PATIENCE), "the script stands still")
          assert.is_nil(notes:count().second)
          -- Whoever comes now waits too.
          local oneshot = task.spawn(engine.exec, engine,
            { backend = "ssh", options = options(), command = "echo also" })
          task.sleep(0.2)
          link.cut(false)
          local ran, got, err = oneshot:join()
          assert(ran and got, tostring(got or err))
          assert.equal("also\n", got.stdout)
        end)
        local lines = {}
        for i = 0, 99 do
          lines[#lines + 1] = i .. "\n"
        end
        good(result, "begun first\n" .. table.concat(lines) .. "second\n")
        once(notes, { "first", "second" })
        assert.equal(2, logins())
      end)
    end)

    local CALLING = [[
from farcall import note, parallel
texts = ["n%d" % i for i in range(8)]
assert parallel([(note, {"text": t, "wait": 1}) for t in texts], workers=8) == texts
print(note(text="last"))
]]

    local function in_flight(form)
      faults.with({ runner_forms = { form } }, function(engine, notes)
        local result = run(engine, notes, CALLING, function()
          notes:await("n7")
          cut()
          -- The replies come when there is nobody to be told.
          task.sleep(1.5)
          link.cut(false)
        end)
        good(result, "last\n")
        assert.equal(form, result.runner)
        assert.equal(9, result.tool_calls_made)
        once(notes, { "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "last" })
        assert.equal(2, logins())
      end)
    end

    it("costs no call that is under way, and makes none twice", function()
      in_flight("c")
    end)

    if client == "libssh2" then
      it("is the same to the Python form", function()
        in_flight("python")
      end)
    end

    it("loses no byte of 10 MB that flow, and doubles none", function()
      local lines = {}
      for i = 0, 99999 do
        lines[#lines + 1] = ("%08d %s\n"):format(i, ("the quick brown fox jumps over a lazy dog "
          .. "and what else there is to be written to fill up this line"):sub(1, 90))
      end
      local whole = table.concat(lines)
      task.run(function()
        -- So slow that it is cut in the middle.
        link = server:relay(200000)
      end)
      faults.with({ limits = { stdout_bytes = 16000000 } }, function(engine, notes)
        local result = run(engine, notes, [[
import sys, threading
from farcall import note
callers = []
text = ("the quick brown fox jumps over a lazy dog "
        "and what else there is to be written to fill up this line")[:90]
for i in range(100000):
    sys.stdout.write("%08d %s\n" % (i, text))
    if i % 30000 == 20000:
        callers.append(threading.Thread(target=note, kwargs={"text": "at%d" % i}))
        callers[-1].start()
for caller in callers:
    caller.join()
]], function()
          for i, at in ipairs({ 20000, 50000, 80000 }) do
            notes:await("at" .. at)
            cut()
            mend(i + 1)
          end
        end)
        good(result, whole)
        once(notes, { "at20000", "at50000", "at80000" })
      end)
    end)

    it("ends a script when it lasts too long, " .. LOST[client], function()
      local how, number = LOST[client], faults.number()
      faults.with({}, function(engine, notes)
        local result = run(engine, notes, faults.script(how, number), function()
          faults.staying(notes, how, number)
          cut()
        end, { link_grace = SHORT_GRACE })
        faults.ended(result, {
          status = "error", kind = "lost", error = "link to its runner was lost: %S",
          output = "begun first\n",
          calls = how == "calling" and { "note done", "note unknown" } or { "note done" },
        })
        once(notes, how == "calling" and { "first", "second" } or { "first" })
        faults.gone(number, SHORT_GRACE + 20)
      end)
    end)

    it("is not waited for when the engine ends, and the script ends too", function()
      local number, grace = faults.number(), 12
      faults.with({}, function(engine, notes)
        local running = task.spawn(engine.run, engine, {
          backend = "ssh", options = options({ link_grace = grace }), language = "python",
          script = faults.script("idle", number), timeout = 50,
        })
        faults.staying(notes, "idle", number)
        -- From now on a new connection comes to be, and nothing is ever said on it.
        link.stall(true)
        cut()
        link.cut(false)
        task.sleep(1)
        local since = task.now()
        engine:close()
        assert.is_true(task.now() - since < grace - 4)
        local _, result = running:join()
        faults.ended(result, {
          status = "error", kind = "lost", calls = { "note done" }, output = "begun first\n",
        })
        faults.gone(number, grace + 20)
      end)
    end)

    it("is made anew with a program that has to be sent again", function()
      local home = helper.scratch()
      server:stop()
      task.run(function()
        server = sshd.start(("SetEnv HOME=%s SHLVL=2"):format(home))
        link = server:relay()
      end)
      faults.with({}, function(engine, notes)
        local result = run(engine, notes, [[
from farcall import note
print(note(text="first", wait=1))
print(note(text="second"))
]], function()
          notes:await("first")
          assert.equal(0, os.execute(("ls %s/.cache/farcall/runner-* > /dev/null && "
            .. "rm -r %s/.cache"):format(home, home)))
          cut()
          mend(2)
        end)
        good(result, "first\nsecond\n")
        assert.equal("c", result.runner)
        once(notes, { "first", "second" })
      end)
    end)

    it("is noticed where the connection only stalls", function()
      faults.with({}, function(engine, notes)
        local over = options()
        local result = run(engine, notes, [[
from farcall import note
print(note(text="first", wait=1))
print(note(text="second"))
]], function()
          notes:await("first")
          link.stall(true)
          local env = assert(engine:environment("ssh", over))
          assert(helper.eventually(function()
            return not env.inner:alive()
          end, PATIENCE), "nobody notices")
          link.cut(true)
          link.stall(false)
          task.sleep(0.5)
          link.cut(false)
        end)
        good(result, "first\nsecond\n")
        once(notes, { "first", "second" })
      end)
    end)

    it("may be lost again and again", function()
      faults.with({}, function(engine, notes)
        local result = run(engine, notes, [[
from farcall import note
for i in range(5):
    print(note(text="r%d" % i, wait=0.3), flush=True)
]], function()
          for i = 0, 4 do
            notes:await("r" .. i)
            cut()
            mend(i + 2)
          end
        end)
        good(result, "r0\nr1\nr2\nr3\nr4\n")
        once(notes, { "r0", "r1", "r2", "r3", "r4" })
        assert.equal(6, logins())
      end)
    end)
  end)
end
