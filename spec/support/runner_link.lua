-- SPDX-License-Identifier: MIT
-- Drives a runner through its standard input and output, as the engine does.
local helper = require("spec.helper")
local mux = require("farcall.core.mux")
local proc = require("farcall.core.proc")
local system = require("farcall.core.system")
local task = require("farcall.task")

local runner_link = {}

local Link = {}
Link.__index = Link

local function hex(count)
  return (system.random(count):gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end
runner_link.hex = hex

-- A process with the runner's program, and its first line, without the mark.
local function say(link, words, first)
  local mark = hex(16)
  local argv = { unpack(link.argv) }
  for _, word in ipairs({ words[1], mark, unpack(words, 2) }) do
    argv[#argv + 1] = word
  end
  local child = assert(proc.spawn(task.loop(), {
    argv = argv, env = link.env, stdin = "pipe", stdout = "pipe", stderr = "inherit",
    cwd = link.cwd,
  }))
  local ended = {}
  child:on_exit(function(how, number)
    ended.how, ended.number = how, number
  end)
  child:stdin():write(first)
  local line
  assert(helper.eventually(function()
    local text, _, code = child:stdout():readline(1000)
    if text and text:sub(1, 33) == mark .. " " then
      line = text:sub(34)
    end
    return line or (not text and code ~= "EAGAIN")
  end, 30), "the runner says nothing")
  return child, ended, line
end

function Link:feed_in()
  while self.child do
    local bytes, _, code = self.child:stdout():read(262144)
    if bytes then
      local fed, why = self.mux:feed(bytes)
      if not fed then
        self.broken = why
        return self:cut()
      end
    else
      if code ~= "EAGAIN" then
        self.lost = true
        self.child:stdout():on_readable(nil)
      end
      return
    end
  end
end

function Link:put_out()
  local stdin = self.child and self.child:stdin()
  while stdin and stdin:pending() == 0 do
    local bytes = self.mux:output()
    if not bytes then
      return
    end
    stdin:write(bytes)
  end
  if stdin then
    stdin:on_drained(function()
      self:put_out()
    end)
  end
end

local function pump(self)
  self.lost = false
  self.child:stdout():on_readable(function()
    self:feed_in()
  end)
  self:feed_in()
  self:put_out()
end

-- Starts a runner. options: grace (ms) and dir, lease (ms), env, cwd
function runner_link.start(argv, options)
  options = options or {}
  local self = setmetatable({ argv = argv, token = hex(32), env = options.env, cwd = options.cwd,
    dir = options.dir, accepted = {}, others = {} }, Link)
  self.env = self.env or { "PATH=/usr/local/bin:/usr/bin:/bin" }
  self.mux = assert(mux.new(task.loop(), { side = "engine" }, {
    opened = function(channel, request)
      self.accepted[#self.accepted + 1] = { channel = channel, request = request,
        sink = runner_link.sink(channel) }
    end,
    output = function()
      self:put_out()
    end,
  }))
  local words = { "serve", ("%d%s"):format(options.grace or 0,
    options.lease and ":" .. options.lease or ""), options.dir }
  self.child, self.ended, self.hello = say(self, words, self.token .. "\n")
  self.runner, self.runner_ended = self.child, self.ended
  assert(self.hello and self.hello:find("^hello "), tostring(self.hello))
  pump(self)
  return self
end

-- Lets go of the link without a word.
function Link:cut()
  local child = self.child
  if child then
    self.child = nil
    self.mux:suspend()
    child:stdin():close()
    child:stdout():close()
  end
end

-- A new link: true, or what was said instead.
function Link:attach(token, received)
  local child, ended, line = say(self, { "attach", self.dir },
    ("%s %.0f\n"):format(token or self.token, received or self.mux:received()))
  self.others[#self.others + 1] = { child = child, ended = ended }
  local theirs = line and line:match("^resumed (%d+)$")
  if not theirs then
    return line
  end
  self.child = child
  assert(self.mux:resume(tonumber(theirs)))
  pump(self)
  return true
end

function Link:open(...)
  return assert(self.mux:open(table.concat({ ... }, "\0") .. "\0"))
end

-- Gathers what comes on a channel. ended: the code with which it ended.
function runner_link.sink(channel)
  local sink = { parts = {}, size = 0, channel = channel }
  channel:on_readable(function()
    while true do
      local bytes, _, code = channel:read(65536)
      if not bytes then
        if code ~= "EAGAIN" then
          sink.ended = code
          channel:on_readable(nil)
        end
        return
      end
      sink.parts[#sink.parts + 1] = bytes
      sink.size = sink.size + #bytes
    end
  end)
  function sink.text()
    sink.parts = { table.concat(sink.parts) }
    return sink.parts[1]
  end
  return sink
end

-- Asks for something and waits for the end of the answer.
function Link:ask(...)
  local sink = runner_link.sink(self:open(...))
  assert(helper.eventually(function()
    return sink.ended
  end, 30), "no answer")
  sink.channel:close()
  return sink.text()
end

-- Asks and waits for a line; the channel stays open.
function Link:hold(...)
  local sink = runner_link.sink(self:open(...))
  assert(helper.eventually(function()
    return sink.text():find("\n") or sink.ended
  end, 30), "no answer")
  return sink.text(), sink.channel
end

local Run = {}
Run.__index = Run

-- Starts a program: a command of the shell, or words. options: stdin (true: stays open), options
-- (of the supervisor), env (a list)
function Link:exec(command, options)
  options = options or {}
  local run = setmetatable({ mark = "mark" .. hex(8) }, Run)
  local words = type(command) == "table" and command or { "/bin/sh", "-c", command }
  local bytes = table.concat(words, "\0") .. "\0"
  local environ = "MARK=" .. run.mark .. "\0"
  for _, item in ipairs(options.env or {}) do
    environ = environ .. item .. "\0"
  end
  local out, err = self:open("pipe"), self:open("pipe")
  local request = { "exec", ("%d"):format(out:id()), ("%d"):format(err:id()) }
  for _, word in ipairs(options.options or {}) do
    request[#request + 1] = word
  end
  request[#request + 1] = ("--environ\0%d\0--words\0%d"):format(#environ, #bytes)
  run.control = runner_link.sink(self:open(unpack(request)))
  err:finish()
  run.control.channel:write(environ .. bytes)
  if options.stdin ~= true then
    if options.stdin then
      out:write(options.stdin)
    end
    out:finish()
  end
  if options.unread then
    run.out, run.err = { channel = out, ended = true }, { channel = err, ended = true }
  else
    run.out, run.err = runner_link.sink(out), runner_link.sink(err)
  end
  run.stdin = out
  return run
end

-- Waits for the end of everything; what the supervisor has said, without level and pid.
function Run:finish(seconds)
  assert(helper.eventually(function()
    return self.control.ended and self.out.ended and self.err.ended
  end, seconds or 60), "it does not end: " .. self.control.text())
  self.control.channel:close()
  self.out.channel:close()
  self.err.channel:close()
  local text = self.control.text():gsub("^level %l+\n", ""):gsub("^started %d+\n", "")
  return (text:gsub("\n", ";"))
end

-- Lets the runner end with its engine, and waits for that.
function Link:close()
  if self.child and not self.lost then
    self:open("quit")
  end
  assert(helper.eventually(function()
    return self.runner_ended.how
  end, 30), "the runner does not end")
  self:release()
end

function Link:release()
  self:cut()
  self.runner:close()
  for _, other in ipairs(self.others) do
    assert(helper.eventually(function()
      return other.ended.how
    end), "an attached exec does not end")
    other.child:close()
  end
  self.mux:close()
end

return runner_link
