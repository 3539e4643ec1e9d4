-- SPDX-License-Identifier: MIT
-- Shared by the specs. After each test the process must hold the same descriptors, have no new
-- children and stand in the same directory as before it (spec/support/leaks.lua).

local fs = require("farcall.core.fs")
local system = require("farcall.core.system")

local helper = {}

---Open descriptors of this process, as a map from number to what they are.
function helper.open_fds()
  local open = {}
  for _, name in ipairs(assert(fs.list("/proc/self/fd"))) do
    open[name] = fs.readlink("/proc/self/fd/" .. name)
  end
  return open
end

---Pids of this process' children, zombies included.
function helper.children(pid)
  local children = {}
  for _, thread in ipairs(fs.list(("/proc/%s/task"):format(pid or "self")) or {}) do
    local file = io.open(("/proc/%s/task/%s/children"):format(pid or "self", thread))
    if file then
      for child in file:read("*a"):gmatch("%d+") do
        children[#children + 1] = tonumber(child)
      end
      file:close()
    end
  end
  return children
end

---Runs fn as a task; for the body of an `it` that waits.
function helper.task(fn)
  local task = require("farcall.task")
  return function()
    task.run(fn)
  end
end

---Polls until check() is true, for at most so many seconds (30); returns its last value.
function helper.eventually(check, seconds)
  local task = require("farcall.task")
  local deadline = task.now() + (seconds or 30)
  local value = check()
  while not value and task.now() < deadline do
    task.sleep(0.01)
    value = check()
  end
  return value
end

---What becomes of a niceness that is raised by so much: the specs may have been started with one.
---@return integer
function helper.niceness(more)
  local pipe = io.popen("nice")
  local own = pipe:read("*n")
  pipe:close()
  return math.min(19, own + more)
end

---A fresh private directory, removed after the test.
local scratch = {}
function helper.scratch()
  local dir = assert(fs.mkdtemp("/tmp/farcall-spec-"))
  scratch[#scratch + 1] = dir
  return dir
end

---Writes a file and returns its path.
function helper.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
  return path
end

function helper.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  return text
end

local function leaks(before)
  local leaked = {}
  for fd, target in pairs(helper.open_fds()) do
    if before.fds[fd] ~= target and not target:find("^/proc/%d+/fd$") then
      leaked[#leaked + 1] = "fd " .. fd .. " -> " .. target
    end
  end
  for _, pid in ipairs(helper.children()) do
    leaked[#leaked + 1] = not before.children[pid] and "child " .. pid or nil
  end
  if system.cwd() ~= before.cwd then
    leaked[#leaked + 1] = "working directory " .. system.cwd()
  end
  return leaked
end

local before

---Before each test: what must be the same after it.
function helper.note_state()
  collectgarbage()
  collectgarbage()
  before = { fds = helper.open_fds(), cwd = system.cwd(), children = {} }
  for _, pid in ipairs(helper.children()) do
    before.children[pid] = true -- some other test's, which was told then
  end
end

---After each test: removes its scratch directories.
---@return string|nil what the test left behind: descriptors, children, another working directory
function helper.left_behind()
  for _, dir in ipairs(scratch) do
    fs.rmtree(dir)
  end
  scratch = {}
  collectgarbage()
  collectgarbage()
  local leaked = leaks(before)
  return leaked[1] and table.concat(leaked, ", ")
end

return helper
