-- SPDX-License-Identifier: MIT
-- Runs in whose middle something breaks.

local assert = require("luassert")
local engines = require("spec.support.engines")
local helper = require("spec.helper")
local task = require("farcall.task")

local faults = {}

-- More than anything here needs on a busy machine; what takes longer hangs.
local PATIENCE = 60

-- A tool on this side that notes in a file that it was carried out.
local function noting(path)
  return {
    name = "note", summary = "Notes.",
    parameters = { type = "object", additionalProperties = true },
    handler = function(args, ctx)
      local file = assert(io.open(path, "ab"))
      file:write(tostring(args.text):sub(1, 40), "\n")
      file:close()
      if args.wait then
        ctx.sleep(args.wait)
      end
      return args.text
    end,
  }
end

---os.execute that does not hold up the engine, which it would stop.
---@async
---@return integer
function faults.sh(line)
  local file = helper.scratch() .. "/status"
  helper.write(file .. ".sh", line)
  os.execute(("{ sh %s.sh >%s.out 2>&1 </dev/null; echo $? >%s; } &"):format(file, file, file))
  local status = helper.eventually(function()
    return (helper.read(file) or ""):match("^(%d+)\n")
  end, PATIENCE)
  assert(status, "it hangs: " .. line)
  return tonumber(status)
end

---@class spec.Notes
---@field path string
local Notes = {}
Notes.__index = Notes

---How often each text was noted.
function Notes:count()
  local count = {}
  for line in (helper.read(self.path) or ""):gmatch("[^\n]+") do
    count[line] = (count[line] or 0) + 1
  end
  return count
end

---Waits until the tool was called with this text.
---@async
function Notes:await(text)
  helper.eventually(function()
    return self.over or self:count()[text]
  end, PATIENCE)
  assert(self:count()[text], "no call came with " .. text)
end

---body(engine, notes) with a fresh engine that has the tools note and terminal; within PATIENCE.
function faults.with(over, body)
  local notes = setmetatable({ path = helper.scratch() .. "/notes" }, Notes)
  local cfg = {
    tools = { note = noting(notes.path) }, enabled_tools = { "note", "terminal" },
  }
  for name, value in pairs(over) do
    cfg[name] = value
  end
  return engines.with(cfg, function(engine)
    return body(engine, notes)
  end)
end

---Runs a job while fault(notes) is carried out; what it raises fails the test.
---@async
---@return table? result
---@return farcall.Error? err
function faults.run(engine, notes, job, fault)
  local spec = { language = "python", timeout = 50 }
  for name, value in pairs(job) do
    spec[name] = value
  end
  local breaking = task.spawn(fault, notes)
  local result, err = engine:run(spec)
  notes.over = true
  local ok, failure = breaking:join()
  assert(ok, tostring(failure) .. "\n" .. tostring(err or result.error))
  return result, err
end

---Asserts how a run ended: status, error_kind, a pattern of the error, "tool outcome" of each call,
---output.
function faults.ended(result, wanted)
  local said = ("%s\n%s\n%s"):format(tostring(result.error), result.output, result.stderr)
  assert.equal(wanted.status, result.status, said)
  assert.equal(wanted.kind, result.error_kind, said)
  if wanted.error then
    assert.is_truthy((result.error or ""):find(wanted.error), said)
  end
  local calls = {}
  for i, call in ipairs(result.calls) do
    calls[i] = call.tool .. " " .. call.outcome
  end
  assert.same(wanted.calls, calls, said)
  if wanted.output then
    assert.equal(wanted.output, result.output, said)
  end
end

---A number that, as the length of a sleep, is nobody else's.
function faults.number()
  faults.latest = (faults.latest or 200000 + helper.read("/proc/self/stat"):match("^%d+") * 100) + 1
  return faults.latest
end

---How many processes of this machine, those of containers too, sleep for so long.
function faults.sleepers(number)
  local pipe = assert(io.popen(("pgrep -fc '^sleep %d$'"):format(number)))
  local found = tonumber(pipe:read("*l"))
  pipe:close()
  return found
end

---Waits until none is left.
---@async
function faults.gone(number, seconds)
  assert(helper.eventually(function()
    return faults.sleepers(number) == 0
  end, seconds), "processes are left")
end

-- A call that ends; a process in a session of its own that minds nothing; and then, with a call
-- under way or with none, the script stays.
local SCRIPT = [[
import os, subprocess, time
from farcall import note
print("begun", note(text="first"), flush=True)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; exec sleep %d"])
%s
print("never")
]]
local STAYS = {
  calling = 'print(note(text="second", wait=100))',
  idle = "time.sleep(100)",
}

---@param how "calling"|"idle"
function faults.script(how, number)
  return SCRIPT:format(number, STAYS[how])
end

---Waits until such a script stays.
---@async
function faults.staying(notes, how, number)
  notes:await(how == "calling" and "second" or "first")
  assert(helper.eventually(function()
    return faults.sleepers(number) > 0
  end, PATIENCE), "its process did not come up")
end

return faults
