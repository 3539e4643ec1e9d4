-- SPDX-License-Identifier: MIT
-- Wall clocks that jump by a day and back, under libfaketime: the engine's, and that of the
-- environment. Only CLOCK_MONOTONIC goes on as it should.
local cli = require("spec.support.cli")
local docker = require("spec.support.docker")
local faults = require("spec.support.faults")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local task = require("farcall.task")

local JUMPS = { "+1d", "-1d", "+0", "-400d", "+0" }

local function library()
  for _, name in ipairs(assert(fs.list("/usr/lib"))) do
    local path = "/usr/lib/" .. name .. "/faketime/libfaketimeMT.so.1"
    if fs.stat(path) then
      return path
    end
  end
  error("libfaketime is not installed")
end

-- What makes a program see the clock that the file says.
local function variables(preload, file)
  return {
    LD_PRELOAD = preload, FAKETIME_TIMESTAMP_FILE = file, FAKETIME_NO_CACHE = "1",
    FAKETIME_DONT_FAKE_MONOTONIC = "1",
    -- In a sanitized build its library wants to be the first.
    ASAN_OPTIONS = "verify_asan_link_order=0",
  }
end

-- Renamed into place: nobody sees an empty file.
local function set(file, offset)
  helper.write(file .. ".new", offset .. "\n")
  assert(fs.rename(file .. ".new", file))
end

---@async
local function jump(file)
  for _, offset in ipairs(JUMPS) do
    set(file, offset)
    task.sleep(0.4)
  end
end

local CALLS = [[
import time
from farcall import parallel, remaining, terminal, retry
print("up", flush=True)
before = remaining().seconds
clock = [time.time()]
for i in range(15):
    parallel([(terminal, ("echo x >> %s",)), (terminal, ("sleep 0.15",))])
    clock.append(time.time())
assert 0 < before - remaining().seconds < 50
print(any(abs(b - a) > 80000 for a, b in zip(clock, clock[1:])))
]]

describe("a clock that jumps", function()
  local file

  before_each(function()
    file = helper.scratch() .. "/clock"
    set(file, "+0")
  end)

  local function count(path)
    return select(2, helper.read(path):gsub("x\n", ""))
  end

  for _, transport in ipairs({ "uds", "file" }) do
    it("under the engine is nothing to a run by " .. transport, function()
      local home = cli.home()
      local notes = home.dir .. "/notes"
      local got = task.run(function()
        local running = home:start({
          "run", "--json", "--timeout", "50", "--transport", transport, "-c", CALLS:format(notes),
        }, { env = variables(library(), file) })
        assert(helper.eventually(function()
          return fs.stat(notes)
        end, 50), table.concat(running.err))
        jump(file)
        return cli.finish(running)
      end)
      local result = assert(json.decode(got.out), got.out .. got.err)
      assert.equal("success", result.status, result.stderr)
      assert.equal("up\nFalse\n", result.output)
      assert.equal(30, result.tool_calls_made)
      assert.equal(15, count(notes))
      assert.is_true(result.duration_seconds > 0 and result.duration_seconds < 50)
      for _, call in ipairs(result.calls) do
        assert.is_true(call.duration >= 0 and call.duration < 50)
      end
      -- The engine did see it.
      local low, high = math.huge, 0
      for time in helper.read(home.dir .. "/state/farcall/runs/" .. result.run_id
          .. "/events.jsonl"):gmatch('"time":([%d.]+)') do
        low, high = math.min(low, tonumber(time)), math.max(high, tonumber(time))
      end
      assert.is_true(high - low > 80000, low .. " " .. high)
    end)
  end

  it("under the engine moves no deadline", function()
    local home = cli.home()
    local got = task.run(function()
      local running = home:start({
        "run", "--json", "--timeout", "4", "-c",
        "import time; open('up', 'w'); print('up', flush=True); time.sleep(100)",
      }, { env = variables(library(), file) })
      assert(helper.eventually(function()
        return fs.stat(home.work .. "/up")
      end, 50), "it did not start")
      set(file, "-1d")
      return cli.finish(running)
    end)
    local result = assert(json.decode(got.out), got.out .. got.err)
    assert.same({ "timeout", "up\n", 124 }, { result.status, result.output, got.code })
    assert.is_true(result.duration_seconds >= 4 and result.duration_seconds < 50)
  end)

  it("in a container is nothing to its run", function()
    docker.setup()
    local preload = library()
    local dir = file:match("^(.*)/")
    assert(os.execute("chmod 755 " .. dir) == 0)
    faults.with({}, function(engine, notes)
      local job = {
        backend = "docker", language = "python", script = CALLS:format("/tmp/notes") .. [[
print(terminal("cat /tmp/notes")["output"].count("x"))
from farcall import note
print(note(text="last"))
]], options = {
          image = "farcall-spec/debian", env = variables("/faketime/libfaketimeMT.so.1",
            "/clock/clock"),
          binds = { preload:match("^(.*)/") .. ":/faketime:ro", dir .. ":/clock:ro" },
        },
      }
      local result = assert(faults.run(engine, notes, job, function()
        local env = assert(engine:environment("docker", job.options))
        assert(helper.eventually(function()
          return select(2, docker.cli("exec " .. env.name .. " test -f /tmp/notes"))
        end, 50))
        jump(file)
      end))
      assert.equal("up\nTrue\n15\nlast\n", result.output, result.stderr .. tostring(result.error))
      assert.equal("success", result.status)
      assert.equal(32, result.tool_calls_made)
    end)
  end)
end)
