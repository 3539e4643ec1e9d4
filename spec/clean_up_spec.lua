-- SPDX-License-Identifier: MIT
-- However a run ends, nothing of it is left in its environment: seen from this machine, whose
-- processes those of the containers are too.
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local journal_dir = "/state/farcall/runs/"
local json = require("farcall.core.json")
local task = require("farcall.task")

-- A call, then a process in a session of its own that minds no TERM and bears a number as its name.
local SCRIPT = [[
import os, subprocess, sys, time
from farcall import terminal
terminal("echo called")
print("up", os.environ["FARCALL_RUN_DIR"], flush=True)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; exec sleep %d"])
time.sleep(100)
]]

local TESTBED = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/"
local SSH = TESTBED .. "ssh/"

local function over_ssh(client)
  local port = (helper.read(SSH .. "port.main") or ""):match("%d+") or "22"
  return {
    "-b", "ssh", "-o", "host=127.0.0.1", "-o", "port=" .. port, "-o", "user=farcall-far",
    "-o", "identity=" .. SSH .. "ed25519", "-o", "known_hosts=" .. SSH .. "known_hosts",
    "-o", "agent=false", "-o", "config=none", "-o", "client=" .. client,
  }
end

local PLACES = {
  { "docker", { "-b", "docker", "-o", "image=farcall-spec/debian", "--key", "cleanup" } },
  { "bubblewrap", { "-b", "bubblewrap" } },
  { "singularity", {
    "-b", "singularity", "-o", "program=" .. TESTBED .. "apptainer/bin/apptainer",
    "-o", "image=" .. TESTBED .. "apptainer/debian.sif", "--key", "cleanup",
  } },
  -- A runner waits for another link, as long as it is told to.
  { "ssh by libssh2", over_ssh("libssh2"), { "-o", "link_grace=1" } },
  { "local", {} },
}

local WAYS = {}
for _, place in ipairs(PLACES) do
  for _, transport in ipairs({ "stream", "file" }) do
    local words = { "--transport", transport }
    for _, list in ipairs({ place[2], transport == "stream" and place[3] or {} }) do
      for _, word in ipairs(list) do
        words[#words + 1] = word
      end
    end
    WAYS[#WAYS + 1] = { place[1] .. ", by " .. transport, words }
  end
end

local next_number = 100000 + tonumber(helper.read("/proc/self/stat"):match("^%d+")) * 10

local function count(number)
  local pipe = assert(io.popen(("pgrep -fc '^sleep %d$'"):format(number)))
  local found = tonumber(pipe:read("*l"))
  pipe:close()
  return found
end

---@async
local function until_gone(number, seconds)
  for _ = 1, seconds * 10 do
    if count(number) == 0 then
      return true
    end
    task.sleep(0.1)
  end
  return false
end

-- Starts a run, proves that its process lives, lets `stop` end it.
local function ended_by(way, more, stop)
  local home = cli.home()
  next_number = next_number + 1
  local number = next_number
  local argv = { "run" }
  for _, list in ipairs({ way[2], more, { "--json", "-c", SCRIPT:format(number) } }) do
    for _, word in ipairs(list) do
      argv[#argv + 1] = word
    end
  end
  local result = task.run(function()
    local running = home:start(argv)
    for _ = 1, 300 do
      if count(number) > 0 or running.ended.is_set() then
        break
      end
      task.sleep(0.1)
    end
    assert.equal(1, count(number), table.concat(running.out) .. table.concat(running.err))
    stop(running)
    local got = cli.finish(running)
    assert.is_true(until_gone(number, 15))
    return got
  end)
  return result, home
end

local function result_of(got)
  return assert(json.decode(got.out), got.out .. got.err)
end

local function directory_of(result)
  return assert(result.output:match("^up (/%S+/farcall%-run%-%x+)\n$"))
end

for _, way in ipairs(WAYS) do
  describe("a run in " .. way[1], function()
    teardown(function()
      os.execute("docker ps -aq --filter label=farcall.key=cleanup | xargs -r docker rm -f "
        .. "> /dev/null")
    end)

    local function listing()
      -- With a key the same container is still there and can be asked.
      local home = cli.home()
      local argv = { "exec" }
      for _, word in ipairs(way[2]) do
        argv[#argv + 1] = word
      end
      -- Which one, exec does not want to know.
      table.remove(argv, 2)
      table.remove(argv, 2)
      argv[#argv + 1] = "-c"
      argv[#argv + 1] = "ls -d /tmp/farcall-run-* /tmp/farcall-in-* 2>/dev/null; :"
      return home:run(argv).out
    end

    it("leaves nothing at its deadline", function()
      local got = ended_by(way, { "--timeout", "5" }, function() end)
      assert.equal(124, got.code)
      local result = result_of(got)
      assert.equal("timeout", result.status)
      assert.equal(1, #result.calls)
      assert.equal("done", result.calls[1].outcome)
      local dir = directory_of(result)
      assert.is_nil(listing():find(dir, 1, true))
    end)

    for name, code in pairs({ INT = 130, TERM = 143 }) do
      it("leaves nothing after SIG" .. name, function()
        local got = ended_by(way, {}, function(running)
          running.child:kill(name)
        end)
        assert.equal(code, got.code)
        local result = result_of(got)
        assert.equal("interrupted", result.status)
        assert.equal(1, #result.calls)
        local dir = directory_of(result)
        assert.is_nil(listing():find(dir, 1, true))
      end)
    end

    it("leaves nothing after SIGKILL of the engine, and a journal", function()
      local got, home = ended_by(way, {}, function(running)
        running.child:kill("KILL")
      end)
      assert.equal(128 + 9, got.code)
      local runs = assert(fs.list(home.dir .. journal_dir))
      assert.equal(1, #runs)
      local events = helper.read(home.dir .. journal_dir .. runs[1] .. "/events.jsonl")
      assert.is_truthy(events:find('"outcome":"done"', 1, true), events)
    end)
  end)
end
