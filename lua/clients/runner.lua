-- SPDX-License-Identifier: MIT
-- A runner in an environment: a small program on the far side of one exec, through which any number
-- of processes, sockets and files are reached as streams of that exec's standard input and output.
-- docs/wire.md has what is spoken. How it gets there: clients/runner_link.lua.

local errors = require("farcall.errors")
local link = require("farcall.clients.runner_link")
local mux = require("farcall.core.mux")
local proc = require("farcall.core.proc")
local supervised = require("farcall.clients.supervised")
local task = require("farcall.task")

local runner = {}

local ANSWER_LINE = 4096
-- After so many signs of life that were asked for in vain a link counts as lost.
local PATIENCE = 3
-- Seconds until the first answer of one that can say hello but may not hear. Specs set it.
runner.FIRST_ANSWER = 15
-- Bytes that one stream of a process may send ahead of its reader.
local WINDOW = 1024 * 1024

---@class farcall.Runner
---@field form string "c" or "python"
---@field why? string of the Python one: why it is not the one in C
---@field failure? farcall.Error why it is of no use any more
---@field private link farcall.RunnerLink
---@field private mux farcall.Mux
---@field private listeners table<integer, fun(io: table, peer: table)> by the number of the channel
local Runner = {}
Runner.__index = Runner

local function request(...)
  return table.concat({ ... }, "\0") .. "\0"
end

-- Why a runner failed is also why what was asked of it did; all else that ends it is a loss.
local KEPT_KINDS = { protocol = true, unsupported = true }

local function broken(self, op)
  local failure = self.failure or self.link and self.link.broken
  local kind = failure and KEPT_KINDS[failure.kind] and failure.kind or "lost"
  return errors.new(kind, op, failure and failure.msg or "the runner is gone", { cause = failure })
end

-- Everything that goes through it fails from now on.
local function give_up(self, err)
  if self.failure then
    return
  end
  self.failure = err
  -- That can come before the start is over.
  for _, part in ipairs({ self.mux, self.timer or nil, self.first or nil }) do
    part:close()
  end
  if self.link then
    self.link:close()
  end
  self.over.set()
end

---@private
function Runner:open(op, ...)
  if self.failure then
    return nil, broken(self, op)
  end
  local channel, msg, code = self.mux:open(request(...))
  if not channel then
    return nil, self.link.broken and broken(self, op) or errors.wrap(op, msg, code)
  end
  return channel
end

-- A peer that the runner tells of: a connection of one of our listeners.
local function accept(self, channel, words)
  local list = {}
  for word in words:gmatch("([^%z]*)%z") do
    list[#list + 1] = word
  end
  local on_accept = list[1] == "accepted" and #list == 4 and self.listeners[tonumber(list[2])]
  local pid, uid = tonumber(list[3]), tonumber(list[4])
  if on_accept and pid and uid then
    on_accept(channel, { pid = pid, uid = uid })
  else
    channel:close()
  end
end

-- Waits for the next line of an answer.
---@async
local function line_of(self, channel, op)
  while true do
    local line, msg, code = channel:readline(ANSWER_LINE)
    if line then
      return line
    elseif code ~= "EAGAIN" then
      if self.failure then
        return nil, broken(self, op)
      end
      return nil, errors.new("protocol", op, "the runner answered " .. msg, { code = code })
    end
    task.await(function(resume)
      channel:on_readable(function()
        channel:on_readable(nil)
        resume()
      end)
      return function()
        channel:on_readable(nil)
      end
    end)
  end
end

-- ok WORDS or error STAGE ERRNO.
---@async
local function answer(self, channel, op)
  local ok, line, err = pcall(line_of, self, channel, op)
  if not ok or not line then
    channel:close()
    if not ok then
      error(line, 0)
    end
    return nil, err
  end
  local rest = line:match("^ok ?(.*)$")
  if rest then
    return rest
  end
  channel:close()
  local stage, number = line:match("^error (%l+) (%d%d?%d?)$")
  if not stage then
    return nil, errors.new("protocol", op, "the runner gave an answer that is none")
  end
  local text, name = proc.error_text(tonumber(number))
  return nil, errors.wrap(op, text, name)
end

---Starts a program under a supervisor of its own. Returns when it runs.
---@async
---@param spec {argv: string[], environ?: string, inner_cwd?: string, tree: string, grace: number,
---timeout?: number, rlimits?: table<string, number>, stdin: string, script?: boolean} as
---farcall.supervised.Spec; stdin is "pipe", "null" or the bytes; script as in farcall.StartSpec
---@return farcall.Supervised?
---@return farcall.Error? err
---@nodiscard
function Runner:exec(spec)
  local op = "exec " .. spec.argv[1]
  local out, err = self:open(op, "pipe")
  if not out then
    return nil, err
  end
  local options, bytes = supervised.order({
    argv = spec.argv, environ = spec.environ, inner_cwd = spec.inner_cwd, tree = spec.tree,
    grace = spec.grace, timeout = spec.timeout, rlimits = spec.rlimits,
    python = spec.script and self.form == "python",
  })
  local errs = self:open(op, "pipe")
  local control = errs and self:open(op, "exec", ("%d"):format(out:id()),
    ("%d"):format(errs:id()), unpack(options))
  if not control then
    out:close()
    return nil, broken(self, op)
  end
  errs:finish()
  control:write(bytes)
  local piped = spec.stdin == "pipe"
  if not piped then
    if spec.stdin ~= "null" then
      out:write(spec.stdin)
    end
    out:finish()
  end
  return supervised.join(spec, {
    control = control, stdin = piped and out or nil, out = out, err = errs,
    why = function()
      return self.failure or self.link.broken
    end,
  })
end

---Makes a private directory there, which goes when it is closed, or with the runner.
---@async
---@param bases string[] directories in one of which it is to be, the first that is possible
---@return {path: string, close: fun()}?
---@return farcall.Error? err
---@nodiscard
function Runner:directory(bases)
  local op = "directory of the run"
  local channel, err = self:open(op, "mkdir", unpack(bases))
  if not channel then
    return nil, err
  end
  local path
  path, err = answer(self, channel, op)
  if not path then
    return nil, err
  elseif path:sub(1, 1) ~= "/" then
    channel:close()
    return nil, errors.new("protocol", op, "the runner named a directory that is none")
  end
  return {
    path = path,
    close = function()
      channel:close()
    end,
  }
end

---Writes a file whole.
---@async
---@param path string absolute
---@param bytes string
---@param mode integer
---@return true?
---@return farcall.Error? err
---@nodiscard
function Runner:put(path, bytes, mode)
  local op = "write " .. path
  local channel, err = self:open(op, "put", path, ("%o"):format(mode), ("%d"):format(#bytes))
  if not channel then
    return nil, err
  end
  channel:write(bytes)
  channel:finish()
  local done
  done, err = answer(self, channel, op)
  channel:close()
  return done and true, err
end

---Listens on a Unix socket there.
---@async
---@param path string absolute, in a directory that nobody else can enter
---@param on_accept fun(io: table, peer: {pid: integer, uid: integer}) called on the loop; io has
---the methods of farcall.core.fdbuf
---@return {close: fun()}? listener
---@return farcall.Error? err
---@nodiscard
function Runner:listen(path, on_accept)
  local op = "socket " .. path
  local channel, err = self:open(op, "listen", path)
  if not channel then
    return nil, err
  end
  local id = channel:id()
  self.listeners[id] = on_accept
  local done
  done, err = answer(self, channel, op)
  if not done then
    self.listeners[id] = nil
    return nil, err
  end
  return {
    close = function()
      self.listeners[id] = nil
      channel:close()
    end,
  }
end

function Runner:alive()
  return self.failure == nil
end

---Whether anything has come from it since its hello: then it hears.
---@return boolean
function Runner:has_answered()
  return self.mux:received() > 0
end

---Gives it up, because it is of no use.
---@param err farcall.Error why
function Runner:abandon(err)
  give_up(self, err)
end

---Why its link is made of execs that end, if it is.
---@return string?
function Runner:by_turns()
  return self.link.turns
end

---Ends it, and with it all that it started. Returns when the exec that it lives in has ended, or
---is not to be waited for any longer. Idempotent.
---@async
function Runner:close()
  if not self.failure and not self.closing then
    self.closing = true
    self:open("runner", "quit")
    self.link:last_words()
  end
  self.over.wait()
end

-- Notices a runner to which nothing gets through: it cannot be used here.
local function expect_answer(self)
  self.mux:ping()
  self.first = task.loop():timer(runner.FIRST_ANSWER * 1000, function()
    if not self:has_answered() then
      give_up(self, link.unheard())
    end
  end)
end

-- Notices a link on which nothing comes any more, and lets the runner notice.
local function watch(self)
  local heard, silent, period = self.mux:received(), 0, link.ASK_EVERY * 1000
  local timer
  timer = task.loop():timer(period, function()
    local now = self.mux:received()
    -- Each turn has its own end.
    if self.link.turns then
      return timer:again(period)
    end
    silent = now == heard and silent + 1 or 0
    heard = now
    if silent > PATIENCE then
      silent = 0
      self.link:lose(errors.new("lost", "runner", "it does not answer any more"))
    else
      self.mux:ping()
    end
    timer:again(period)
  end)
  return timer
end

---Brings a runner into an environment.
---@async
---@param env farcall.Env in which it is one exec, with a live standard input
---@param options farcall.runner_link.Options
---@return farcall.Runner?
---@return farcall.Error? err of kind unsupported when none can run there
---@nodiscard
function runner.start(env, options)
  local self = setmetatable({ listeners = {}, over = task.event() }, Runner)
  self.mux = mux.new(task.loop(), { side = "engine", window = WINDOW }, {
    opened = function(channel, words)
      accept(self, channel, words)
    end,
    output = function()
      if self.link then
        self.link:wake()
      end
    end,
  })
  local err
  self.link, err = link.open(env, options, self.mux, function(failure)
    give_up(self, failure)
  end)
  if not self.link then
    self.mux:close()
    return nil, err
  elseif self.failure then
    return nil, self.failure
  end
  self.form, self.machine, self.why = self.link.form, self.link.machine, self.link.why
  self.timer = watch(self)
  expect_answer(self)
  self.link:wake()
  return self
end

return runner
