-- SPDX-License-Identifier: MIT
-- A oneshot: one process in an environment, run to its end. It takes no lock, so any number may be
-- in flight beside the persistent shell and the script.

local errors = require("farcall.errors")
local task = require("farcall.task")

local oneshot = {}

local MAX_OUTPUT = 16 * 1024 * 1024
-- The environment ends the process by itself so many seconds later, should the engine be lost.
local BACKSTOP = 5

---@class farcall.oneshot.Spec
---@field command? string a line for the environment's sh
---@field argv? string[] or a program with its arguments
---@field stdin? string bytes for its standard input; empty when absent
---@field env? table<string, string> added to the environment's variables
---@field cwd? string
---@field timeout? number seconds; the whole process tree is killed when they are over
---@field max_output? integer bytes kept of each stream (16 MiB); the rest is read and dropped
---@field take? fun(stream: "out"|"err", bytes: string): boolean? gets the output as it comes and
---leaves none to the result; may wait. A process whose output it answers with false is ended

---@class farcall.oneshot.Result
---@field exit_code? integer
---@field signal? string "KILL", when it was ended by a signal
---@field stdout string
---@field stderr string
---@field truncated boolean one of the streams was longer than max_output
---@field timed_out boolean

local LONGEST = 1e9 -- seconds that a deadline may be away

local FIELDS = {
  command = true, argv = true, stdin = true, env = true, cwd = true, timeout = true,
  max_output = true, take = true,
}

local function check(spec)
  for key in pairs(spec) do
    if not FIELDS[key] then
      error("unknown field of a oneshot: " .. tostring(key), 3)
    end
  end
  if (spec.command == nil) == (spec.argv == nil) then
    error("a oneshot has either command or argv", 3)
  end
end

---@async
local function pass_on(process, take)
  for stream, bytes in function()
    return process:read(65536)
  end do
    if take(stream, bytes) == false then
      task.shield(process.kill, process)
      break
    end
  end
  return "", "", false
end

---Reads both streams of a process to their end, keeping at most max bytes of each.
---@async
local function drain(process, spec)
  if spec.take then
    return pass_on(process, spec.take)
  end
  local max = spec.max_output or MAX_OUTPUT
  local parts = { out = {}, err = {} }
  local sizes = { out = 0, err = 0 }
  local truncated = false
  while true do
    local stream, bytes = process:read(65536)
    if not stream then
      break
    end
    local room = max - sizes[stream]
    if #bytes > room then
      truncated = true
      bytes = bytes:sub(1, room)
    end
    if #bytes > 0 then
      table.insert(parts[stream], bytes)
      sizes[stream] = sizes[stream] + #bytes
    end
  end
  return table.concat(parts.out), table.concat(parts.err), truncated
end

---Kills the process when the deadline passes or the waiting task is cancelled.
---@async
local function attend(process, spec)
  local timed_out = false
  local timer = spec.timeout
    and task.loop():timer(math.max(1, math.ceil(math.min(spec.timeout, LONGEST) * 1000)), function()
      timed_out = true
      task.spawn(process.kill, process)
    end)
  local ok, stdout, stderr, truncated = pcall(drain, process, spec)
  if not ok then
    task.shield(process.kill, process)
  end
  local status, failure = task.shield(process.wait, process)
  if timer then
    timer:close()
  end
  if not ok then
    error(stdout, 0)
  end
  if not status then
    return nil, failure
  end
  return {
    exit_code = status.exit, signal = status.name, stdout = stdout, stderr = stderr,
    truncated = truncated, timed_out = timed_out,
  }
end

---@async
---@param env farcall.Env
---@param spec farcall.oneshot.Spec
---@return farcall.oneshot.Result?
---@return farcall.Error? err the process could not be started, or was lost; never its exit code
---@nodiscard
function oneshot.run(env, spec)
  check(spec)
  if env.exec then
    local result, failure = env:exec(spec)
    if result and spec.take then
      local _ = spec.take("out", result.stdout) ~= false and spec.take("err", result.stderr)
      result.stdout, result.stderr = "", ""
    end
    return result, failure
  end
  local process, err = env:start({
    command = spec.command, argv = spec.argv, env = spec.env, cwd = spec.cwd,
    stdin = spec.stdin or "null",
    timeout = spec.timeout and math.min(spec.timeout, LONGEST) + BACKSTOP,
  })
  if not process then
    return nil, err
  end
  return attend(process, spec)
end

---What a failed oneshot looks like to whoever asked for something else than its status.
---@param result farcall.oneshot.Result
---@param op string
---@return farcall.Error? err nil when it succeeded
function oneshot.failure(result, op)
  if result.exit_code == 0 then
    return nil
  end
  if result.timed_out then
    return errors.new("timeout", op, "not done in time")
  end
  local tail = result.stderr:gsub("%s+$", ""):match("[^\n]*$")
  if tail ~= "" then
    return errors.new("exec", op, tail)
  end
  local how = result.signal and "ended by signal " .. result.signal
    or "exit code " .. tostring(result.exit_code)
  return errors.new("exec", op, how)
end

return oneshot
