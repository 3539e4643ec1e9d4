-- SPDX-License-Identifier: MIT
-- The persistent shell of an environment: cwd, variables and functions stay over commands, which
-- queue, one at a time. Nothing of farcall waits for this queue but who asked for a command.
--
-- How a command's end is known: its trailer, which prints a random mark and the status on both
-- streams, is sent to the shell behind the command and holds a new mark each time. It is not in any
-- variable, argument or file, and the shell reads it only when the command has ended, so no output
-- can forge it.

local errors = require("farcall.errors")
local hex = require("farcall.hex")
local quoting = require("farcall.quoting")
local task = require("farcall.task")

local MAX_OUTPUT = 16 * 1024 * 1024

---@class farcall.Shell
local shell = {}
shell.__index = shell

---@param env farcall.Env
---@param options? {program: string[]} the shell to start, sh unless given
---@return farcall.Shell
function shell.new(env, options)
  return setmetatable({
    env = env, turn = task.semaphore(1),
    program = options and options.program or { "sh" },
  }, shell)
end

---Sends text to the shell. When not all of it gets there, nobody knows what has been read of it:
---this shell ends, and the next command gets a new one.
---@async
local function send(self, process, text)
  local ok, sent, err = pcall(process.write, process, text)
  if ok and sent then
    return true
  end
  self.process = nil
  task.shield(function()
    process:kill()
    process:wait()
  end)
  if not ok then
    error(sent, 0)
  end
  return nil, err
end

---@async
local function ensure(self)
  if self.process then
    return true
  end
  local process, err = self.env:start({ argv = self.program, stdin = "pipe" })
  if not process then
    return nil, err
  end
  -- The marks go to copies of the streams, so that a command may redirect the shell's own.
  self.process = process
  return send(self, process, "exec 8>&1 9>&2\n")
end

---Collects one stream of one command: everything up to the mark, of which at most max bytes are
---kept. What could be the beginning of a mark is held back until more has come.
local function collector(word, max)
  local parts, size, tail, truncated = {}, 0, "", false
  local self = {}

  local function keep(bytes)
    local room = max - size
    if #bytes > room then
      truncated = true
      bytes = bytes:sub(1, room)
    end
    parts[#parts + 1] = bytes
    size = size + #bytes
  end

  ---@return string? after what follows the mark, once it has come
  function self.feed(bytes)
    tail = tail .. bytes
    local from, to = tail:find(word, 1, true)
    if from then
      keep(tail:sub(1, from - 1))
      return tail:sub(to + 1)
    end
    local safe = #tail - #word
    if safe > 0 then
      keep(tail:sub(1, safe))
      tail = tail:sub(safe + 1)
    end
    return nil
  end

  function self.finish(marked)
    if not marked then
      keep(tail)
    end
    return table.concat(parts), truncated
  end

  return self
end

---Feeds the shell's output to both collectors until both have seen their mark, or the shell ends.
---@async
---@return integer? status of the command; nil when the shell ended first
local function follow(process, streams)
  local waiting, status = 2, nil
  local rest = {}
  while waiting > 0 do
    local name, bytes = process:read(65536)
    if not name then
      return nil
    end
    if rest[name] then
      rest[name] = rest[name] .. bytes
    else
      rest[name] = streams[name].feed(bytes)
    end
    -- The mark is followed by the status, a space and the end of the line on both streams.
    if rest[name] then
      local value = rest[name]:match("^ (%d+)\n")
      if value and not streams[name].seen then
        streams[name].seen = true
        waiting = waiting - 1
        status = tonumber(value)
      end
    end
  end
  return status
end

---@async
local function perform(self, spec)
  local ok, err = ensure(self)
  if not ok then
    return nil, err
  end
  local process = self.process
  local word = hex.random(16)
  local max = spec.max_output or MAX_OUTPUT
  local streams = { out = collector(word, max), err = collector(word, max) }
  -- `command eval` keeps a syntax error from ending the shell; the command's own standard input is
  -- empty, so that it cannot eat what is sent to the shell.
  local script = table.concat({
    "command eval " .. quoting.sh(spec.command) .. " </dev/null", "farcall_status=$?",
    ("printf '%s %%s\\n' $farcall_status >&8"):format(word),
    ("printf '%s %%s\\n' $farcall_status >&9"):format(word), "",
  }, "\n")
  ok, err = send(self, process, script)
  if not ok then
    return nil, err
  end
  local timed_out = false
  local timer = spec.timeout
    and task.loop():timer(math.max(1, math.ceil(spec.timeout * 1000)), function()
      timed_out = true
      task.spawn(process.kill, process)
    end)
  local done, status = pcall(follow, process, streams)
  if timer then
    timer:close()
  end
  local result = { timed_out = timed_out }
  if not done or not status then
    -- The shell has ended (exit, a signal, the deadline) or the caller gave up in the middle of a
    -- command: either way what it knew is gone, and the next command gets a new one.
    self.process = nil
    local failure = status
    local ended, lost
    task.shield(function()
      if not done then
        process:kill()
      end
      ended, lost = process:wait()
    end)
    if not done then
      error(failure, 0)
    elseif not ended then
      return nil, lost
    end
    result.exit_code, result.signal = ended.exit, ended.name
    result.restarted = true
  else
    result.exit_code = status
  end
  local truncated_out, truncated_err
  result.stdout, truncated_out = streams.out.finish(streams.out.seen)
  result.stderr, truncated_err = streams.err.finish(streams.err.seen)
  result.truncated = truncated_out or truncated_err
  return result
end

---Runs one command line in the shell, after those that were asked for before it.
---@async
---@param spec {command: string, timeout?: number, max_output?: integer}
---@return table? result as a oneshot's, and `restarted` when the shell's state was lost
---@return farcall.Error? err
---@nodiscard
function shell:run(spec)
  if type(spec.command) ~= "string" or spec.command:find("\0", 1, true) then
    return nil, errors.new("usage", "shell", "a command is text without NUL bytes")
  end
  self.turn.acquire()
  if self.closed then
    self.turn.release()
    return nil, errors.new("unavailable", "shell", "it is closed")
  end
  local ok, result, err = pcall(perform, self, spec)
  self.turn.release()
  if not ok then
    error(result, 0)
  end
  return result, err
end

---Ends the shell and everything that it started. Idempotent.
---@async
function shell:close()
  self.closed = true
  local process = self.process
  self.process = nil
  if process then
    task.shield(function()
      process:kill()
      process:wait()
    end)
  end
end

return shell
