-- SPDX-License-Identifier: MIT
-- Runs the real program with a home of its own, as somebody at a terminal would.

local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local proc = require("farcall.core.proc")
local task = require("farcall.task")

local cli = {}

-- More than any of these needs on a busy machine.
local PATIENCE = 60

---@class spec.Home
---@field dir string fresh, removed after the test; the working directory is dir/work
local Home = {}
Home.__index = Home

---The program's path.
function cli.program()
  return assert(fs.realpath(build.dir)) .. "/farcall"
end

---@return spec.Home
function cli.home()
  local dir = assert(fs.realpath(helper.scratch()))
  for _, name in ipairs({ "config", "state", "runtime", "work" }) do
    assert(fs.mkdir(dir .. "/" .. name, 448))
  end
  return setmetatable({ dir = dir, work = dir .. "/work" }, Home)
end

function Home:environment(extra)
  local values = {
    PATH = "/usr/bin:/bin", LANG = "C.UTF-8", HOME = self.dir,
    XDG_CONFIG_HOME = self.dir .. "/config",
    XDG_STATE_HOME = self.dir .. "/state", XDG_RUNTIME_DIR = self.dir .. "/runtime",
  }
  for name, value in pairs(extra or {}) do
    values[name] = value
  end
  local list = {}
  for name, value in pairs(values) do
    list[#list + 1] = name .. "=" .. value
  end
  return list
end

---Writes a file below the home, directories too.
function Home:write(path, text)
  path = self.dir .. "/" .. path
  assert(fs.mkdir(path:match("^(.*)/"), 448, true))
  return helper.write(path, text)
end

local function read_all(stream, parts, finished)
  stream:on_readable(function()
    while true do
      local bytes, _, code = stream:read(65536)
      if bytes then
        parts[#parts + 1] = bytes
      elseif code == "EAGAIN" then
        return
      else
        stream:on_readable(nil)
        return finished()
      end
    end
  end)
end

---A program that runs: out and err fill while it does.
---@async
function Home:start(argv, options)
  options = options or {}
  local words = { options.program or cli.program() }
  for _, word in ipairs(argv) do
    words[#words + 1] = word
  end
  local child = assert(proc.spawn(task.loop(), {
    argv = words, cwd = options.cwd or self.work, env = self:environment(options.env),
    stdin = options.stdin and "pipe" or "null", stdout = "pipe", stderr = "pipe",
    fds = options.fds,
  }))
  local running = { child = child, out = {}, err = {}, ended = task.event() }
  local open = 3
  local function finished(how, number)
    if how then
      running.code = how == "exit" and number or 128 + number
    end
    open = open - 1
    if open == 0 then
      running.ended.set()
    end
  end
  if options.unread then
    open = open - 1
  else
    read_all(child:stdout(), running.out, finished)
  end
  read_all(child:stderr(), running.err, finished)
  child:on_exit(finished)
  if options.stdin then
    child:stdin():write(options.stdin)
    child:stdin():finish()
  end
  return running
end

---@async
---@return {code: integer, out: string, err: string}
function cli.finish(running)
  local _, failure = task.timeout(PATIENCE, running.ended.wait)
  if failure then
    running.child:kill("KILL")
    running.ended.wait()
  end
  running.child:close()
  assert(not failure, "the program did not end")
  return {
    code = running.code, out = table.concat(running.out), err = table.concat(running.err),
  }
end

---Runs `farcall ARGV...` to its end. options: stdin (bytes), env, cwd.
---@param argv string[]
---@return {code: integer, out: string, err: string}
function Home:run(argv, options)
  return task.run(function()
    return cli.finish(self:start(argv, options))
  end)
end

return cli
