-- SPDX-License-Identifier: MIT
-- A host, or the way to it, that goes in the middle of a run by SSH; and hosts that are refused.
local faults = require("spec.support.faults")
local helper = require("spec.helper")
local runner_link = require("farcall.clients.runner_link")
local sshd = require("spec.support.sshd")
local task = require("farcall.task")
local transport = require("farcall.transports.file")

-- Seconds that the far side waits for a sign or a new link, where a spec waits for it.
local LEASE, GRACE = 4, 4
-- One each: it takes its time.
local STALLED = { libssh2 = "calling", openssh = "idle" }

local function broken(how)
  return {
    status = "error", kind = "lost", output = "begun first\n",
    calls = how == "calling" and { "note done", "note unknown" } or { "note done" },
  }
end

local function once(notes)
  for text, count in pairs(notes:count()) do
    assert.equal(1, count, text)
  end
end

local CALLS = [[
from farcall import note, parallel
for i in range(5):
    assert note(text="s%d" % i) == "s%d" % i
texts = ["n%d" % i for i in range(8)]
assert parallel([(note, {"text": t}) for t in texts], workers=8) == texts
print("good")
]]

local function specify(client, way)
  describe(("a run over ssh by %s, calls by %s"):format(client, way), function()
    local server, lease, ask_every

    before_each(function()
      lease, ask_every = transport.LEASE, runner_link.ASK_EVERY
    end)

    after_each(function()
      transport.LEASE, runner_link.ASK_EVERY = lease, ask_every
      if server then
        server:stop()
      end
      server = nil
    end)

    local function begin(lines)
      task.run(function()
        server = sshd.start(lines)
      end)
    end

    local function begin_linked(delay)
      begin()
      return task.run(function()
        return server:relay(nil, delay)
      end)
    end

    local function options(over)
      local all = {
        host = "127.0.0.1", port = server.port, user = server.user, agent = false,
        identity = { server.dir .. "/id" }, known_hosts = { server.dir .. "/known_hosts" },
        config = "none", client = client, keepalive = 1, link_grace = GRACE,
      }
      for name, value in pairs(over or {}) do
        all[name] = value
      end
      return all
    end

    -- Options that go through a relay.
    local function through(link, over)
      local known = helper.write(server.dir .. "/known_link",
        (server:known_line():gsub(":%d+", ":" .. link.port, 1)))
      local all = options({ port = link.port, known_hosts = { known } })
      for name, value in pairs(over or {}) do
        all[name] = value
      end
      return all
    end

    -- A run whose link is broken by fault(); its processes are gone within so many seconds.
    local function broken_by(how, over, seconds, fault)
      local number = faults.number()
      faults.with({}, function(engine, notes)
        local result, err = faults.run(engine, notes, {
          backend = "ssh", options = over, script = faults.script(how, number), transport = way,
        }, function()
          faults.staying(notes, how, number)
          fault()
        end)
        assert(result, tostring(err))
        faults.ended(result, broken(how))
        assert.same({ "ssh", way }, { result.backend, result.transport })
        once(notes)
        faults.gone(number, seconds)
      end)
    end

    for _, how in ipairs({ "calling", "idle" }) do
      it("says lost when sshd is killed, " .. how, function()
        begin()
        broken_by(how, options(), 10, function()
          server:kill()
        end)
      end)

      it("says lost when the connection is cut, " .. how, function()
        local link = begin_linked()
        broken_by(how, through(link), 10, function()
          link.cut(true)
        end)
      end)
    end

    it("says lost when the connection stalls, and the far side ends by itself", function()
      local link = begin_linked()
      transport.LEASE, runner_link.ASK_EVERY = LEASE, LEASE / 4.5
      broken_by(STALLED[client], through(link), LEASE + GRACE + 10, function()
        link.stall(true)
      end)
    end)

    it("repeats no call whose reply is lost on the way", function()
      local link = begin_linked()
      faults.with({}, function(engine, notes)
        local job = {
          backend = "ssh", options = through(link), transport = way,
          script = "from farcall import note; print(note(text='first', wait=1))",
        }
        local result = assert(faults.run(engine, notes, job, function()
          notes:await("first")
          link.stall(true)
        end))
        -- It was carried out; that the script never heard of it, the run's error tells.
        faults.ended(result, {
          status = "error", kind = "lost", calls = { "note done" }, output = "",
        })
        link.stall(false)
        job.language, job.script = "python", "from farcall import note; print(note(text='second'))"
        faults.ended(assert(engine:run(job)),
          { status = "success", calls = { "note done" }, output = "second\n" })
        assert.same({ first = 1, second = 1 }, notes:count())
      end)
    end)

    it("goes on when the connection stalls for less than that", function()
      local link = begin_linked()
      faults.with({}, function(engine, notes)
        local result = assert(faults.run(engine, notes, {
          backend = "ssh", options = through(link, { keepalive = 15 }), transport = way,
          script = "from farcall import note\nnote(text='first', wait=1)\n" .. CALLS,
        }, function()
          notes:await("first")
          link.stall(true)
          task.sleep(3)
          link.stall(false)
        end))
        assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
        assert.equal(14, result.tool_calls_made)
        once(notes)
      end)
    end)

    it("works over a link of 200 ms", function()
      local link = begin_linked(0.1)
      faults.with({}, function(engine, notes)
        local result, err = engine:run({
          backend = "ssh", options = through(link, { keepalive = 15 }), script = CALLS,
          language = "python", transport = way,
        })
        assert(result, tostring(err))
        assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
        assert.equal(13, result.tool_calls_made)
        once(notes)
      end)
    end)

    it("answers 32 oneshots beside a script where the server takes 10 sessions",
      function()
        begin("MaxSessions 10")
        faults.with({}, function(engine, notes)
          local job = {
            backend = "ssh", options = options({ keepalive = 15 }), transport = way,
            script = "from farcall import note\nnote(text='first', wait=1)\n" .. CALLS,
          }
          local result = assert(faults.run(engine, notes, job, function()
            notes:await("first")
            sshd.together(32, function(i)
              local got = assert(engine:exec({
                backend = "ssh", options = job.options, command = "sleep 0.2; echo " .. i,
              }))
              assert.equal(i .. "\n", got.stdout)
            end)
          end))
          assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
          once(notes)
        end)
      end)

    -- Nothing may have been executed anywhere.
    local function refused(engine, notes, over, kind, code)
      local mark = helper.scratch() .. "/ran"
      local none, err = engine:run({
        backend = "ssh", options = over, language = "python", transport = way,
        script = ("open(%q, 'w')\nfrom farcall import note; note(text='third')"):format(mark),
      })
      assert.is_nil(none)
      assert.equal(kind, err.kind)
      assert.equal(code, code and err.code)
      assert.is_nil(helper.read(mark))
      assert.is_nil(notes:count().third)
      return err
    end

    it("refuses a host whose key has changed, also one that it has used before",
      function()
        begin()
        faults.with({}, function(engine, notes)
          local job = {
            backend = "ssh", options = options(), language = "python", transport = way,
            script = "from farcall import note; print(note(text='first'))",
          }
          faults.ended(assert(engine:run(job)),
            { status = "success", calls = { "note done" }, output = "first\n" })
          server:kill()
          sshd.run(("rm %s/host*; ssh-keygen -q -t ed25519 -N '' -f %s/host"):format(server.dir,
            server.dir))
          server:start()
          assert.is_truthy(helper.eventually(function()
            local env = engine:environment("ssh", job.options)
            return not env
          end))
          local err = refused(engine, notes, job.options, "denied", "HOSTKEY")
          assert.is_truthy(tostring(err):find("ssh-keygen -R", 1, true), tostring(err))
        end)
      end)

    it("refuses an unknown host, and says so when its key is the wrong one", function()
      begin()
      faults.with({}, function(engine, notes)
        local none = helper.write(server.dir .. "/none", "")
        refused(engine, notes, options({ known_hosts = { none } }), "denied", "UNKNOWN_HOST")
        sshd.run(("ssh-keygen -q -t ed25519 -N '' -f %s/wrong"):format(server.dir))
        refused(engine, notes, options({ identity = { server.dir .. "/wrong" } }), "denied", "AUTH")
        server:kill()
        refused(engine, notes, options(), "unavailable")
      end)
    end)

    it("is exact behind start files that print and take their time", function()
      local home = helper.scratch()
      helper.write(home .. "/.bashrc", "echo WELCOME\nprintf 'no newline'\necho LOUD >&2\n"
        .. "sleep 0.2\nprintf '\\377\\0\\n'\n")
      begin(("SetEnv HOME=%s SHLVL=0"):format(home))
      faults.with({}, function(engine, notes)
        local over = options({ keepalive = 15 })
        local result = assert(engine:run({
          backend = "ssh", options = over, language = "python", transport = way,
          script = CALLS .. [[
import sys
from farcall import terminal
print(terminal("printf out; printf err >&2; exit 7"))
sys.stderr.write("mine\n")
sys.exit(3)
]],
        }))
        assert.equal("error", result.status)
        assert.equal(3, result.exit_code)
        assert.equal("mine\n", result.stderr)
        assert.is_truthy(result.output:find("^good\n{[^\n]*\n$"), result.output)
        once(notes)
        for _, timeout in ipairs({ false, 50 }) do
          local got = assert(engine:exec({
            backend = "ssh", options = over, command = "cat; echo err >&2; exit 7",
            stdin = "\0\255in", timeout = timeout or nil,
          }))
          assert.same({ "\0\255in", "err\n", 7 }, { got.stdout, got.stderr, got.exit_code })
        end
      end)
    end)
  end)
end

for _, client in ipairs({ "libssh2", "openssh" }) do
  for _, way in ipairs({ "stream", "file" }) do
    specify(client, way)
  end
end
