-- SPDX-License-Identifier: MIT
-- The jobs of a batch: a file of JSON lines, read as they are needed. A regular file can be gone
-- through before anything is run; what comes through a pipe is looked at when its turn has come.

local config_words = require("farcall.config_words")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local places = require("farcall.places")
local proc = require("farcall.core.proc")
local sha256 = require("farcall.core.sha256")
local task = require("farcall.task")

local batch_jobs = {}

local MAX_SCRIPT = 16 * 1024 * 1024
-- A script as a JSON text, and what else there is to say.
local MAX_LINE = 2 * MAX_SCRIPT
local MAX_ID = 200
-- Of a job's SHA-256: enough to tell that a job is not the one that it was.
local HASH_DIGITS = 32

---@class farcall.BatchJob: farcall.Job
---@field id string the line's, else its number
---@field line integer
---@field hash string of everything that the line says but the id, and of the script
---@field labels? table<string, string|number|boolean> for the policies that place it

local function is_object(value)
  return type(value) == "table" and not json.is_array(value)
end

-- A check of a field returns what is wrong with its value, if anything.

local function text(value)
  return (type(value) ~= "string" or value == "") and "must be a text" or nil
end

local function texts(value)
  if not json.is_array(value) then
    return "must be a list of texts"
  end
  for _, item in ipairs(value) do
    if type(item) ~= "string" then
      return "must be a list of texts"
    end
  end
  return nil
end

local function map_of(allowed, what)
  return function(value)
    if not is_object(value) then
      return "must be an object of " .. what
    end
    for _, item in pairs(value) do
      if not allowed[type(item)] then
        return "must be an object of " .. what
      end
    end
    return nil
  end
end

local function limit(name)
  return function(value)
    return config_words.limit_problem(name, value)
  end
end

local function id(value)
  if type(value) == "number" and value % 1 == 0 then
    return nil
  end
  return (type(value) ~= "string" or value == "" or #value > MAX_ID or value:find("%c"))
    and ("must be a text of at most %d bytes without control characters"):format(MAX_ID) or nil
end

---The fields of a job, each with what checks it.
local FIELDS = {
  id = id, script = text, file = text, filename = text, language = text, args = texts,
  backend = text, transport = text, allow = texts,
  timeout = limit("timeout"), max_calls = limit("max_calls"),
  env = map_of({ string = true }, "texts"),
  labels = map_of({ string = true, number = true, boolean = true }, "texts, numbers and booleans"),
  options = function(value)
    return not is_object(value) and "must be an object" or nil
  end,
}

local function shape_problem(fields)
  if not is_object(fields) then
    return "a job is an object, {\"script\": ...}"
  end
  for _, name in ipairs(config_words.sorted_keys(fields)) do
    if not FIELDS[name] then
      return config_words.unknown("field of a job", name, config_words.sorted_keys(FIELDS))
    end
    local problem = FIELDS[name](fields[name])
    if problem then
      -- What a limit says of itself names it already.
      return problem:find(name, 1, true) == 1 and problem or name .. " " .. problem
    end
  end
  if (fields.script == nil) == (fields.file == nil) then
    return "one of script and file is needed, and not both"
  end
  return nil
end

-- One text for one value, in whatever order its keys came.
local function canonical(value, parts)
  if type(value) ~= "table" then
    parts[#parts + 1] = json.encode({ value })
  elseif json.is_array(value) then
    parts[#parts + 1] = "["
    for _, item in ipairs(value) do
      canonical(item, parts)
    end
    parts[#parts + 1] = "]"
  else
    parts[#parts + 1] = "{"
    for _, key in ipairs(config_words.sorted_keys(value)) do
      parts[#parts + 1] = json.encode({ key })
      canonical(value[key], parts)
    end
    parts[#parts + 1] = "}"
  end
end

local function hash_of(fields, script)
  local counted = { script = script }
  for name, value in pairs(fields) do
    if name ~= "id" then
      counted[name] = value
    end
  end
  local parts = {}
  canonical(counted, parts)
  return sha256.hex(table.concat(parts)):sub(1, HASH_DIGITS)
end

-- A script that jobs share is read once in a row.
local function read_script(self, path)
  path = places.beside(self.dir, path)
  if self.last_path ~= path then
    local script, message = fs.read(path, MAX_SCRIPT)
    if not script then
      return nil, message
    end
    self.last_path, self.last_script = path, script
  end
  return self.last_script
end

---@class farcall.BatchJobs
---@field path string
---@field name string as it is told
---@field whole boolean a regular file, which can be gone through more than once
---@field private line integer that was read last
---@field private seen table<string, true> ids
local BatchJobs = {}
BatchJobs.__index = BatchJobs

local function line_error(self, message, hint)
  return errors.new("usage", ("%s:%d"):format(self.name, self.line), message, { hint = hint })
end

-- The job that a line describes.
---@return farcall.BatchJob?
---@return farcall.Error? err
local function parse(self, line)
  local fields, message = json.decode(line, { max_bytes = MAX_LINE })
  if fields == nil then
    return nil, line_error(self, "not JSON: " .. message)
  end
  local problem = shape_problem(fields)
  if problem then
    return nil, line_error(self, problem)
  end
  local job = { id = tostring(fields.id or self.line), line = self.line }
  for name, value in pairs(fields) do
    if name ~= "id" and name ~= "file" then
      job[name] = value
    end
  end
  if fields.file then
    job.script, message = read_script(self, fields.file)
    if not job.script then
      return nil, line_error(self, message)
    end
    job.filename = fields.filename or fields.file
  end
  if self.seen[job.id] then
    return nil, line_error(self, ("there is a job with the id %q already"):format(job.id),
      not fields.id and "without an id, a job's is its line's number" or nil)
  end
  self.seen[job.id] = true
  job.hash = hash_of(fields, job.script)
  return job
end

-- The lines of a regular file: reading them does not wait.
local function file_lines(path)
  local file, message = io.open(path, "rb")
  if not file then
    return nil, message
  end
  return {
    next = function()
      return file:read("*l")
    end,
    close = function()
      file:close()
    end,
  }
end

-- The lines of what may have to be waited for: they come through cat, which can be waited for
-- without changing a descriptor that others share.
local function piped_lines(path)
  local child, message = proc.spawn(task.loop(), {
    argv = path and { "cat", "--", path } or { "cat" }, stdin = path and "null" or "inherit",
    stdout = "pipe", stderr = "inherit",
  })
  if not child then
    return nil, message
  end
  local io = child:stdout()

  ---@async
  local function readable()
    task.await(function(resume)
      io:on_readable(function()
        io:on_readable(nil)
        resume()
      end)
      return function()
        io:on_readable(nil)
      end
    end)
  end

  return {
    ---@async
    next = function()
      while true do
        local line, problem, code = io:readline(MAX_LINE)
        if line then
          return line
        elseif code == "EAGAIN" then
          readable()
        elseif code == "EOF" then
          -- The last line may come without its end.
          return (io:read(MAX_LINE))
        else
          return nil, code == "LIMIT" and ("longer than %d bytes"):format(MAX_LINE) or problem
        end
      end
    end,
    close = function()
      child:kill("KILL")
      child:close()
    end,
  }
end

---@param path string "-" is standard input
---@return farcall.BatchJobs?
---@return farcall.Error? err
---@nodiscard
function batch_jobs.open(path)
  local self = setmetatable({
    path = path, name = path == "-" and "standard input" or path, dir = ".", whole = false,
  }, BatchJobs)
  if path ~= "-" then
    local stat, message = fs.stat(path)
    if not stat then
      return nil, errors.new("usage", path, (message:gsub("^.-: ", "")))
    elseif stat.type == "directory" then
      return nil, errors.new("usage", path, "is a directory, not a file of jobs")
    end
    self.whole = stat.type == "file"
    self.dir = path:match("^(.*)/[^/]*$") or "."
    self.dir = self.dir == "" and "/" or self.dir
  end
  self:rewind()
  return self
end

---Begins anew, at the first line.
function BatchJobs:rewind()
  self:close()
  self.line, self.seen, self.broken = 0, {}, false
end

---The next job. A line that describes none is an error of its own: what follows it is still there.
---@async only where the file is no regular one
---@return farcall.BatchJob? job nil without an error: there is none any more
---@return farcall.Error? err
function BatchJobs:next()
  local message
  if not self.lines then
    if self.whole then
      self.lines, message = file_lines(self.path)
    else
      self.lines, message = piped_lines(self.path ~= "-" and self.path or nil)
    end
    if not self.lines then
      return nil, errors.new("unavailable", self.name, message)
    end
  end
  while not self.broken do
    local line, problem = self.lines.next()
    if not line then
      -- Where the next line begins is not known any more.
      self.broken, self.line = true, self.line + 1
      return nil, problem and line_error(self, problem) or nil
    end
    self.line = self.line + 1
    if #line > MAX_LINE then
      return nil, line_error(self, ("longer than %d bytes"):format(MAX_LINE))
    elseif line:find("%S") then
      return parse(self, line)
    end
  end
end

---Idempotent.
function BatchJobs:close()
  if self.lines then
    self.lines.close()
    self.lines = nil
  end
end

return batch_jobs
