-- SPDX-License-Identifier: MIT
-- A process in a container: an exec of the Docker Engine API. The API cannot kill one; kill() lets
-- go of it.

local errors = require("farcall.errors")
local quoting = require("farcall.quoting")
local task = require("farcall.task")
local text = require("farcall.core.text")

local docker_process = {}

-- Looks at a start: the first after this, then again, ever more rarely. Starting takes some 40 ms.
local FIRST_LOOK, MOST_RARELY = 0.025, 0.2
-- After the end of the output the exit code is there at once, or soon.
local FIRST_WAIT, LONGEST_WAIT = 0.005, 1
-- A process may go on without its output, or its output be read by nobody.
local UNREAD_LOOK = 1
-- Looks at a container in which nothing can be started, whether it is still said to run.
local LOOKS, LOOK_PAUSE = 10, 0.1
local MAX_MESSAGE = 4096
-- Bytes of one argument on Linux.
local MAX_ARGUMENT = 131071

---@class farcall.DockerProcess: farcall.Process
---@field private on_lost fun()
---@field private api farcall.DockerApi
---@field private id string of the exec
---@field private container string
---@field private stream farcall.DockerStream
local Process = {}
Process.__index = Process

---@async
function Process:read(max)
  return self.stream:read(max)
end

---@async
function Process:write(bytes)
  return self.stream:write(bytes)
end

function Process:close_stdin()
  self.stream:finish()
end

---Calls fn once its connection is closed, at once if it is.
---@param fn fun()
function Process:on_over(fn)
  if self.stream.over.is_set() then
    fn()
  else
    self.stream.on_over = fn
  end
end

---Lets go of it. It may run on.
function Process:kill()
  self.let_go = true
  self.stream:close()
end

local function lost(self, msg, cause)
  self.on_lost()
  return nil, errors.new("lost", "exec", msg, { code = cause and cause.code, cause = cause })
end

-- Killed with the whole container, or by itself? Only the container can tell, and the engine calls
-- it running until it has heard of the end of process 1, which comes last. But once that is dead
-- nothing more can be started in there.
---@async
local function container_lives(self)
  for _ = 1, LOOKS do
    local container, err = self.api:inspect_container(self.container)
    if not container then
      return false, "the container is gone", err
    elseif not container.running then
      return false, "the container stopped"
    end
    local probe = docker_process.start(self.api, self.container, { argv = { "sh", "-c", ":" } },
      self.on_lost)
    if probe then
      probe:kill()
      return true
    end
    task.sleep(LOOK_PAUSE)
  end
  return true
end

---@async
local function judge(self, code)
  if code == nil then
    return lost(self, "the container stopped")
  elseif self.stream.torn then
    return lost(self, "the connection broke")
  elseif code == 137 then
    local lives, why, err = container_lives(self)
    if not lives then
      return lost(self, why, err)
    end
  end
  return { exit = code }
end

---@async
local function await_end(self)
  local pause = FIRST_WAIT
  while true do
    if self.let_go then
      return nil, errors.new("cancelled", "exec", "let go of")
    end
    local unread = not self.stream.over.is_set()
      and not task.timeout(UNREAD_LOOK, function()
        self.stream.over.wait()
        return true
      end)
    if not self.let_go then
      local state, err = self.api:inspect_exec(self.id)
      if not state then
        return lost(self, "the exec is gone: " .. err.msg, err)
      elseif not state.running then
        return judge(self, state.exit_code)
      end
      if not unread then
        task.sleep(pause)
        pause = math.min(pause * 1.5, LONGEST_WAIT)
      end
    end
  end
end

---@async
---@return {exit?: integer}? status
---@return farcall.Error? err kind "lost": the container or the engine went away
function Process:wait()
  if not self.status and not self.failure then
    self.status, self.failure = await_end(self)
  end
  return self.status, self.failure
end

-- What the runtime says when it cannot start a program, and what that is called elsewhere.
local CODES = {
  { "executable file not found", "ENOENT" }, { "no such file or directory", "ENOENT" },
  { "not a directory", "ENOTDIR" }, { "permission denied", "EACCES" },
  { "argument list too long", "E2BIG" }, { "exec format error", "ENOEXEC" },
  { "is a directory", "EACCES" }, { "unable to find user", "ENOENT" },
}

local function start_failure(self, op)
  local words = ""
  while #words < MAX_MESSAGE do
    local stream, bytes = self.stream:read(MAX_MESSAGE)
    if not stream then
      break
    end
    words = words .. bytes
  end
  words = words:gsub("[%c%s]+", " "):gsub(" $", "")
  local lower = words:lower()
  for _, row in ipairs(CODES) do
    if lower:find(row[1], 1, true) then
      return errors.wrap(op, words, row[2])
    end
  end
  return errors.new("exec", op, words ~= "" and words or "it could not be started")
end

-- The daemon takes the connection over before it starts the program, and tells only in the exec's
-- state whether it did.
---@async
local function confirm(self, op)
  local pause = FIRST_LOOK
  local deadline = task.now() + self.api.patience
  while task.now() < deadline do
    local news = self.stream:ready(pause)
    local state, err = self.api:inspect_exec(self.id)
    if not state then
      return nil, errors.new("lost", op, err.msg, { code = err.code, cause = err })
    elseif state.pid > 0 or state.exit_code == 0 then
      return true
    elseif not state.running then
      return nil, start_failure(self, op)
    elseif news then
      task.sleep(FIRST_WAIT)
    end
    pause = math.min(pause * 1.2, MOST_RARELY)
  end
  return nil, errors.new("timeout", op, "the engine does not say whether it was started")
end

local function is_utf8(word)
  return text.clean(word, { escapes = false, utf8 = true, secrets = false }) == word
end

-- JSON carries nothing but UTF-8: words that are not go through the environment's own sh.
local function encodable(argv)
  for _, word in ipairs(argv) do
    if not is_utf8(word) then
      local line = quoting.ascii(argv)
      if #line > MAX_ARGUMENT then
        return nil, errors.new("limit", "exec", ("a command that is not UTF-8 and has %d bytes when"
          .. " encoded; at most %d can be sent"):format(#line, MAX_ARGUMENT), { code = "E2BIG" })
      end
      return { "sh", "-c", line }
    end
  end
  return argv
end

local function describe(spec)
  local env
  for name, value in pairs(spec.env or {}) do
    env = env or {}
    env[#env + 1] = name .. "=" .. value
    if not is_utf8(env[#env]) then
      return nil, errors.new("unsupported", "exec", ("variable %s is not UTF-8, and the Docker API"
        .. " takes nothing else"):format(name))
    end
  end
  if spec.cwd and not is_utf8(spec.cwd) then
    return nil, errors.new("unsupported", "exec",
      "the directory's name is not UTF-8, and the Docker API takes nothing else")
  end
  local argv, err = encodable(spec.argv or { "sh", "-c", spec.command })
  if not argv then
    return nil, err
  end
  return {
    AttachStdin = spec.stdin ~= nil and spec.stdin ~= "null", AttachStdout = true,
    AttachStderr = true, Tty = false, Cmd = argv,
    Env = env, WorkingDir = spec.cwd, User = spec.user,
  }
end

---Starts a process in a container. Returns when it runs: a program that is not there, or a missing
---directory, is an error.
---@async
---@param api farcall.DockerApi
---@param container string id
---@param spec farcall.StartSpec and `user`, instead of the container's
---@param on_lost fun() the container is known to be gone
---@return farcall.DockerProcess?
---@return farcall.Error? err
---@nodiscard
function docker_process.start(api, container, spec, on_lost)
  local description, err = describe(spec)
  if not description then
    return nil, err
  end
  local id
  id, err = api:create_exec(container, description)
  if not id then
    return nil, err
  end
  local stream
  stream, err = api:start_exec(id)
  if not stream then
    return nil, err
  end
  local self = setmetatable({
    api = api, id = id, container = container, stream = stream, on_lost = on_lost,
  }, Process)
  local bytes = spec.stdin ~= "pipe" and spec.stdin ~= "null" and spec.stdin or nil
  if bytes then
    task.spawn(function()
      self:write(bytes)
      self:close_stdin()
    end)
  end
  local ok, started, failure = pcall(confirm, self, "exec " .. (spec.argv and spec.argv[1] or "sh"))
  if not ok or not started then
    self:kill()
  end
  if not ok then
    error(started, 0)
  end
  return started and self or nil, failure
end

return docker_process
