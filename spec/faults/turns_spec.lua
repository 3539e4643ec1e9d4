-- SPDX-License-Identifier: MIT
-- Runs over SSH whose link is lost and cannot be had again as it was: from then on something on the
-- way keeps the output of each command until it ends. They go on by turns.
local faults = require("spec.support.faults")
local helper = require("spec.helper")
local sshd = require("spec.support.sshd")
local task = require("farcall.task")

-- Seconds, of which a half is for the link that cannot be had.
local GRACE = 6
local PATIENCE = 40

-- What every command of the host goes through, in sh: as it comes, or only when it has ended.
local AS_IT_COMES = 'exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
local AT_ITS_END = [=[
kept=$0.$$
sh -c "$SSH_ORIGINAL_COMMAND" > "$kept"
status=$?
cat "$kept"
rm -f "$kept"
exit $status
]=]

local CHANGED = "stream: its link was lost, and is made of execs that end: it did not say hello"

for _, case in ipairs({ { "libssh2", "c" }, { "openssh", "c" }, { "libssh2", "python" } }) do
  local client, form = unpack(case)

  describe(("a link of turns over ssh by %s, with the %s runner,"):format(client, form), function()
    local server, link, forced

    before_each(function()
      forced = helper.write(helper.scratch() .. "/forced", AS_IT_COMES)
      task.run(function()
        server = sshd.start("ForceCommand sh " .. forced)
        link = server:relay()
      end)
    end)

    after_each(function()
      server:stop()
    end)

    -- The link is lost, and after it there is none that stays.
    local function lose()
      helper.write(forced, AT_ITS_END)
      link.cut(true)
      assert(helper.eventually(function()
        return #server:pids() == 1
      end, PATIENCE), "the connection lives on")
      link.cut(false)
    end

    local function run(script, fault, over)
      local config = { runner_forms = { form } }
      for name, value in pairs(over or {}) do
        config[name] = value
      end
      return faults.with(config, function(engine, notes)
        local known = helper.write(server.dir .. "/known_link",
          (server:known_line():gsub(":%d+", ":" .. link.port, 1)))
        local result, err = faults.run(engine, notes, {
          backend = "ssh", script = script, options = {
            host = "127.0.0.1", port = link.port, user = server.user, agent = false,
            identity = { server.dir .. "/id" }, known_hosts = { known }, config = "none",
            client = client, keepalive = 1, link_grace = GRACE,
          },
        }, fault)
        assert(result, tostring(err))
        local said = tostring(result.error) .. "\n" .. result.stderr
        assert.equal("success", result.status, said)
        assert.equal("stream", result.transport)
        assert.equal(form, result.runner)
        assert.matches(CHANGED, result.transport_reason, 1, true)
        return result, notes:count()
      end)
    end

    it("carries the calls that were under way and those that come, each once", function()
      local result, notes = run([[
from farcall import note, parallel, terminal
texts = ["n%d" % i for i in range(8)]
assert parallel([(note, {"text": t, "wait": 1}) for t in texts], workers=8) == texts
for i in range(5):
    print(note(text="later%d" % i), flush=True)
far = terminal("echo far; exit 3")
print(far["output"].strip(), far["exit_code"])
]], function(noted)
        noted:await("n7")
        lose()
      end)
      assert.equal("later0\nlater1\nlater2\nlater3\nlater4\nfar 3\n", result.output)
      local expected = {}
      for i = 0, 7 do
        expected["n" .. i] = 1
      end
      for i = 0, 4 do
        expected["later" .. i] = 1
      end
      assert.same(expected, notes)
      assert.equal(14, result.tool_calls_made)
    end)

    it("loses no byte of what flows, both ways", function()
      local result = run([[
import hashlib
from farcall import note
print(note(text="begun"), flush=True)
text = "".join("%08d\n" % i for i in range(300000))
assert note(text=text[:1500000]) == text[:1500000]
print(text, end="")
]], function(noted)
        noted:await("begun")
        lose()
      end, { limits = { stdout_bytes = 4000000 } })
      local lines = { "begun\n" }
      for i = 0, 299999 do
        lines[#lines + 1] = ("%08d\n"):format(i)
      end
      assert.is_true(result.output == table.concat(lines), "other output")
    end)
  end)
end
