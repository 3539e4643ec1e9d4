-- Calls, oneshots and shipping beyond this machine, beside what a hand can write with the same
-- execs; medians. Run as: host bench/remote.lua CONFIG BACKEND... [BACKEND=COMMAND]..., where the
-- command ships 64 MiB by other means.
local base64 = require("farcall.core.base64")
local config = require("farcall.config")
local engine = require("farcall.engine")
local oneshot = require("farcall.oneshot")
local quoting = require("farcall.quoting")
local task = require("farcall.task")

local ROUNDS, CALLS, REFERENCE_CALLS, EXECS = 5, 30, 4, 30
local SHIPPED = 64 * 1024 * 1024

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

-- One bare exec by the backend's own start, to its end.
---@async
local function exec(env, script, ...)
  local raw = env.raw or env
  local argv = { "sh", "-c", script, "sh", ... }
  local process = assert(raw:start(env.caps.argv and { argv = argv }
    or { command = quoting.command(argv) }))
  local parts = {}
  while true do
    local stream, bytes = process:read(262144)
    if not stream then
      break
    end
    parts[#parts + 1] = stream == "out" and bytes or ""
  end
  assert(process:wait())
  return table.concat(parts)
end

-- The far side of both floors: calls through files, answered through a FIFO or found by looking.
local CLIENT = [[
import json, os, sys, time
directory, calls, look = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "look"
os.chdir(directory)
def call(i):
    with open("req.new", "w") as file: file.write(json.dumps({"id": i, "tool": "t", "args": {}}))
    os.rename("req.new", "req")
    if look:
        delay = 0.05
        while not os.path.exists("rep"):
            time.sleep(delay)
            delay = min(delay * 1.5, 0.25)
    else:
        os.write(bell, b"r\n")
        while not os.path.exists("rep"): os.read(answer, 10)
    with open("rep") as file: reply = json.load(file)
    os.unlink("rep")
    return reply
if not look:
    bell, answer = os.open("bell", os.O_RDWR), os.open("answer", os.O_RDWR)
call(0)
began = time.monotonic()
for i in range(1, calls + 1): call(i)
print((time.monotonic() - began) / calls)
]]

local CYCLE = [[
cd "$1" || exit 1
if [ -n "$2" ]; then
  echo "$2" | base64 -d > rep.new
  mv rep.new rep
  echo r 1<> answer
fi
[ "$3" = last ] && exit
exec 4<> bell
while [ ! -e req ]; do read -r x <&4; done
cat req
rm req
]]

local REPLY = base64.encode('{"id":1,"result":{"calls":40,"seconds":200}}')

---@async
local function with_client(env, look, calls, serve)
  local dir = "/tmp/farcall-bench"
  exec(env, 'rm -rf "$1"; mkdir "$1" && cd "$1" && mkfifo bell answer', dir)
  local seconds
  local client = task.spawn(function()
    seconds = tonumber(exec(env, 'exec python3 -c "$1" "$2" "$3" "$4"', CLIENT, dir,
      tostring(calls), look and "look" or "fifo"))
  end)
  serve(dir)
  client:join()
  exec(env, 'rm -rf "$1"', dir)
  return seconds
end

---@async
local function floor_call(env)
  return with_client(env, false, CALLS, function(dir)
    local reply = ""
    for _ = 0, CALLS do
      exec(env, CYCLE, dir, reply, "")
      reply = REPLY
    end
    exec(env, CYCLE, dir, reply, "last")
  end)
end

-- The published loop: list, cat, write, remove as four execs; a pause of 100 ms when idle.
---@async
local function reference_call(env)
  return with_client(env, true, REFERENCE_CALLS, function(dir)
    local served = 0
    while served <= REFERENCE_CALLS do
      if exec(env, 'cd "$1" && ls req 2>/dev/null', dir) ~= "" then
        exec(env, 'cat "$1/req"', dir)
        exec(env, 'rm "$1/req"', dir)
        exec(env, 'cd "$1"; echo "$2" | base64 -d > rep.new && mv rep.new rep', dir, REPLY)
        served = served + 1
      else
        task.sleep(0.1)
      end
    end
  end)
end

local SCRIPT = [[
import time
from farcall import remaining
remaining()
began = time.monotonic()
for i in range(%d): remaining()
print((time.monotonic() - began) / %d)
]]

---@async
local function farcall_call(one, name)
  local result = assert(one:run({
    script = SCRIPT:format(CALLS, CALLS), language = "python", backend = name, transport = "file",
  }))
  return assert(tonumber(result.output), result.error)
end

---@async
local function timed(count, body)
  local began = task.now()
  for _ = 1, count do
    body()
  end
  return (task.now() - began) / count
end

local function row(name, measure, ours, floor, more)
  print(("%-12s %-22s %9.2f ms %9.2f ms   %.2f%s"):format(name, measure, ours * 1000, floor * 1000,
    ours / floor, more or ""))
end

---@async
local function bench(one, name, command)
  local env = assert(one:environment(name))
  local ours, floor, reference = {}, {}, {}
  for round = 1, ROUNDS do
    floor[round] = floor_call(env)
    ours[round] = farcall_call(one, name)
    reference[round] = round == 1 and reference_call(env) or nil
  end
  row(name, "call by files", median(ours), median(floor),
    ("   reference loop %.0f ms"):format(reference[1] * 1000))

  for round = 1, ROUNDS do
    floor[round] = timed(EXECS, function()
      exec(env, "exit 0")
    end)
    ours[round] = timed(EXECS, function()
      assert(oneshot.run(env, { argv = { "sh", "-c", "exit 0", "sh" } }))
    end)
  end
  row(name, "oneshot", median(ours), median(floor))

  local bytes = ("0123456789abcdef"):rep(SHIPPED / 16)
  ours, floor = {}, {}
  for round = 1, 3 do
    ours[round] = timed(1, function()
      local result = assert(oneshot.run(env, {
        command = "f=/tmp/farcall-shipped; cat > $f; wc -c < $f; rm $f",
        stdin = bytes,
      }))
      assert(tonumber(result.stdout) == SHIPPED)
    end)
    if command then
      floor[round] = timed(1, function()
        assert(os.execute(command) == 0)
      end)
    end
  end
  if command then
    row(name, "64 MiB shipped", median(ours), median(floor),
      "   beside " .. command:match("^%S+ ?%S*"))
  else
    print(("%-12s %-22s %9.2f ms"):format(name, "64 MiB shipped", median(ours) * 1000))
  end
end

print(("%-12s %-22s %12s %12s   ratio"):format("backend", "measure", "farcall", "floor"))
local ship = {}
for _, word in ipairs(arg) do
  local name, command = word:match("^([%w_]+)=(.+)$")
  if name then
    ship[name] = command
  end
end
task.run(function()
  local one = engine.new(assert(config.load({ file = arg[1] })))
  for i = 2, #arg do
    if not arg[i]:find("=") then
      bench(one, arg[i], ship[arg[i]])
    end
  end
  one:close()
end)
