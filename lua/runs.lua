-- SPDX-License-Identifier: MIT
-- The journals of past and present runs, read in whatever state a kill left them, and removed when
-- they are old; journal.lua writes them. Each is a directory STATE_DIR/runs/ID.

local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local identity = require("farcall.identity")
local json = require("farcall.core.json")
local system = require("farcall.core.system")

local runs = { JOB = "job.json", EVENTS = "events.jsonl", RESULT = "result.json" }

local JOB, EVENTS, RESULT = runs.JOB, runs.EVENTS, runs.RESULT
local READ_MAX = 256 * 1024 * 1024

---Whether id can name a run; anything else must not become a part of a path.
---@return boolean
function runs.is_id(id)
  return type(id) == "string" and #id <= 64 and id:find("^[0-9a-z][0-9a-z-]*$") ~= nil
end

---Where all runs are.
---@param state_dir string
---@return string
function runs.dir(state_dir)
  return state_dir .. "/runs"
end

local function read_json(path)
  local bytes, message, code = fs.read(path, READ_MAX)
  if not bytes then
    return nil, message, code
  end
  return json.decode(bytes, { max_bytes = READ_MAX })
end

-- A line that was cut off by a kill or a full disk is told as such, not dropped.
local function read_events(path)
  local bytes, message, code = fs.read(path, READ_MAX)
  if not bytes then
    return nil, message, code
  end
  local events = {}
  for line, ended in bytes:gmatch("([^\n]*)(\n?)") do
    if line ~= "" then
      local event = ended == "\n" and json.decode(line, { max_bytes = READ_MAX })
      events[#events + 1] = type(event) == "table" and event or { event = "torn", text = line }
    end
  end
  return events
end

---@class farcall.JournalRecord
---@field job? table absent if the run was killed before it was written
---@field events table[] a line that is not whole appears as {event = "torn", text = ...}
---@field result? table absent if the run has not ended, or was killed

---Reads a run's journal, whatever state it was left in.
---@param state_dir string
---@param run_id string
---@return farcall.JournalRecord?
---@return farcall.Error? err
---@nodiscard
function runs.read(state_dir, run_id)
  if not runs.is_id(run_id) then
    return nil, errors.new("usage", "run " .. tostring(run_id), "not a run id")
  end
  local dir = runs.dir(state_dir) .. "/" .. run_id
  local _, message, code = fs.stat(dir)
  if message then
    return nil, errors.wrap("run " .. run_id, code == "ENOENT" and "no such run" or message, code)
  end
  local record = {
    job = (read_json(dir .. "/" .. JOB)), result = (read_json(dir .. "/" .. RESULT)),
  }
  local events
  events, message, code = read_events(dir .. "/" .. EVENTS)
  if not events and code ~= "ENOENT" then
    return nil, errors.wrap("run " .. run_id, message, code)
  end
  record.events = events or {}
  return record
end

-- Whether the engine that began the run is still there, as far as can be seen from here.
local function is_running(job)
  local engine = type(job) == "table" and job.engine
  return type(engine) == "table" and engine.host == system.hostname()
    and type(engine.pid) == "number" and engine.start ~= nil
    and identity.start_of(engine.pid) == engine.start
end

---@class farcall.RunSummary
---@field run_id string
---@field started number unix seconds
---@field status string the result's, "running", or "unfinished": its engine was killed
---@field job? table
---@field result? table

---All runs, oldest first.
---@param state_dir string
---@return farcall.RunSummary[]?
---@return farcall.Error? err
---@nodiscard
function runs.list(state_dir)
  local dir = runs.dir(state_dir)
  local names, message, code = fs.list(dir)
  if not names then
    if code == "ENOENT" then
      return {}
    end
    return nil, errors.wrap("list runs", message, code)
  end
  table.sort(names)
  local found = {}
  for _, name in ipairs(names) do
    local stat = runs.is_id(name) and fs.stat(dir .. "/" .. name)
    if stat and stat.type == "directory" then
      local job = read_json(dir .. "/" .. name .. "/" .. JOB)
      local result = read_json(dir .. "/" .. name .. "/" .. RESULT)
      found[#found + 1] = {
        run_id = name, job = job, result = result,
        started = type(job) == "table" and tonumber(job.started) or stat.mtime,
        status = type(result) == "table" and result.status
          or is_running(job) and "running" or "unfinished",
      }
    end
  end
  return found
end

-- The time of this file, beside the directory, is that of the latest pruning.
local PRUNED = "/runs.pruned"
local DAY = 86400
-- Directories that are removed in one go: whoever does it has a script to run.
local AT_ONCE = 200

---Removes the journals of runs that ended so many days ago, once a day.
---@param state_dir string
---@param days? integer 0 or absent: none is ever removed
---@param now? number unix seconds
---@return integer count of those removed
function runs.prune(state_dir, days, now)
  local dir = runs.dir(state_dir)
  now = now or system.time()
  local last = fs.stat(state_dir .. PRUNED)
  if (days or 0) == 0 or last and now - last.mtime < DAY then
    return 0
  end
  local count = 0
  for _, name in ipairs(fs.list(dir) or {}) do
    local path = dir .. "/" .. name
    local stat = runs.is_id(name) and fs.stat(path, true)
    if stat and stat.type == "directory" and now - stat.mtime > days * DAY
      and not is_running(read_json(path .. "/" .. JOB))
    then
      -- The next run goes on.
      if count == AT_ONCE then
        return count
      end
      count = count + (fs.rmtree(path) and 1 or 0)
    end
  end
  atomicfile.write(state_dir .. PRUNED, "", { mode = 384, sync = false })
  return count
end

return runs
