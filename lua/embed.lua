-- SPDX-License-Identifier: MIT
-- The Lua side of libfarcall (core/farcall.h): takes the requests of an embedding program off their
-- queue, runs each in a task of its own, and hands back what became of it. It runs in the engine's
-- thread, for the whole life of a handle.

local config = require("farcall.config")
local Engine = require("farcall.engine")
local errors = require("farcall.errors")
local json = require("farcall.core.json")
local native = require("farcall.core.embed")
local proc = require("farcall.core.proc")
local task = require("farcall.task")

local embed = {}

---@class farcall.Embed
---@field engine farcall.Engine
---@field requests table<number, farcall.Task> what runs, by id
---@field shells table<string, farcall.Shell>
---@field permits table<string, table> semaphores by kind of request or shell
---@field max_running integer
---@field stopping boolean
---@field idle table event: stopped, and nothing is left
---@field closed table event: the last use of the handle
local Embed = {}
Embed.__index = Embed

local KINDS = {}

---@async
function KINDS.oneshot(self, request)
  return self.engine:exec(request)
end

-- One shell for each backend with its options.
local function shell_key(request)
  local parts = { "shell " .. (request.backend or "") }
  for name, value in pairs(request.options or {}) do
    parts[#parts + 1] = ("%d:%s=%d:%s"):format(#name, name, #value, value)
  end
  table.sort(parts)
  return table.concat(parts, "\0")
end

---@async
function KINDS.shell(self, request)
  local env, err = self.engine:environment(request.backend, request.options)
  if not env then
    return nil, err
  end
  local key = shell_key(request)
  local shell = self.shells[key]
  if shell and shell.env ~= env then
    -- The environment was opened anew, and the shell went with the old one.
    self.shells[key] = nil
    shell:close()
    shell = self.shells[key]
  end
  if not shell then
    shell, err = self.engine:shell(request)
    if not shell then
      return nil, err
    end
    self.shells[key] = shell
  end
  return shell:run({
    command = request.command, timeout = request.timeout, max_output = request.max_output,
  })
end

---@async
function KINDS.run(self, request)
  local result, err = self.engine:run({
    script = request.script, filename = request.filename, language = request.language,
    args = request.args, backend = request.backend, options = request.options, env = request.env,
    allow = request.allow, transport = request.transport, timeout = request.timeout,
    max_calls = request.max_calls,
  })
  if not result then
    return nil, err
  end
  return {
    exit_code = result.exit_code, signal = result.signal, stdout = result.output,
    stderr = result.stderr, timed_out = result.status == "timeout",
    truncated = (result.stdout_bytes_omitted or 0) > 0 or (result.stderr_bytes_omitted or 0) > 0,
    json = assert(json.encode(result)), error_kind = result.error_kind,
    error_op = result.error_kind and "run", error_text = result.error_kind and result.error,
    error_hint = result.error_kind and result.hint,
  }
end

---The fields that core/lua_embed.c knows.
local function outcome(ok, result, err)
  if not ok then
    result, err = nil, errors.is(result) and result
      or errors.new("internal", "request", tostring(result))
  end
  if not result then
    return {
      error_kind = err.kind, error_op = err.op, error_text = err.msg, error_hint = err.hint,
      error_code = err.code,
    }
  end
  return {
    exit_code = result.exit_code, signal_name = result.signal,
    signal = result.signal and proc.signal_number(result.signal), out = result.stdout,
    err = result.stderr, timed_out = result.timed_out, truncated = result.truncated,
    restarted = result.restarted, json = result.json, error_kind = result.error_kind,
    error_op = result.error_op, error_text = result.error_text, error_hint = result.error_hint,
  }
end

local function finish(self, id, ...)
  self.requests[id] = nil
  native.finish(id, outcome(...))
  if self.stopping and native.unfinished() == 0 then
    self.idle.set()
  end
end

-- So many oneshots, and so many scripts, at a time; one command of each shell, in the order in
-- which they came, also while its environment is only being opened.
local function permits_for(self, request)
  local name = request.kind == "shell" and shell_key(request) or request.kind
  local permits = self.permits[name]
  if not permits then
    permits = task.semaphore(request.kind == "shell" and 1 or self.max_running)
    self.permits[name] = permits
  end
  return permits
end

---@async
local function perform(self, request)
  local permits = permits_for(self, request)
  permits.acquire()
  request.permits = permits
  return KINDS[request.kind](self, request)
end

local function cancelled(self)
  return errors.new("cancelled", "request",
    self.stopping and "the engine was stopped" or "cancelled by its program")
end

local EVENTS = {}

function EVENTS.request(self, id, request)
  if self.stopping then
    return finish(self, id, true, nil, cancelled(self))
  end
  local performing = task.spawn(perform, self, request)
  self.requests[id] = performing
  task.spawn(function()
    finish(self, id, performing:join())
    -- Only now: who gets it may be done before this returns.
    if request.permits then
      request.permits.release()
    end
  end)
end

function EVENTS.cancel(self, id)
  local performing = self.requests[id]
  if performing then
    performing:cancel(cancelled(self))
  end
end

function EVENTS.stop(self)
  self.stopping = true
  local all = {}
  for _, performing in pairs(self.requests) do
    all[#all + 1] = performing
  end
  for _, one in ipairs(all) do
    one:cancel(cancelled(self))
  end
  if native.unfinished() == 0 then
    self.idle.set()
  end
end

function EVENTS.close(self)
  self.closed.set()
end

local function drain(self)
  assert(native.turn())
  for event, id, request in native.take do
    EVENTS[event](self, id, request)
  end
end

---@async
local function serve(cfg, options)
  local self = setmetatable({
    engine = Engine.new(cfg), requests = {}, shells = {}, stopping = false,
    permits = {}, max_running = options.max_running,
    idle = task.event(), closed = task.event(),
  }, Embed)
  local watch = assert(task.loop():watch(assert(native.pollfd()), "r", function()
    drain(self)
  end))
  native.opened()
  self.idle.wait()
  for _, shell in pairs(self.shells) do
    shell:close()
  end
  self.engine:close()
  native.ended()
  self.closed.wait()
  watch:close()
end

---Called once, by core/lua_embed.c.
function embed.main()
  local options = native.options()
  local cfg, err = config.load({
    file = options.config, environ = options.environ, ignore_here = options.ignore_here,
  })
  if not cfg then
    return native.opened(tostring(err))
  end
  cfg.log = native.log
  task.run(serve, cfg, options)
end

return embed
