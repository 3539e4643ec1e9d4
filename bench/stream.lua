-- Calls, oneshots, shipping, output and whole runs through a runner, beside what one bare exec by
-- the same path costs; medians. Run as: host bench/stream.lua CONFIG FORM BACKEND...
local config = require("farcall.config")
local engine = require("farcall.engine")
local oneshot = require("farcall.oneshot")
local quoting = require("farcall.quoting")
local task = require("farcall.task")

local ROUNDS, CALLS, EXECS, RUNS = 5, 2000, 50, 10
local MIB = 1024 * 1024
local OUTPUT = 256 * MIB

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

---@async
local function timed(count, body)
  local began = task.now()
  for _ = 1, count do
    body()
  end
  return (task.now() - began) / count
end

-- A bare exec by the backend's own start.
---@async
local function start(env, argv, stdin)
  local raw = env.raw
  return assert(raw:start(raw.caps.argv and { argv = argv, stdin = stdin }
    or { command = quoting.command(argv), stdin = stdin }))
end

---@async
local function output_of(process, on_bytes)
  local parts = {}
  while true do
    local stream, bytes = process:read(262144)
    if not stream then
      break
    end
    if on_bytes then
      on_bytes(bytes)
    else
      parts[#parts + 1] = stream == "out" and bytes or ""
    end
  end
  assert(process:wait())
  return table.concat(parts)
end

-- The floor of a call: requests and replies as lines of one exec's own streams.
local CALLER = [[
import json, sys, time
out, inp, calls = sys.stdout, sys.stdin, int(sys.argv[1])
def call(i):
    out.write(json.dumps({"id": i, "tool": "remaining", "args": {}, "token": "0" * 64}) + "\n")
    out.flush()
    return json.loads(inp.readline())
for i in range(50): call(i)
began = time.monotonic()
for i in range(calls): call(i)
sys.stderr.write(str((time.monotonic() - began) / calls))
]]

local REPLY = '{"id":1,"result":{"calls":40,"seconds":200}}\n'

---@async
local function floor_call(env)
  local process = start(env, { "python3", "-c", CALLER, tostring(CALLS) }, "pipe")
  local said, held = "", ""
  while true do
    local stream, bytes = process:read(65536)
    if not stream then
      break
    elseif stream == "err" then
      said = said .. bytes
    else
      held = held .. bytes
      local lines
      held, lines = held:gsub("[^\n]*\n", "")
      if lines > 0 then
        process:write(REPLY:rep(lines))
      end
    end
  end
  process:wait()
  return assert(tonumber(said:match("[%d.e-]+%s*$")), said)
end

local SCRIPT = [[
import time
from farcall import remaining
for i in range(50): remaining()
began = time.monotonic()
for i in range(%d): remaining()
print((time.monotonic() - began) / %d)
]]

---@async
local function run(one, name, script)
  local result = assert(one:run({
    script = script, language = "python", backend = name, transport = "stream",
  }))
  assert(result.status == "success", result.error)
  return result
end

local function row(name, measure, ours, floor, unit, more)
  print(("%-12s %-26s %9.3f %-3s %9.3f %-3s %6.2f%s"):format(name, measure, ours, unit, floor, unit,
    ours / floor, more or ""))
end

---@async
local function calls(one, env, name)
  local ours, floor = {}, {}
  for round = 1, ROUNDS do
    floor[round] = floor_call(env)
    ours[round] = tonumber(run(one, name, SCRIPT:format(CALLS, CALLS)).output)
  end
  row(name, "call", median(ours) * 1e6, median(floor) * 1e6, "us")
end

local LOOP = 'i=0; while [ "$i" -lt 50 ]; do sh -c "exit 0"; i=$((i + 1)); done'

---@async
local function oneshots(env, name)
  local ours, own = {}, {}
  for round = 1, ROUNDS do
    own[round] = timed(1, function()
      assert(oneshot.run(env, { command = LOOP }))
    end) / 50
    ours[round] = timed(EXECS, function()
      assert(oneshot.run(env, { command = "exit 0" }))
    end)
  end
  local one, command = median(ours), median(own)
  row(name, "oneshot, its own command", one * 1000, command * 1000, "ms",
    ("   %.2f ms over it"):format((one - command) * 1000))
  local began = task.now()
  local workers = {}
  for i = 1, 8 do
    workers[i] = task.spawn(function()
      for _ = 1, EXECS do
        assert(oneshot.run(env, { command = "exit 0" }))
      end
    end)
  end
  for _, worker in ipairs(workers) do
    assert(worker:join())
  end
  print(("%-12s %-26s %9.0f a second"):format(name, "oneshots, 8 in flight",
    8 * EXECS / (task.now() - began)))
end

---@async
local function shipping(env, name)
  local bytes = ("0123456789abcdef"):rep(MIB / 16)
  local ours, bare = {}, {}
  for round = 1, ROUNDS do
    ours[round] = timed(1, function()
      assert(oneshot.run(env, { command = "cat > /tmp/farcall-bench-1MiB", stdin = bytes }))
    end)
    bare[round] = timed(1, function()
      local process = start(env, { "sh", "-c", "cat > /tmp/farcall-bench-1MiB" }, "pipe")
      process:write(bytes)
      process:close_stdin()
      output_of(process)
    end)
  end
  row(name, "1 MiB shipped, bare exec", median(ours) * 1000, median(bare) * 1000, "ms")
end

---@async
local function throughput(env, name)
  local argv = { "sh", "-c", ("head -c %d /dev/zero"):format(OUTPUT) }
  local ours, bare = {}, {}
  for round = 1, 3 do
    local total = 0
    local function count(bytes)
      total = total + #bytes
    end
    bare[round] = timed(1, function()
      output_of(start(env, argv), count)
    end)
    ours[round] = timed(1, function()
      output_of(assert(env:start({ argv = argv })), count)
    end)
    assert(total == 2 * OUTPUT)
  end
  row(name, "256 MiB of output, bare", OUTPUT / median(ours) / 1e6, OUTPUT / median(bare) / 1e6,
    "MB/s")
end

---@async
local function whole_runs(cfg, name)
  local ours, bare = {}, {}
  for round = 1, RUNS do
    local one = engine.new(cfg)
    local env = assert(one:environment(name))
    bare[round] = timed(1, function()
      output_of(start(env, { "python3", "-c", "pass" }))
    end)
    ours[round] = timed(1, function()
      run(one, name, "pass")
    end)
    one:close()
  end
  row(name, "run of pass, bare exec", median(ours) * 1000, median(bare) * 1000, "ms",
    ("   %.1f ms over it"):format((median(ours) - median(bare)) * 1000))
end

print(("%-12s %-26s %13s %13s  ratio"):format("backend", "measure", "farcall", "floor"))
task.run(function()
  local cfg = assert(config.load({ file = arg[1] }))
  cfg.runner_forms = { arg[2] }
  for i = 3, #arg do
    local name = arg[i]
    local one = engine.new(cfg)
    local env = assert(one:environment(name))
    assert(env:bring())
    calls(one, env, name)
    oneshots(env, name)
    shipping(env, name)
    throughput(env, name)
    one:close()
    whole_runs(cfg, name)
  end
end)
