-- SPDX-License-Identifier: MIT
-- A tool that is a program on the operator's side: its arguments go in as JSON on standard input,
-- what it prints is the result. It runs in a session of its own with a scrubbed environment; when
-- its time is over, or its call is given up, its process group is killed.

local errors = require("farcall.errors")
local json = require("farcall.core.json")
local proc = require("farcall.core.proc")
local scrub = require("farcall.scrub")
local task = require("farcall.task")
local text = require("farcall.core.text")

local host_command = {}

local DEFAULT_TIMEOUT = 60
local MAX_STDOUT = 8 * 1024 * 1024
local MAX_STDERR = 64 * 1024
local PIECE = 65536
-- After the program's exit somebody whom it left behind may still hold its pipes: they are read for
-- so long, then it is over.
local AFTERLIFE_S = 0.5
local GRACE_S = 1
-- Its errors are told under the name of the tool by whoever calls it.
local OP = ""

---Reads a stream to its end, keeping at most max bytes and calling over() once when there are more.
local function collect(stream, max, finished, over)
  local parts, size = {}, 0
  local function read()
    while true do
      local bytes, _, code = stream:read(PIECE)
      if not bytes then
        if code ~= "EAGAIN" then
          stream:on_readable(nil)
          finished()
        end
        return
      end
      local room = max - size
      if #bytes > room then
        bytes = bytes:sub(1, room)
        over()
      end
      if #bytes > 0 then
        parts[#parts + 1] = bytes
        size = size + #bytes
      end
    end
  end
  stream:on_readable(read)
  return function()
    return table.concat(parts)
  end
end

local function feed(stream, input)
  if not stream:write(input) or stream:pending() == 0 then
    return stream:close()
  end
  stream:on_drained(function()
    stream:close()
  end)
end

local function environment(environ, passthrough)
  local list = {}
  for name, value in pairs(scrub.environment(environ, passthrough)) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end

---Kills the group and waits until the program itself is reaped; TERM first, when it may have time.
local function stop(child, ended, gently)
  if gently and not ended.is_set() then
    child:kill_group("TERM")
    task.timeout(GRACE_S, ended.wait)
  end
  child:kill_group("KILL")
  if not ended.is_set() then
    child:kill("KILL")
    ended.wait()
  end
end

---Waits for the program and its streams. What ends it early is in `state.why`.
local function attend(child, input, timeout, op)
  local ended, drained, state = task.event(), task.event(), {}
  local open = 2
  local function one_less()
    open = open - 1
    if open == 0 then
      drained.set()
    end
  end
  child:on_exit(function(how, number)
    state.how, state.number = how, number
    ended.set()
  end)
  local streams = { child:stdin(), child:stdout(), child:stderr() }
  local over = task.event()
  local stdout = collect(streams[2], MAX_STDOUT, one_less, function()
    if not state.why then
      state.why = errors.new("limit", op, ("it printed more than %d bytes"):format(MAX_STDOUT))
      over.set()
      child:kill_group("KILL")
    end
  end)
  local stderr = collect(streams[3], MAX_STDERR, one_less, function() end)
  feed(streams[1], input)
  local ok, raised = pcall(function()
    local _, late = task.timeout(timeout, ended.wait)
    if errors.is(late) and not ended.is_set() then
      state.why = state.why
        or errors.new("timeout", op, ("not done within %g s, killed"):format(timeout))
    end
    if ended.is_set() then
      task.timeout(AFTERLIFE_S, drained.wait)
    end
  end)
  task.shield(stop, child, ended, ok)
  local result = { how = state.how, number = state.number, why = state.why }
  result.stdout, result.stderr = stdout(), stderr()
  for _, stream in ipairs(streams) do
    stream:close()
  end
  child:close()
  if not ok then
    error(raised, 0)
  end
  return result
end

local function clean(bytes)
  return (text.clean(bytes, { escapes = true, utf8 = true, secrets = false }))
end

---@return any? result
---@return farcall.Error? err
local function judge(result, op)
  if result.why then
    return nil, result.why
  end
  if result.how ~= "exit" or result.number ~= 0 then
    local how = result.how == "exit" and "exit code " .. result.number
      or "ended by signal " .. tostring(result.number)
    local said = clean(result.stderr):gsub("%s+$", ""):sub(-2000)
    return nil, errors.new("exec", op, said ~= "" and how .. ": " .. said or how)
  end
  local value = json.decode(result.stdout)
  if value ~= nil then
    return value
  end
  return (clean(result.stdout):gsub("\n$", ""))
end

---A handler for a tool that is a host command.
---@param spec {command: string[], timeout?: number}
---@param cfg {environ: table<string, string>, passthrough?: string[]}
---@return async fun(args: table, ctx: farcall.ToolContext): any?, farcall.Error?
function host_command.handler(spec, cfg)
  local timeout = spec.timeout or DEFAULT_TIMEOUT
  return function(args)
    local input, problem = json.encode(args)
    if not input then
      return nil, errors.new("usage", OP, problem)
    end
    local child, message, code = proc.spawn(task.loop(), {
      argv = spec.command, env = environment(cfg.environ or {}, cfg.passthrough), session = true,
      stdin = "pipe", stdout = "pipe", stderr = "pipe",
    })
    if not child then
      return nil, errors.new("exec", OP, message, { code = code })
    end
    return judge(attend(child, input .. "\n", timeout, OP), OP)
  end
end

return host_command
