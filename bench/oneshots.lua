-- 1,000 oneshots, 64 at a time, on the local backend, beside a bare spawn loop in C of the same
-- program. Run as: host bench/oneshots.lua BUILD_DIR
local config = require("farcall.config")
local engine = require("farcall.engine")
local task = require("farcall.task")

local TOTAL, FLIGHT, ROUNDS = 1000, 64, 5
local build = arg[1] or "build"
local program = build .. "/bench/tiny"

---@async
local function farcall(one)
  local began = task.now()
  local gate = task.semaphore(FLIGHT)
  local spawned = {}
  for i = 1, TOTAL do
    gate.acquire()
    spawned[i] = task.spawn(function()
      local result = assert(one:exec({ argv = { program } }))
      assert(result.exit_code == 0)
      gate.release()
    end)
  end
  for _, each in ipairs(spawned) do
    assert(each:join())
  end
  return TOTAL / (task.now() - began)
end

local function bare()
  local pipe = assert(io.popen(("%s/bench/oneshot_spawn %d %d %s"):format(build, TOTAL, FLIGHT,
    program)))
  local rate = tonumber(pipe:read("*l"):match("[%d.]+"))
  pipe:close()
  return rate
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

local ours, floor = {}, {}
for round = 1, ROUNDS do
  floor[round] = bare()
  task.run(function()
    local one = engine.new(assert(config.load({ file = "bench/config.lua" })))
    ours[round] = farcall(one)
    one:close()
  end)
end
print(("1,000 oneshots, 64 at a time: bare C loop %.0f/s, farcall %.0f/s, ratio %.2f"):format(
  median(floor), median(ours), median(ours) / median(floor)))
