-- SPDX-License-Identifier: MIT
-- Environments that a program of this machine leads into: its words stand before those of what is
-- to run ("podman exec NAME"). Between the two stands farcall-supervisor, which that program starts
-- over there and which holds the end of a socket to us as descriptor 3. So a process tree is held
-- from inside, where it cannot leave, signals are told as such, and variables and directories never
-- pass through what the program in between makes of them.

local errors = require("farcall.errors")
local proc = require("farcall.core.proc")
local scrub = require("farcall.scrub")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")

local command = {}

-- Where the supervisor lies over there.
command.SUPERVISOR = "/.farcall/supervisor"

-- True of every environment that has the supervisor in it.
command.CAPS = {
  argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
  kill = "native", parallel = true, max_command = 131071, isolated = true,
}

-- What is left where there is none: a line for sh, and a program in between that tells a code.
local BARE_CAPS = {
  stdin = "stream", stdout = "stream", split = true, status = "code", kill = "none",
  parallel = true, max_command = 131071, isolated = true,
}

-- Enters $1 and runs the line $2.
local ENTER = [[cd "$1" || exit 126; exec sh -c "$2"]]

local MAX_TEXT = 4 * 1024 * 1024

---What a program says when it cannot do something, and what that means.
---@class farcall.command.Refusal
---@field [1] string Lua pattern, of its message in lower case
---@field [2] farcall.ErrorKind
---@field hint? string
---@field gone? boolean the environment is dead
---@field exists? boolean the name is taken: EEXIST

---@class farcall.command.Place
---@field name string of the environment
---@field prefix string[] the program and its words
---@field environ string[] "NAME=value" for the program itself
---@field engine_supervisor string ctx.supervisor
---@field bare? boolean there is no supervisor over there
---@field variables? table<string, string> for what runs over there
---@field cwd? string where it starts; "/" unless set
---@field grace number seconds between TERM and KILL
---@field refusals farcall.command.Refusal[] the first that matches counts
---@field remove? async fun() gives the environment back when it is closed

---Puts words at the end of a command; nothing where one is nil or false.
---@param words string[]
function command.add(words, ...)
  for i = 1, select("#", ...) do
    words[#words + 1] = select(i, ...) or nil
  end
end

---Finds the program on the operator's PATH.
---@param names string[] the first that is there counts
---@param environ table<string, string>
---@param hint string
---@return string? path
---@return farcall.Error? err
---@nodiscard
function command.find(names, environ, hint)
  for _, name in ipairs(names) do
    local path = proc.which(name, environ.PATH)
    if path then
      return path
    end
  end
  return nil, errors.new("not_found", names[1], "there is no such program on this machine",
    { code = "ENOENT", hint = hint })
end

---The operator's variables for such a program: what passes the scrub, and what it is set up with.
---@param environ table<string, string>
---@param prefixes string[] of names that are the program's own
---@return string[]
function command.environ(environ, prefixes)
  local list = {}
  for name, value in pairs(scrub.environment(environ)) do
    list[#list + 1] = name .. "=" .. value
  end
  for name, value in pairs(environ) do
    for _, prefix in ipairs(prefixes) do
      if name:sub(1, #prefix) == prefix then
        list[#list + 1] = name .. "=" .. value
        break
      end
    end
  end
  return list
end

---The variables of what runs over there: those let through, under those set.
---@param options table
---@param ctx farcall.BackendContext
---@return table<string, string>
function command.variables(options, ctx)
  local variables = {}
  for _, name in ipairs(ctx.passthrough or {}) do
    variables[name] = ctx.environ[name]
  end
  for name, value in pairs(options.env or {}) do
    variables[name] = value
  end
  return variables
end

---@async
local function await_exit(child, seconds)
  local late = false
  local ended = task.event()
  child:on_exit(function(how, status)
    ended.set(how, status)
  end)
  local timer = task.loop():timer(seconds * 1000, function()
    late = true
    child:kill_group("KILL")
  end)
  local ok, how, status = pcall(ended.wait)
  timer:close()
  if not ok then
    child:kill_group("KILL")
    task.shield(ended.wait)
    error(how, 0)
  end
  return how == "exit" and status or nil, late
end

---Runs a command of such a program to its end. Not under a supervisor: what it leaves running (a
---container) is meant to stay.
---@async
---@param argv string[]
---@param environ string[]
---@param seconds number after which it is killed
---@return {exit_code?: integer, stdout: string, stderr: string}? result no exit code: it was killed
---@return farcall.Error? err
---@nodiscard
function command.run(argv, environ, seconds)
  local child, msg, code = proc.spawn(task.loop(), {
    argv = argv, env = environ, cwd = "/", stdin = "null", stdout = "pipe", stderr = "pipe",
  })
  if not child then
    return nil, errors.wrap("exec " .. argv[1], msg, code)
  end
  local text = { stdout = "", stderr = "" }
  local function take(name)
    local stream = child[name](child)
    while true do
      local bytes, _, why = stream:read(65536)
      if not bytes then
        if why ~= "EAGAIN" then
          stream:on_readable(nil)
        end
        return
      end
      text[name] = (text[name] .. bytes):sub(1, MAX_TEXT)
    end
  end
  for name in pairs(text) do
    child[name](child):on_readable(function()
      take(name)
    end)
  end
  local ok, exit_code, late = pcall(await_exit, child, seconds)
  if ok then
    take("stdout")
    take("stderr")
  end
  child:stdout():close()
  child:stderr():close()
  child:close()
  if not ok then
    error(exit_code, 0)
  end
  if late then
    return nil, errors.new("timeout", "exec " .. argv[1], ("not done in %g s"):format(seconds))
  end
  text.exit_code = exit_code
  return text
end

-- The line that says it: the first that the program itself calls fatal, else the last.
local function telling_line(text)
  local last
  for line in text:gsub("\27%[[%d;]*m", ""):gmatch("[^\r\n]+") do
    local said = line:match("^FATAL:%s+(.+)") or line:match("^Error: (.+)")
      or line:match("^bwrap: (.+)")
    if said then
      return said
    end
    last = line
  end
  return last
end

---What a program's refusal means.
---@param op string
---@param text string what it has said
---@param refusals table[] as in farcall.command.Place
---@return farcall.Error err
---@return boolean? gone
function command.refusal(op, text, refusals)
  local msg = telling_line(text) or "refused without a word"
  for _, refusal in ipairs(refusals) do
    if msg:lower():find(refusal[1]) then
      local code = refusal.exists and "EEXIST" or nil
      return errors.new(refusal[2], op, msg, { hint = refusal.hint, code = code }), refusal.gone
    end
  end
  return errors.new("unavailable", op, msg)
end

---@class farcall.CommandEnv: farcall.Env
---@field private place farcall.command.Place
local Env = {}
Env.__index = Env

-- NAME=value and NUL for each.
local function block(variables, extra)
  local merged, parts = {}, {}
  for _, source in ipairs({ variables or {}, extra or {} }) do
    for name, value in pairs(source) do
      merged[name] = value
    end
  end
  for name, value in pairs(merged) do
    parts[#parts + 1] = name .. "=" .. value .. "\0"
  end
  return #parts > 0 and table.concat(parts) or nil
end

local function joined(...)
  local all = {}
  for _, words in ipairs({ ... }) do
    for _, word in ipairs(words) do
      all[#all + 1] = word
    end
  end
  return all
end

-- Without a supervisor over there, one on this side holds the program in between.
local function bare_spec(place, spec, cwd)
  local variables = { "env" }
  for pair in (block(place.variables, spec.env) or ""):gmatch("[^%z]+") do
    variables[#variables + 1] = pair
  end
  return {
    supervisor = place.engine_supervisor,
    argv = joined(place.prefix, variables, { "sh", "-c", ENTER, "sh", cwd, spec.command }),
  }
end

local function held_spec(place, spec, cwd)
  return {
    prefix = place.prefix, supervisor = command.SUPERVISOR, inner_cwd = cwd,
    environ = block(place.variables, spec.env), argv = spec.argv or { "sh", "-c", spec.command },
  }
end

---@async
---@param spec farcall.StartSpec
---@return farcall.Process?
---@return farcall.Error? err
function Env:start(spec)
  if not self:alive() then
    return nil, errors.new("unavailable", self.name,
      self.dead and "the environment is gone" or "the environment is closed")
  end
  local sound, unsound = supervised.check(spec)
  if not sound then
    return nil, unsound
  end
  local place = self.place
  local cwd = spec.cwd or self.cwd
  cwd = cwd:sub(1, 1) == "/" and cwd or self.cwd .. "/" .. cwd
  local start = (place.bare and bare_spec or held_spec)(place, spec, cwd)
  local stdin = spec.stdin or "null"
  local bytes = stdin ~= "pipe" and stdin ~= "null" and stdin or nil
  start.env, start.cwd, start.tree, start.grace = place.environ, "/", "subreaper", place.grace
  start.stdin, start.timeout = bytes and "pipe" or stdin, spec.timeout
  local process, err = supervised.start(start)
  if not process then
    if err.kind == "lost" and err.partial then
      local gone
      err, gone = command.refusal(err.op, err.partial, place.refusals)
      self.dead = self.dead or gone
    end
    return nil, err
  elseif self.closed then
    -- Meanwhile.
    process:kill()
    return nil, errors.new("unavailable", self.name, "the environment is closed")
  end
  self.running[process] = true
  if bytes then
    task.spawn(function()
      process:write(bytes)
      process:close_stdin()
    end)
  end
  return process
end

function Env:alive()
  return not self.closed and not self.dead
end

---@async
function Env:close()
  if self.closed then
    return
  end
  self.closed = true
  for process in pairs(self.running) do
    process:kill()
  end
  if self.place.remove then
    self.place.remove()
  end
end

---An environment that the words of place.prefix lead into.
---@param place farcall.command.Place
---@return farcall.Env
function command.env(place)
  return setmetatable({
    name = place.name, caps = place.bare and BARE_CAPS or command.CAPS, place = place,
    grace = place.grace,
    cwd = place.cwd or "/", running = setmetatable({}, { __mode = "k" }),
  }, Env)
end

return command
