-- SPDX-License-Identifier: MIT
-- What the engine sees of an environment whose adapter starts processes and no more: command
-- lines put together where the service takes nothing else, sizes checked, standard input where the
-- service has none, and process trees that end.

local errors = require("farcall.errors")
local far_stdin = require("farcall.far_stdin")
local quoting = require("farcall.quoting")
local supervision = require("farcall.supervision")
local task = require("farcall.task")

local guarded = {}

local GRACE = 2
-- Seconds that an exec may take to tell its end once its tree is gone.
local FAREWELL = 3
-- Seconds that a start is waited for of which nobody wants to know any more.
local PATIENCE = 5

local function sorted_names(map)
  local names = {}
  for name in pairs(map or {}) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Where a command starts: where it is told to, seen from where the environment starts commands.
local function directory(base, cwd)
  if not (base and cwd) or cwd:sub(1, 1) == "/" then
    return cwd or base
  end
  return base .. "/" .. cwd
end

-- One line for sh that goes to cwd, sets the variables and becomes the program.
local function line_of(spec, cwd)
  local exports, words = {}, { "exec" }
  for _, name in ipairs(sorted_names(spec.env)) do
    if name:find("^[%a_][%w_]*$") then
      exports[#exports + 1] = name .. "=" .. quoting.sh(spec.env[name])
    else
      -- A program more, for names that a shell does not have.
      words[2] = "env"
      words[#words + 1] = quoting.sh(name .. "=" .. spec.env[name])
    end
  end
  words[#words + 1] = quoting.command(spec.argv)
  local steps = { table.concat(words, " ") }
  if #exports > 0 then
    table.insert(steps, 1, "export " .. table.concat(exports, " "))
  end
  if cwd then
    table.insert(steps, 1, "cd " .. quoting.sh(cwd))
  end
  return table.concat(steps, " && ")
end

local function check_texts(spec)
  for _, word in ipairs(spec.argv) do
    if word:find("\0", 1, true) then
      return "an argument holds a NUL byte"
    end
  end
  for name, value in pairs(spec.env or {}) do
    if name == "" or name:find("[=%z]") or value:find("\0", 1, true) then
      return ("%q cannot be a variable, or its value holds a NUL byte"):format(name)
    end
  end
  if spec.cwd and spec.cwd:find("\0", 1, true) then
    return "the directory's name holds a NUL byte"
  end
  return nil
end

local function too_large(caps, spec)
  local max = caps.max_command
  if not max then
    return nil
  end
  local longest = 0
  for _, word in ipairs(spec.argv or { spec.command }) do
    longest = math.max(longest, #word)
  end
  if longest > max then
    return errors.new("limit", "exec", ("%d bytes in one command; at most %d can be sent")
      :format(longest, max), { code = "E2BIG" })
  end
  return nil
end

-- What the adapter is handed: argv, env and cwd where it takes them, else one line.
local function for_adapter(self, spec)
  local problem = check_texts(spec)
  if problem then
    return nil, errors.new("usage", "exec", problem)
  end
  local handed = { stdin = spec.stdin }
  if self.caps.argv then
    handed.argv, handed.env, handed.cwd = spec.argv, spec.env, spec.cwd
  else
    handed.command = line_of(spec, directory(self.raw.cwd, spec.cwd))
    if self.deaf and (spec.stdin or "null") == "null" then
      -- That it ends does not arrive either.
      handed.command = handed.command .. " < /dev/null"
    end
  end
  local err = too_large(self.caps, handed)
  if err then
    return nil, err
  end
  return handed
end

---A process that a service ran to its end, as one whose output has come at once.
---@class farcall.guarded.Ended
local Ended = {}
Ended.__index = Ended

---@async
function Ended:read(max)
  self.ready.wait()
  for _, stream in ipairs({ "out", "err" }) do
    local bytes = self[stream]
    if bytes and #bytes > 0 then
      self[stream] = bytes:sub(max + 1)
      return stream, bytes:sub(1, max)
    end
  end
  return nil
end

---@async
function Ended:wait()
  self.ready.wait()
  return self.status, self.failure
end

function Ended.write()
  return nil, errors.new("unsupported", "exec", "the service has no standard input")
end

function Ended.close_stdin() end

---@async
function Ended:kill()
  self.runner:cancel(errors.new("cancelled", "exec", "let go"))
end

local function run_to_end(raw, handed, undo)
  local self = setmetatable({ ready = task.event() }, Ended)
  self.runner = task.spawn(function()
    local ok, result, err = pcall(raw.exec, raw, handed)
    if ok and result then
      self.out, self.err = result.stdout, result.stderr
      self.status = { exit = result.exit_code, name = result.signal }
    else
      self.failure = ok and err or errors.is(result) and result
        or errors.new("internal", "exec", tostring(result))
      undo()
    end
    self.ready.set()
  end)
  return self
end

---Bare execs: no supervisor, and kill only lets go.
---@class farcall.guarded.Bare: farcall.Env
local Bare = {}
Bare.__index = Bare

---@async
local function begin(self, full, undo)
  local handed, err = for_adapter(self, full)
  if not handed then
    return nil, err
  end
  if self.raw.exec then
    return run_to_end(self.raw, handed, undo)
  end
  return self.raw:start(handed)
end

---@async
---@param spec farcall.StartSpec with argv
---@return farcall.Process?
---@return farcall.Error? err
function Bare:start(spec)
  local stdin = spec.stdin ~= "" and spec.stdin or "null"
  local full = { argv = spec.argv, env = spec.env, cwd = spec.cwd, stdin = stdin }
  if spec.command then
    full.argv = { "sh", "-c", spec.command }
  end
  local writer, input
  if far_stdin.needed(self.caps, full.stdin) then
    full, writer, input = far_stdin.adapt(self, full)
    if not full then
      return nil, writer
    end
  end
  local function undo()
    if input then
      far_stdin.remove(self, input)
    end
  end
  local ok, process, err = pcall(begin, self, full, undo)
  if not (ok and process) then
    undo()
  end
  if not ok then
    error(process, 0)
  end
  if process and writer then
    return writer:attach(process)
  end
  return process, err
end

-- Whether a supervisor has seen to its tree and said so: one that was killed itself has not, and
-- its end looks like that of a program that was.
local function farewell(status)
  return status ~= nil and status.exit ~= nil and status.exit < 128
end

---A process whose tree ends with kill().
---@class farcall.guarded.Process: farcall.Process
---@field gone boolean nothing of it is left over there, as far as was seen
---@field leftover? farcall.Error why kill could not see to that
local Process = {}
Process.__index = Process

function Process:read(max)
  return self.raw:read(max)
end

function Process:write(bytes)
  return self.raw:write(bytes)
end

function Process:close_stdin()
  return self.raw:close_stdin()
end

---@async
function Process:wait()
  local status, err = self.raw:wait()
  if not status and self.killed then
    -- The exec was let go of after its tree had been seen to be gone.
    return { killed = true }
  end
  self.over = true
  self.gone = self.gone or self.supervised and farewell(status)
  return status, err
end

---@async
local function end_tree(self, grace)
  if self.life then
    -- The supervisor ends the tree when this ends, and then itself: no exec is needed.
    self.raw:close_stdin()
    local status = task.timeout(grace + FAREWELL, self.raw.wait, self.raw)
    if farewell(status) then
      self.gone = true
      return
    end
  end
  local gone, err = supervision.kill(self.bare, { mark = self.mark, grace = grace, dir = self.dir })
  self.gone, self.leftover = gone or false, err
  task.timeout(FAREWELL, self.raw.wait, self.raw)
end

-- Only where the supervisor listens, and it knows this one word. Does not wait: the way there may
-- be blocked.
---@param name string
local function interrupt(self, name)
  assert(name == "INT", "a supervisor passes on INT only")
  task.spawn(self.raw.write, self.raw, "INT\n")
end

---Ends the tree: TERM, grace, KILL. Returns when nothing is left, or when that cannot be had: then
---`leftover` says why. Idempotent.
---@async
---@param grace? number seconds
function Process:kill(grace)
  if self.over then
    return
  end
  if self.ending then
    return self.ending.wait()
  end
  self.ending = task.event()
  self.killed = true
  local ok, reason = pcall(task.shield, end_tree, self, grace or GRACE)
  self.raw:kill()
  self.over = true
  self.ending.set()
  if not ok then
    error(reason, 0)
  end
end

---@class farcall.Guarded: farcall.Env
local Guarded = {}
Guarded.__index = Guarded

-- Some shells drop variables whose names they could not use: the program gets these behind them.
local function past_the_shell(argv, variables)
  local words = { "env" }
  for _, name in ipairs(sorted_names(variables)) do
    if not name:find("^[%a_][%w_]*$") then
      words[#words + 1] = name .. "=" .. variables[name]
    end
  end
  if #words == 1 then
    return argv
  end
  for _, word in ipairs(argv) do
    words[#words + 1] = word
  end
  return words
end

-- Who gives up while an exec is being started cannot know whether it begins: it is waited for, and
-- ended, with all that it may have started already.
---@async
local function start_or_undo(bare, spec, mark)
  local starter = task.spawn(bare.start, bare, spec)
  local waited, ok, raw, err = pcall(starter.join, starter)
  if not waited then
    task.shield(function()
      local _, begun = task.timeout(PATIENCE, starter.join, starter)
      starter:cancel()
      supervision.kill(bare, { mark = mark, grace = GRACE })
      if type(begun) == "table" and begun.kill then
        begun:kill()
        begun:wait()
      end
    end)
    error(ok, 0)
  elseif not ok then
    error(raw, 0)
  end
  return raw, err
end

---@async
---@param spec farcall.StartSpec with `timeout` the tree is ended over there too; with `life` {dir,
---lease} standard input is the supervisor's: the tree ends when the exec's input ends
---@return farcall.Process?
---@return farcall.Error? err
function Guarded:start(spec)
  local mark = spec.mark or supervision.new_mark()
  local argv = spec.argv or { "sh", "-c", spec.command }
  local variables, life = spec.env, nil
  if spec.life or spec.timeout then
    life = spec.life and self.caps.stdin == "stream"
    argv = supervision.argv({
      mark = mark, argv = past_the_shell(argv, spec.env), grace = GRACE,
      stdin = life and "life" or "data", deadline = spec.timeout,
      dir = spec.life and spec.life.dir, lease = spec.life and spec.life.lease,
    })
  else
    variables = { FARCALL_MARK = mark }
    for name, value in pairs(spec.env or {}) do
      variables[name] = value
    end
  end
  local raw, err = start_or_undo(self.bare, {
    argv = argv, env = variables, cwd = spec.cwd, stdin = life and "pipe" or spec.stdin,
  }, mark)
  if not raw then
    return nil, err
  end
  return setmetatable({
    raw = raw, bare = self.bare, mark = mark, life = life, dir = spec.life and spec.life.dir,
    supervised = spec.life ~= nil or spec.timeout ~= nil, gone = false,
    signal = life and interrupt or nil,
  }, Process)
end

function Guarded:alive()
  return not self.raw.alive or self.raw:alive()
end

---What is written to an exec's standard input does not arrive: bytes travel in commands from now
---on.
function Guarded:without_stdin()
  local caps = {}
  for name, value in pairs(self.caps) do
    caps[name] = value
  end
  caps.stdin = "none"
  self.caps, self.bare.caps, self.bare.deaf = caps, caps, true
end

---@async
function Guarded:close()
  return self.raw:close()
end

---Puts the guard around what a backend has opened.
---@param raw farcall.Env
---@param caps farcall.Caps
---@return farcall.Env
function guarded.wrap(raw, caps)
  local bare = setmetatable({ raw = raw, caps = caps }, Bare)
  local self = setmetatable({
    raw = raw, bare = bare, caps = caps, name = raw.name, cwd = raw.cwd,
  }, Guarded)
  if raw.restore then
    function bare.restore(_, ...)
      return raw:restore(...)
    end
    self.restore = bare.restore
  end
  if raw.get then
    function self.get(_, ...)
      return raw:get(...)
    end
  end
  if raw.put then
    function self.put(_, ...)
      return raw:put(...)
    end
  end
  return self
end

return guarded
