-- SPDX-License-Identifier: MIT
-- What an engine needs while a script says much: the same, however much it is. As root.
local cli = require("spec.support.cli")
local docker = require("spec.support.docker")
local helper = require("spec.helper")
local task = require("farcall.task")

local SSH = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/ssh/"
local MOST_KB = 30 * 1024
local BYTES = 128 * 1024 * 1024 -- to each stream, at the same time

local SCRIPT = ("head -c %d /dev/zero >&2 & head -c %d /dev/zero; wait"):format(BYTES, BYTES)

local PLACES = {
  ["this machine"] = {},
  docker = { "-b", "docker", "-o", "image=farcall-spec/busybox" },
  ssh = {
    "-b", "ssh", "-o", "host=127.0.0.1",
    "-o", "port=" .. ((helper.read(SSH .. "port.main") or ""):match("%d+") or "22"),
    "-o", "user=farcall-far", "-o", "identity=" .. SSH .. "ed25519",
    "-o", "known_hosts=" .. SSH .. "known_hosts", "-o", "agent=false", "-o", "config=none",
  },
}

-- Runs the script and counts its output; the most that the engine has had in memory, in KiB.
---@async
local function most_of(home, words)
  local line = {
    "mkfifo o e; wc -c < o > out & wc -c < e > err &",
    ("exec '%s' run --timeout 100 -l sh"):format(cli.program()),
  }
  for _, word in ipairs(words) do
    line[#line + 1] = "'" .. word .. "'"
  end
  line[#line + 1] = ("-c '%s' > o 2> e"):format(SCRIPT)
  local most = 0
  local running = home:start({ "-c", table.concat(line, " ") }, { program = "/bin/sh" })
  helper.eventually(function()
    local status = helper.read(("/proc/%d/status"):format(running.child:pid())) or ""
    most = math.max(most, tonumber(status:match("VmHWM:%s*(%d+)")) or 0)
    return running.ended.is_set()
  end, 120)
  return most, cli.finish(running)
end

describe("an engine whose script says much", function()
  setup(docker.setup)

  for name, words in pairs(PLACES) do
    it("stays small: " .. name, function()
      local home = cli.home()
      local most, got = task.run(most_of, home, words)
      assert.equal(0, got.code)
      for _, file in ipairs({ "out", "err" }) do
        assert.is_truthy(helper.eventually(function()
          return tonumber(helper.read(home.work .. "/" .. file)) == BYTES
        end, 20), file)
      end
      assert.is_true(most > 1024 and most < MOST_KB, most .. " KiB")
    end)
  end
end)
