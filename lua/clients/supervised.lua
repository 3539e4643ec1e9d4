-- SPDX-License-Identifier: MIT
-- A process under farcall-supervisor (runner/supervisor.c): speaks its control lines and holds the
-- script's streams. Pull semantics: nothing is read that nobody asked for, so a script whose output
-- is not read waits.

local errors = require("farcall.errors")
local proc = require("farcall.core.proc")
local sock = require("farcall.core.sock")
local task = require("farcall.task")

local supervised = {}

-- What a stream may still hold when the tree is gone: a pipe and our buffer. More than this comes
-- from a process outside the tree that got hold of the pipe.
local MAX_REST = 2 * 1024 * 1024
local MAX_PIECE = 256 * 1024
-- Killing takes the supervisor's own patience at most; beyond that it is not to be waited for.
local KILL_PATIENCE = 15
-- Nor are streams that should have ended with a tree that was killed.
local STREAM_PATIENCE = 10
local CONTROL_LINE = 512
local CONTROL_FD = 3

---@class farcall.Supervised: farcall.Process
---@field level string how the tree is held: "pidns", "cgroup" or "subreaper"
---@field pid integer the script's, as itself sees it
---@field private streams table<string, table> name -> fdbuf or channel, while it is open
---@field private lasting boolean the streams end by themselves when the tree has gone
---@field private rest table[] {name, bytes}: what was left in the streams when the tree was gone
---@field private status? table
---@field private failure? farcall.Error
local Process = {}
Process.__index = Process

-- Takes what is still in the pipes into memory.
local function take_rest(self)
  for _, name in ipairs({ "out", "err" }) do
    local stream = self.streams[name]
    local taken = 0
    while stream and taken < MAX_REST do
      local bytes = stream:read(MAX_PIECE)
      if not bytes then
        break
      end
      taken = taken + #bytes
      table.insert(self.rest, { name, bytes })
    end
    if stream then
      stream:close()
    end
    self.streams[name] = nil
  end
end

-- Everything is over: the supervisor has been reaped and has said its last line. Nothing has to be
-- closed by whoever does not read the rest.
local function finish(self)
  if self.ended.is_set() then
    return
  end
  if not self.lasting then
    take_rest(self)
  end
  self:close_stdin()
  self.control:close()
  self.child:close()
  if self.patience then
    self.patience:close()
  end
  self.started.set()
  self.ended.set()
  -- Whoever reads streams that last hears of their end from them.
  for _, wake in ipairs({ not self.lasting and self.wake_reader, self.wake_writer or false }) do
    if wake then
      wake()
    end
  end
end

local function settle(self)
  if self.reaped and self.silent then
    finish(self)
  end
end

-- What a supervisor says. Each takes its line, or says false: it means nothing. The one of another
-- machine may say anything.
local WORDS = {}

function WORDS.level(self, name)
  self.level = name
end

function WORDS.started(self, pid)
  self.pid = tonumber(pid:match("^%d+$"))
  if not self.pid then
    return false
  end
  self.started.set()
end

WORDS["exec-failed"] = function(self, rest)
  local stage, number = rest:match("^(%S+) (%d%d?%d?)$")
  if not stage then
    return false
  end
  local text, name = proc.error_text(tonumber(number))
  if stage == "level" then
    text = ("trees cannot be held by %s here"):format(self.tree)
  elseif stage == "cwd" then
    text = ("cannot enter directory %s: %s"):format(self.inner_cwd or "", text)
  elseif stage ~= "exec" then
    text = stage .. ": " .. text
  end
  self.failure = errors.wrap(self.op, text, name)
  if stage == "level" then
    self.failure.hint = "`farcall doctor` tells what can hold them"
  end
end

function WORDS.deadline(self)
  self.deadline_passed = true
end

function WORDS.exited(self, code)
  local number = tonumber(code:match("^%d%d?%d?$"))
  if not number then
    return false
  end
  self.status = { exit = number }
end

function WORDS.signalled(self, rest)
  local number = tonumber(rest:match("^%d%d?$"))
  if not number then
    return false
  end
  self.status = { signal = number, name = proc.signal_name(number) or rest }
end

-- The tree is gone or given up. If nobody saw its main process end, it died with the namespace.
function WORDS.gone(self)
  self.silent = true
  if self.pid then
    self.status = self.status or { signal = 9, name = "KILL" }
  end
end

function WORDS.left(self, count)
  WORDS.gone(self)
  self.left = tonumber(count:match("^%d+$")) or 1
  self.reaped = true
end

-- Whoever still reads is told of the end; what has not come by now does not count.
local function end_streams(self)
  for name, stream in pairs(self.streams) do
    stream:close()
    self.streams[name] = nil
  end
  if self.wake_reader then
    self.wake_reader()
  end
end

-- Nothing that it says counts any more.
local function disbelieve(self)
  self.failure = errors.new("protocol", self.op, "its supervisor said what means nothing")
  self.status, self.silent, self.broken = nil, true, true
  if self.lasting then
    end_streams(self)
  else
    self.child:kill("KILL")
  end
end

local function hear(self)
  while not self.silent do
    local line, _, code = self.control:readline(CONTROL_LINE)
    if not line then
      if code == "EAGAIN" then
        return
      elseif code == "LIMIT" then
        disbelieve(self)
      end
      self.silent = true
    else
      local word, rest = line:match("^(%S+) ?(.*)$")
      if not WORDS[word] or WORDS[word](self, rest) == false then
        disbelieve(self)
      end
    end
  end
  self.control:on_readable(nil)
  settle(self)
end

---The next output; nil at the end of both streams.
---@async
---@param max integer
---@return "out"|"err"|nil stream
---@return string? bytes
function Process:read(max)
  while true do
    local kept = table.remove(self.rest, 1)
    if kept then
      if #kept[2] > max then
        table.insert(self.rest, 1, { kept[1], kept[2]:sub(max + 1) })
      end
      return kept[1], kept[2]:sub(1, max)
    end
    -- Whoever was not served the last time comes first.
    for _, name in ipairs(self.last == "out" and { "err", "out" } or { "out", "err" }) do
      local stream = self.streams[name]
      local bytes, _, code
      if stream then
        bytes, _, code = stream:read(max)
      end
      if bytes then
        self.last = name
        return name, bytes
      elseif stream and code ~= "EAGAIN" then
        stream:close()
        self.streams[name] = nil
      end
    end
    if not next(self.streams) then
      return nil
    end
    self:await_output()
  end
end

---@private
---@async
function Process:await_output()
  task.await(function(resume)
    local bound
    local function stop()
      self.wake_reader = nil
      if bound then
        bound:close()
      end
      for _, stream in pairs(self.streams) do
        stream:on_readable(nil)
      end
    end
    self.wake_reader = function()
      stop()
      resume()
    end
    for _, stream in pairs(self.streams) do
      stream:on_readable(self.wake_reader)
    end
    if self.streams_end then
      bound = task.loop():timer(math.max(0, math.ceil((self.streams_end - task.now()) * 1000)),
        function()
          end_streams(self)
        end)
    end
    return stop
  end)
end

local function await_drained(self)
  task.await(function(resume)
    self.wake_writer = function()
      self.wake_writer = nil
      if self.stdin then
        self.stdin:on_drained(nil)
      end
      resume()
    end
    self.stdin:on_drained(self.wake_writer)
    return function()
      self.wake_writer = nil
      if self.stdin then
        self.stdin:on_drained(nil)
      end
    end
  end)
end

---Waits until the kernel has all bytes.
---@async
---@param bytes string
---@return boolean?
---@return farcall.Error? err
function Process:write(bytes)
  for from = 1, #bytes, MAX_PIECE do
    if not self.stdin then
      local msg = "the process does not read any more"
      return nil, errors.new("lost", "stdin", msg, { code = "EPIPE" })
    end
    local pending, msg, code = self.stdin:write(bytes:sub(from, from + MAX_PIECE - 1))
    if not pending then
      return nil, errors.wrap("stdin", msg, code)
    end
    if pending > 0 then
      await_drained(self)
    end
  end
  return true
end

function Process:close_stdin()
  if not self.stdin then
    return
  elseif self.lasting then
    self.stdin:finish()
  else
    self.stdin:close()
  end
  self.stdin = nil
end

---Sends a signal to the script's process group; for more than that there is kill.
---@param name string "INT"
function Process:signal(name)
  if not self.silent then
    self.control:write(("signal %d\n"):format(proc.signal_number(name)))
  end
end

-- Why nothing is known of how the program ended.
local function why_ended(self)
  local broken = self.why and self.why()
  if self.broken then
    return self.failure
  elseif broken and broken.kind == "protocol" then
    return errors.new("protocol", self.op, broken.msg, { cause = broken })
  end
  return errors.new("lost", self.op, broken and "the link to its runner was lost: " .. broken.msg
    or self.left and "nothing says that it has ended" or "its supervisor died", { cause = broken })
end

---Waits until nothing of the tree is left.
---@async
---@return {exit?: integer, signal?: integer, name?: string}? status
---@return farcall.Error? err
function Process:wait()
  self.ended.wait()
  if self.status then
    return self.status
  end
  return nil, why_ended(self)
end

-- The streams of a tree that was killed end by themselves, unless the far side wants it otherwise.
local function bound_streams(self)
  if self.lasting and not self.streams_end then
    self.streams_end = task.now() + STREAM_PATIENCE
    if self.wake_reader then
      self.wake_reader()
    end
  end
end

---Ends the tree: TERM, grace, KILL. Returns when nothing is left. Idempotent.
---@async
---@param grace? number seconds instead of those set at the start
function Process:kill(grace)
  if self.ended.is_set() then
    return bound_streams(self)
  end
  if not self.silent then
    self.control:write(grace and ("kill %d\n"):format(grace * 1000) or "kill\n")
  end
  if not self.patience then
    local patience = (grace or self.grace) + KILL_PATIENCE
    self.patience = task.loop():timer(patience * 1000, function()
      self.left = self.left or 1
      self.child:kill("KILL")
      finish(self)
      if self.lasting then
        end_streams(self)
      end
    end)
  end
  self.ended.wait()
  bound_streams(self)
end

-- The program as a supervisor behind a prefix takes it.
local function words(spec)
  return table.concat(spec.argv, "\0") .. "\0"
end

local function arguments(spec)
  local argv = {}
  local function add(...)
    for _, word in ipairs({ ... }) do
      argv[#argv + 1] = word
    end
  end
  for _, word in ipairs(spec.prefix or {}) do
    argv[#argv + 1] = word
  end
  add(spec.supervisor, "--control", tostring(CONTROL_FD), "--level", spec.tree,
    "--grace-ms", ("%d"):format(spec.grace * 1000))
  if spec.environ then
    add("--environ", ("%d"):format(#spec.environ))
  end
  if spec.prefix then
    add("--words", ("%d"):format(#words(spec)))
  end
  if spec.inner_cwd then
    add("--cwd", spec.inner_cwd)
  end
  for name, value in pairs(spec.rlimits or {}) do
    add("--rlimit", ("%s=%.0f"):format(name, value))
  end
  if spec.timeout then
    add("--deadline-ms", ("%d"):format(math.max(1, spec.timeout * 1000)))
  end
  if spec.python then
    add("--python")
  end
  add("--")
  for _, word in ipairs(spec.prefix and {} or spec.argv) do
    argv[#argv + 1] = word
  end
  return argv
end

-- What stands between us and the supervisor has its own words for a failure, on standard error.
local function last_words(self)
  local text = {}
  for _, piece in ipairs(self.rest) do
    text[#text + 1] = piece[1] == "err" and piece[2] or ""
  end
  text = table.concat(text):gsub("%s+$", "")
  return text ~= "" and text or nil
end

local function spawn(spec, fd)
  local child, msg, code = proc.spawn(task.loop(), {
    argv = arguments(spec), env = spec.env, cwd = spec.cwd, umask = spec.umask,
    stdin = spec.stdin, stdout = "pipe", stderr = "pipe", fds = { [CONTROL_FD] = fd },
  })
  if child then
    return child
  end
  if msg:sub(1, 5) == "exec " and code ~= "E2BIG" and not spec.prefix then
    return nil, errors.new("unavailable", "supervisor", msg,
      { hint = "farcall-supervisor belongs beside farcall" })
  end
  return nil, errors.wrap("exec " .. spec.argv[1], msg, code)
end

---Refuses what no process can be given: it would arrive as something else, or not at all.
---@param spec farcall.StartSpec
---@return boolean?
---@return farcall.Error? err
---@nodiscard
function supervised.check(spec)
  local bad = spec.cwd and spec.cwd:find("%z")
  for name, value in pairs(spec.env or {}) do
    bad = bad or name == "" or name:find("[=%z]") or value:find("%z")
  end
  for _, word in ipairs(spec.argv or { spec.command }) do
    bad = bad or word:find("%z")
  end
  if bad then
    return nil, errors.new("usage", "exec",
      "a word or variable cannot hold a NUL byte, nor a variable's name an equals sign")
  end
  return true
end

---@class farcall.supervised.Spec
---@field supervisor string path of farcall-supervisor
---@field argv string[]
---@field env string[] "NAME=value"
---@field cwd string
---@field stdin "pipe"|"null"
---@field prefix? string[] words of a program that starts the supervisor somewhere else, with fd 3;
---argv and environ then go over that and not through it; they must not hold a NUL
---@field environ? string "NAME=value\0"..., set by a supervisor behind a prefix
---@field inner_cwd? string entered by a supervisor behind a prefix
---@field tree "auto"|"pidns"|"cgroup"|"subreaper"
---@field grace number seconds between TERM and KILL
---@field rlimits? table<string, number>
---@field umask? integer
---@field timeout? number seconds until the supervisor ends it by itself
---@field python? boolean argv is perhaps a Python and its script: a supervisor that is the same
---Python may go on as that. Only one that is written in Python knows of this

-- Waits until the program runs, or is known not to.
---@async
local function await_start(self)
  self.control:on_readable(function()
    hear(self)
  end)
  local ok, reason = pcall(self.started.wait)
  if not ok then
    -- Cancelled: nobody else knows of this process.
    task.shield(self.kill, self)
    if self.lasting then
      end_streams(self)
    end
    error(reason, 0)
  end
  if self.pid then
    return self
  end
  self.ended.wait()
  local failure = self.failure or why_ended(self)
  if not self.failure then
    failure.partial = last_words(self)
  end
  if self.lasting then
    end_streams(self)
  end
  return nil, failure
end

---Starts a program. Returns when it runs.
---@async
---@param spec farcall.supervised.Spec
---@return farcall.Supervised?
---@return farcall.Error? err
---@nodiscard
function supervised.start(spec)
  local control, fd, code = sock.pair(task.loop())
  if not control then
    return nil, errors.wrap("supervisor", fd, code)
  end
  local child, err = spawn(spec, fd)
  proc.close_fd(fd)
  if not child then
    control:close()
    return nil, err
  end
  if spec.prefix then
    control:write((spec.environ or "") .. words(spec))
  end
  local self = setmetatable({
    child = child, control = control, stdin = child:stdin(), grace = spec.grace,
    tree = spec.tree, op = "exec " .. spec.argv[1], inner_cwd = spec.inner_cwd,
    streams = { out = child:stdout(), err = child:stderr() }, rest = {},
    started = task.event(), ended = task.event(),
  }, Process)
  child:on_exit(function()
    self.reaped = true
    settle(self)
  end)
  return await_start(self)
end

-- Stands for the child where the supervisor is another process' child: its end is that of the
-- control channel, and closing that makes it end its tree.
local function far_child(control)
  return {
    kill = function()
      control:close()
    end,
    close = function() end,
  }
end

---The options of a supervisor that somebody else starts, and then what it takes over its control
---channel, before all else.
---@param spec farcall.supervised.Spec without supervisor, prefix, env and cwd
---@return string[] options
---@return string bytes
function supervised.order(spec)
  local argv = arguments({
    prefix = {}, supervisor = "", argv = spec.argv, environ = spec.environ, tree = spec.tree,
    inner_cwd = spec.inner_cwd, grace = spec.grace, rlimits = spec.rlimits, timeout = spec.timeout,
    python = spec.python,
  })
  -- Without the program's name, --control and its number, and the -- at the end.
  local options = {}
  for i = 4, #argv - 1 do
    options[#options + 1] = argv[i]
  end
  return options, (spec.environ or "") .. words(spec)
end

---A program whose supervisor has been started by somebody else, with these channels (the methods of
---farcall.core.fdbuf) to it. Returns when it runs. Its streams must end by themselves when its tree
---has gone.
---@async
---@param spec farcall.supervised.Spec as for order()
---@param channels {control: table, stdin?: table, out: table, err: table, why?: function} stdin may
---be out, whose other direction it is then; why tells what became of whoever carries them
---@return farcall.Supervised?
---@return farcall.Error? err
---@nodiscard
function supervised.join(spec, channels)
  return await_start(setmetatable({
    child = far_child(channels.control), control = channels.control, stdin = channels.stdin,
    grace = spec.grace, tree = spec.tree, op = "exec " .. spec.argv[1],
    inner_cwd = spec.inner_cwd, streams = { out = channels.out, err = channels.err }, rest = {},
    started = task.event(), ended = task.event(), reaped = true, lasting = true,
    why = channels.why,
  }, Process))
end

return supervised
