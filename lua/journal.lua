-- SPDX-License-Identifier: MIT
-- What a run leaves behind: STATE_DIR/runs/ID/ with job.json, events.jsonl (one JSON object a line)
-- and, at its end, result.json. Written so that a kill at any point leaves it readable: an event is
-- one write, the two documents are replaced as a whole. Events go to the kernel at once, which
-- survives the end of this process; the disk follows at the end of the run, or at each event with
-- sync = "call". Reading needs no task, and neither do opening and appending unless sync = "call".

local errors = require("farcall.errors")
local hex = require("farcall.hex")
local identity = require("farcall.identity")
local runs = require("farcall.runs")
local task = require("farcall.task")
local atomicfile = require("farcall.core.atomicfile")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local system = require("farcall.core.system")
local text = require("farcall.core.text")

local journal = {}

local JOB, EVENTS, RESULT = runs.JOB, runs.EVENTS, runs.RESULT
local DIR_MODE, FILE_MODE = 0x1C0, 0x180 -- 0700, 0600

---@class farcall.Journal
---@field dir string the run's directory
---@field run_id string
---@field private events farcall.Appender
---@field private sync "end"|"call"
---@field private torn? boolean the last write put in a part of a line
local Journal = {}
Journal.__index = Journal

---A new run id: ids sort by the time of their making.
---@param now? number unix seconds
---@param random? string 5 bytes
---@return string
function journal.new_id(now, random)
  now = now or system.time()
  local ms = math.floor(now % 1 * 1000)
  local tail = hex.encode(random or system.random(5))
  return os.date("!%Y%m%d-%H%M%S", math.floor(now)) .. ("-%03d-%s"):format(ms, tail)
end

-- Strict JSON takes no broken UTF-8; what cannot be written as it is, is written as it can be.
local function mend(value, depth)
  local kind = type(value)
  if kind == "string" then
    return (text.clean(value, { escapes = false, utf8 = true, secrets = false }))
  elseif kind == "number" then
    return (value ~= value or value == math.huge or value == -math.huge) and tostring(value)
      or value
  elseif kind == "table" and depth < 16 then
    local mended = {}
    for key, item in pairs(value) do
      mended[type(key) == "string" and mend(key, depth) or key] = mend(item, depth + 1)
    end
    return json.is_array(value) and json.array(mended) or mended
  elseif kind == "boolean" or value == json.null then
    return value
  end
  return tostring(value)
end

local function encode(value)
  local line, message = json.encode(value)
  if not line then
    line = json.encode(mend(value, 0))
      or json.encode({ time = value.time, event = value.event, unreadable = message })
  end
  return line
end

-- Starts fn(done) and waits for done(ok, message, code).
---@async
local function wait_for(op, fn)
  local ok, message, code = task.await(fn)
  if not ok then
    return nil, errors.wrap(op, message, code)
  end
  return true
end

---@async
local function to_disk(path, fd)
  return wait_for("sync " .. path, function(resume)
    local work = task.work()
    local id, message, code = work:fdatasync(fd, resume)
    if not id then
      resume(nil, message, code)
      return nil
    end
    return function()
      work:cancel(id)
    end
  end)
end

---@async
local function file_to_disk(path)
  local file, message, code = fs.appender(path, FILE_MODE)
  if not file then
    return nil, errors.wrap("sync " .. path, message, code)
  end
  local ok, err = to_disk(path, file:fileno())
  file:close()
  return ok, err
end

-- This process, as others may look whether it is still there. Asked for once, and by a child that
-- was forked off once more.
local own = {}

local function this_process()
  local pid = system.pid()
  if own.pid ~= pid then
    own = { host = system.hostname(), pid = pid, start = identity.start_of(pid) }
  end
  return own
end

---Begins the journal of a run.
---@param options {state_dir: string, run_id: string, job: table, sync?: "end"|"call"}
---@return farcall.Journal?
---@return farcall.Error? err
---@nodiscard
function journal.open(options)
  if not runs.is_id(options.run_id) then
    error("journal.open: bad run id", 2)
  end
  local self = setmetatable({
    run_id = options.run_id, dir = runs.dir(options.state_dir) .. "/" .. options.run_id,
    sync = options.sync or "end",
  }, Journal)
  local op = "journal " .. self.dir
  local job = { started = system.time(), engine = this_process() }
  for key, value in pairs(options.job or {}) do
    job[key] = value
  end
  local ok, message, code = fs.mkdir(runs.dir(options.state_dir), DIR_MODE, true)
  if ok then
    ok, message, code = fs.mkdir(self.dir, DIR_MODE)
  end
  if ok then
    ok, message, code = atomicfile.write(self.dir .. "/" .. JOB, encode(job) .. "\n",
      { mode = FILE_MODE, sync = false })
  end
  if ok then
    ok, message, code = fs.appender(self.dir .. "/" .. EVENTS, FILE_MODE)
  end
  if not ok then
    return nil, errors.wrap(op, message, code)
  end
  self.events = ok
  if self.sync == "call" then
    local err
    ok, err = file_to_disk(self.dir .. "/" .. JOB)
    if not ok then
      self.events:close()
      return nil, err
    end
  end
  return self
end

---Writes an event: one line, one write. With sync = "call" it also waits until it is on the disk.
---@param name string
---@param fields? table
---@return true?
---@return farcall.Error? err
function Journal:event(name, fields)
  if not self.events then
    return nil, errors.new("lost", "journal " .. self.dir, "already closed", { code = "CLOSED" })
  end
  local event = {}
  for key, value in pairs(fields or {}) do
    event[key] = value
  end
  event.time, event.event = system.time(), name
  -- After a write that put in a part only, the next event begins on a line of its own.
  local line = (self.torn and "\n" or "") .. encode(event) .. "\n"
  local ok, message, code = self.events:write(line)
  if not ok then
    self.torn = self.torn or code == "PARTIAL"
    return nil, errors.wrap("journal " .. self.dir .. "/" .. EVENTS, message, code)
  end
  self.torn = false
  if self.sync == "call" then
    return to_disk(self.dir .. "/" .. EVENTS, self.events:fileno())
  end
  return true
end

---Writes the run's result as a whole.
---@async
---@param result table
---@return true?
---@return farcall.Error? err
function Journal:result(result)
  local path = self.dir .. "/" .. RESULT
  return wait_for("journal " .. path, function(resume)
    local work = task.work()
    local id, message, code = work:write_file(path, encode(result) .. "\n",
      { mode = FILE_MODE, sync = true }, resume)
    if not id then
      resume(nil, message, code)
    end
  end)
end

---Brings job and events to the disk and ends. Idempotent.
---@async
---@return true?
---@return farcall.Error? err
function Journal:close()
  if not self.events then
    return true
  end
  local events = self.events
  self.events = nil
  return task.shield(function()
    local ok, err = to_disk(self.dir .. "/" .. EVENTS, events:fileno())
    events:close()
    if ok and self.sync ~= "call" then
      ok, err = file_to_disk(self.dir .. "/" .. JOB)
    end
    return ok, err
  end)
end

-- Reading is next door, where the layout is.
journal.read = runs.read
journal.list = runs.list

return journal
