-- SPDX-License-Identifier: MIT
-- The results of a batch: a file of JSON lines, of which each is one write, so that a kill at any
-- point leaves whole lines behind, and at most the beginning of one more. A job's line "started" is
-- in the file before its script can do anything: of a job without one it is certain that nothing
-- was executed. One batch at a time has the file.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local system = require("farcall.core.system")
local task = require("farcall.task")

local batch_results = {}

local FILE_MODE = 384 -- 0600
local MAX_LINE = 256 * 1024 * 1024

---What is known of a job from its last line.
---@alias farcall.BatchState
---| "unknown"     # started, and then the batch was killed
---| "succeeded"
---| "failed"      # it was executed, and its status is another
---| "interrupted" # it was executed, and ended by whoever ran the batch
---| "not_run"     # it could not be started: nothing was executed
---| "refused"     # by a policy or because its line makes no sense: nothing was executed

-- Kept for each job as one short text, letter and hash: there may be very many.
local LETTERS = {
  unknown = "u", succeeded = "s", failed = "f", interrupted = "i", not_run = "n", refused = "r",
}
local STATES = {}
for state, letter in pairs(LETTERS) do
  STATES[letter] = state
end

---@class farcall.BatchResults
---@field path string
---@field count integer ids that were there already
---@field private appender farcall.Appender
---@field private size integer bytes of whole lines
---@field private lock userdata
---@field private made boolean the file was not there before
---@field private earlier table<string, string> id -> letter and hash
local BatchResults = {}
BatchResults.__index = BatchResults

---The state that a line tells.
---@param line table
---@return farcall.BatchState?
function batch_results.state_of(line)
  if line.state == "started" then
    return "unknown"
  elseif line.state == "done" then
    return line.status == "success" and "succeeded"
      or line.status == "interrupted" and "interrupted" or "failed"
  end
  return (line.state == "not_run" or line.state == "refused") and line.state or nil
end

local function note(self, line)
  local state = batch_results.state_of(line)
  if not state or type(line.id) ~= "string" then
    return state ~= nil
  end
  self.count = self.count + (self.earlier[line.id] and 0 or 1)
  self.earlier[line.id] = LETTERS[state] .. (type(line.job) == "string" and line.job or "")
  return true
end

-- Goes through the lines that are there. The beginning of one more, which a kill has left, goes.
local function read(self)
  local file, message = io.open(self.path, "rb")
  if not file then
    return nil, errors.wrap("read " .. self.path, message)
  end
  local size, number = 0, 0
  local foreign = false
  for line in file:lines() do
    local ended = file:seek() - size > #line
    number = number + 1
    if not ended then
      local ok, problem, code = fs.truncate(self.path, size)
      if not ok then
        file:close()
        return nil, errors.wrap("mend " .. self.path, problem, code)
      end
      break
    end
    size = size + #line + 1
    local value = json.decode(line, { max_bytes = MAX_LINE })
    foreign = type(value) ~= "table" or not note(self, value)
    if foreign then
      break
    end
  end
  file:close()
  self.size = size
  if foreign then
    return nil, errors.new("usage", ("%s:%d"):format(self.path, number),
      "not a line of a batch's results", { hint = "name another file for them with --results" })
  end
  return true
end

---Opens the file, new or as an earlier batch has left it.
---@param path string
---@return farcall.BatchResults?
---@return farcall.Error? err of kind unavailable while another batch has it
---@nodiscard
function batch_results.open(path)
  local self = setmetatable({ path = path, count = 0, earlier = {} }, BatchResults)
  local op = "results " .. path
  local message, code
  local ok, err
  self.made = not fs.stat(path, true)
  self.lock, message, code = fs.lock(path, FILE_MODE)
  if self.lock then
    self.appender, message, code = fs.appender(path, FILE_MODE)
  end
  if self.appender then
    ok, err = read(self)
  elseif code == "EAGAIN" then
    err = errors.new("unavailable", op, "another batch writes to it")
  elseif code == "ELOOP" then
    err = errors.new("usage", op, "is a symbolic link", { hint = "name the file itself" })
  else
    err = errors.wrap(op, message, code)
  end
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

---What an earlier batch has come to with a job, and the hash of the job as it was then.
---@param id string
---@return farcall.BatchState?
---@return string? hash
function BatchResults:earlier_of(id)
  local text = self.earlier[id]
  if not text then
    return nil
  end
  return STATES[text:sub(1, 1)], text:sub(2)
end

---Lets go of what is known about a job of an earlier batch.
function BatchResults:forget(id)
  self.earlier[id] = nil
end

-- What people look for stands first.
local FIRST = { "id", "state", "status", "time" }

local function encode(line)
  local rest, parts = {}, {}
  for field, value in pairs(line) do
    rest[field] = value
  end
  for _, field in ipairs(FIRST) do
    if line[field] ~= nil then
      parts[#parts + 1] = ("%q:%s"):format(field, json.encode(line[field]))
      rest[field] = nil
    end
  end
  local text, problem = json.encode(rest, { max_bytes = MAX_LINE })
  if not text then
    return nil, problem
  end
  return "{" .. table.concat(parts, ",") .. (next(rest) and "," or "") .. text:sub(2)
end

---Appends a line. When that has returned true, a kill of this process cannot undo it.
---@param line table
---@return true?
---@return farcall.Error? err
function BatchResults:append(line)
  line.time = system.time()
  local text, problem = encode(line)
  -- A result that cannot be written down is a result all the same.
  text = text or assert(encode({
    id = line.id, state = line.state, status = line.status, time = line.time, job = line.job,
    run_id = line.run_id, unreadable = problem,
  }))
  local ok, message, code = self.appender:write(text .. "\n")
  if ok then
    self.size = self.size + #text + 1
    return true
  end
  -- The beginning of a line is not to stay: what comes next would be one line with it.
  if code == "PARTIAL" then
    message = message .. ": the disk may be full"
    if not fs.truncate(self.path, self.size) then
      self.appender:close()
    end
  end
  return nil, errors.wrap("results " .. self.path, message, code)
end

---Waits until everything that was appended is on the disk, which survives a loss of power.
---@async
---@return true?
---@return farcall.Error? err
function BatchResults:sync()
  local ok, message, code = task.await(function(resume)
    local work = task.work()
    local id, problem, name = work:fdatasync(self.appender:fileno(), resume)
    if not id then
      resume(nil, problem, name)
      return nil
    end
    return function()
      work:cancel(id)
    end
  end)
  if not ok then
    return nil, errors.wrap("sync " .. self.path, message, code)
  end
  return true
end

---A file in which nothing was written goes, if it is one of this batch's own: what was there before
---may be a device. Idempotent.
function BatchResults:close()
  local stat = self.made and self.lock and fs.stat(self.path, true)
  if stat and stat.size == 0 then
    fs.unlink(self.path)
  end
  if self.appender then
    self.appender:close()
  end
  if self.lock then
    self.lock:close()
    self.lock = nil
  end
end

return batch_results
