-- SPDX-License-Identifier: MIT
-- An environment in which a runner may live. Where one does, everything is started by it, from
-- inside, which costs about a millisecond; without one every process is an exec of its own.

local errors = require("farcall.errors")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")

local resident = {}

-- Seconds between TERM and KILL, and how trees are held, where the backend says nothing else. The
-- surer levels would give every process a view of its own of what runs there.
local GRACE, TREE = 2, "subreaper"

-- What an exec says and is told to find out whether it hears. Seconds until it must have begun, and
-- until it must then have said what it was told: that comes right behind its command, on slow lines
-- too, and behind no more of a program that is being sent than was on its way already.
local READY = "ready"
local BEGUN, ECHOED = 10, 8
-- Seconds until a runner that has not answered is doubted.
local DOUBT = 3

-- What every environment can do while a runner lives in it.
local CAPS = {
  argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
  kill = "native", parallel = true, max_command = 131071,
}

---@class farcall.Resident: farcall.Env
---@field inner farcall.Env as its backend opened it, under its guard if it needs one
---@field raw farcall.Env as its backend opened it
---@field bare? farcall.Env its execs without a guard, where it has one
---@field private passed table<string, string> variables for all that is started
---@field private runner? farcall.Runner
---@field private coming? table the event of a runner that is being brought
---@field private bringer? farcall.Task who brings it
---@field private doubter? farcall.Task who looks whether it hears
---@field private deaf? boolean standard input goes nowhere
local Resident = {}
Resident.__index = Resident

local function capable(caps)
  local all = {}
  for _, source in ipairs({ caps, CAPS }) do
    for name, value in pairs(source) do
      all[name] = value
    end
  end
  return all
end

local function block(variables)
  local parts = {}
  for name, value in pairs(variables or {}) do
    parts[#parts + 1] = name .. "=" .. value .. "\0"
  end
  return #parts > 0 and table.concat(parts) or nil
end

-- Where a command starts; the runner itself was started where the environment starts commands.
local function directory(self, cwd)
  if not cwd or cwd:sub(1, 1) == "/" or not self.cwd then
    return cwd
  end
  return self.cwd .. "/" .. cwd
end

local function hold(self, process)
  self.running[process] = true
  return process
end

---@async
local function start_inside(self, spec)
  local sound, unsound = supervised.check(spec)
  if not sound then
    return nil, unsound
  end
  local process, err = self.runner:exec({
    argv = spec.argv or { self.shell, "-c", spec.command }, environ = block(spec.env),
    inner_cwd = directory(self, spec.cwd), tree = self.tree, grace = self.grace,
    timeout = spec.timeout, stdin = spec.stdin or "null", script = spec.script,
  })
  return process and hold(self, process), err
end

-- What is let through, under what this one sets.
local function with_passed(self, spec)
  if not next(self.passed) then
    return spec
  end
  local full, variables = {}, {}
  for key, value in pairs(spec) do
    full[key] = value
  end
  for _, source in ipairs({ self.passed, spec.env or {} }) do
    for name, value in pairs(source) do
      variables[name] = value
    end
  end
  full.env = variables
  return full
end

---@async
---@param spec farcall.StartSpec
---@return farcall.Process?
---@return farcall.Error? err
function Resident:start(spec)
  spec = with_passed(self, spec)
  -- What has a life of its own is watched by files of the environment: see transports/file.lua.
  if spec.life or not self:has_runner() then
    return self.inner:start(spec)
  end
  return start_inside(self, spec)
end

---Whether a runner lives there now.
---@return boolean
function Resident:has_runner()
  return self.runner ~= nil and self.runner:alive()
end

-- Why there can be none.
local function impossible(self)
  local caps = self.caps
  if not self.runners.dir then
    return errors.new("unsupported", "runner", "the programs of runners are not installed",
      { hint = "build or install farcall whole, or set FARCALL_RUNNERS" })
  elseif caps.stdin ~= "stream" or caps.stdout ~= "stream" then
    return errors.new("unsupported", "runner", "an exec of this environment has no live standard"
      .. " input and output")
  end
  return nil
end

local function is_heard(self)
  return self:has_runner() and self.runner:has_answered()
end

-- What an exec says that repeats what it is told, as far as that comes in time; how it has ended;
-- whether it was waited for in vain.
---@async
local function echo_of(process)
  local said, status = "", nil
  local function listen(size)
    while #said < size do
      local stream, bytes = process:read(#READY)
      if not stream then
        status = process:wait()
        return
      end
      said = stream == "out" and said .. bytes or said
    end
  end
  local _, late = task.timeout(BEGUN, function()
    process:write(READY)
    process:close_stdin()
    listen(#READY)
  end)
  if not late and not status then
    _, late = task.timeout(ECHOED, listen, math.huge)
  end
  return said, status, late ~= nil
end

-- Whether an exec gets what is written to its standard input, as far as one can tell.
---@async
local function hears(self)
  local process = (self.bare or self.inner):start({
    argv = { "sh", "-c", "printf %s " .. READY .. "; exec cat" }, stdin = "pipe",
  })
  if not process then
    return true
  end
  local ok, said, status, late = pcall(echo_of, process)
  task.shield(process.kill, process)
  if not ok then
    error(said, 0)
  end
  -- One that was lost tells nothing; a runner that has answered meanwhile tells all.
  local over = late or status and status.exit == 0
  return not (over and said == READY) or is_heard(self)
end

---No runner could be had. Finds out whether the reason is that standard input goes nowhere: a start
---file reads it, something in between keeps it. Then the environment counts as one without.
---@async
---@return boolean so
function Resident:is_deaf()
  local inner = self.inner
  if not self.deaf and inner.without_stdin and inner.caps.stdin == "stream"
    and not hears(self) then
    self.deaf = true
    inner:without_stdin()
    self.caps = inner.caps
  end
  return self.deaf == true
end

-- Beside whoever brings a runner: where none has answered after a while, it is not waited for any
-- longer than it takes to find out that it cannot hear.
---@async
local function doubt(self)
  task.sleep(DOUBT)
  if (self.coming or self:has_runner()) and not is_heard(self) and self:is_deaf() then
    local err = errors.new("unsupported", "runner", "nothing that is sent to it arrives")
    self.bringer:cancel(err)
    if self.runner then
      self.runner:abandon(err)
    end
  end
end

---The runner of this environment; brought when there is none yet. Any number may ask.
---@async
---@return farcall.Runner?
---@return farcall.Error? err of kind unsupported where there can be none
---@nodiscard
function Resident:bring()
  if self:has_runner() then
    return self.runner
  end
  local err = impossible(self)
  if err then
    return nil, err
  end
  local coming = self.coming
  if not coming then
    coming = task.event()
    self.coming = coming
    if self.doubter then
      self.doubter:cancel()
    end
    self.doubter = task.spawn(doubt, self)
    -- In a task of its own: it is for all who ask, and whoever came first may give up.
    self.bringer = task.spawn(function()
      -- Loaded here: most starts of the program never need it.
      local runner = require("farcall.clients.runner")
      local ok, one, failure = pcall(runner.start, self.bare or self.inner, {
        dir = self.runners.dir, forms = self.runners.forms, grace = self.link_grace,
        here = self.caps.same_host and self.link_grace == 0, log = self.runners.log,
      })
      self.coming = nil
      if not (ok and one) then
        self.doubter:cancel()
      end
      if ok and one and self.closed then
        one:close()
        one, failure = nil, errors.new("unavailable", "runner", "the environment is closed")
      end
      self.runner = ok and one or nil
      self.caps = self.runner and capable(self.inner.caps) or self.inner.caps
      coming.set(self.runner, not ok and (errors.is(one) and one
        or errors.new("internal", "runner", tostring(one))) or failure)
    end)
  end
  -- Not self.coming: what fails at once is over by now.
  return coming.wait()
end

-- A runner that waits for a new link still holds what it has started.
function Resident:alive()
  return not self.inner.alive or self.inner:alive() or not self.closed and self:has_runner()
end

---@async
function Resident:close()
  self.closed = true
  if self.doubter then
    self.doubter:cancel()
  end
  local coming = self.coming
  if coming then
    self.bringer:cancel(errors.new("unavailable", "runner", "the environment is closed"))
    coming.wait()
  end
  if self.runner then
    self.runner:close()
  end
  return self.inner:close()
end

---@class farcall.resident.Options
---@field dir string where the programs of runners are
---@field forms string[] "c", "python": those that may be used
---@field log? fun(level: string, text: string)

---Makes an environment one in which a runner can live.
---@param inner farcall.Env
---@param raw farcall.Env as its backend opened it
---@param options farcall.resident.Options
---@return farcall.Resident
function resident.wrap(inner, raw, options)
  local self = setmetatable({
    inner = inner, raw = raw, bare = inner.bare, caps = inner.caps, name = inner.name,
    cwd = inner.cwd,
    shell = raw.shell or "sh", tree = raw.tree or TREE, grace = raw.grace or GRACE,
    link_grace = raw.link_grace or 0, runners = options, passed = raw.passed or {},
    running = setmetatable({}, { __mode = "k" }),
  }, Resident)
  for _, name in ipairs({ "get", "put", "exec" }) do
    -- Whoever can start processes needs no way to run them to their end.
    if inner[name] and (name ~= "exec" or not inner.start) then
      self[name] = function(_, ...)
        return inner[name](inner, ...)
      end
    end
  end
  return self
end

return resident
