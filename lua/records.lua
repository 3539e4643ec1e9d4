-- SPDX-License-Identifier: MIT
-- What is known of environments that can outlive their engine: STATE_DIR/environments/NAME.json,
-- written before the environment is made and removed after it is gone, so that whatever a killed
-- engine leaves behind can be found.
--
-- NAME.json           the record
-- NAME.user.ENGINE    of one that is shared: this engine uses it
-- NAME.used           of one that is shared: its time is that of the last use
-- NAME.ended.ENGINE   this engine was found dead, at the time of the file
-- NAME.lock           held while users come and while it is removed

local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local scrub = require("farcall.scrub")
local system = require("farcall.core.system")
local task = require("farcall.task")

---@class farcall.Records
---@field dir string
local records = {}
records.__index = records

local MODE_DIRECTORY, MODE_FILE = 448, 384 -- 0700, 0600
local READ_MAX = 1024 * 1024
-- A lock is held for moments, or while a service removes an environment.
local LOCK_SECONDS, LOCK_PAUSE = 120, 0.02

---@class farcall.EnvironmentRecord
---@field name string
---@field kind "private"|"keyed"|"visited" visited: farcall neither made it nor removes it
---@field backend string the name in the configuration, or of the backend itself
---@field use string the backend itself
---@field options table<string, any> without secrets
---@field engine string identity of the engine that made it
---@field created number unix seconds
---@field key? string
---@field idle? number seconds without a user after which it may be removed

---@param state_dir string
---@return farcall.Records
function records.new(state_dir)
  return setmetatable({ dir = state_dir .. "/environments" }, records)
end

---Whether a name can be an environment's; anything else must not become a part of a path.
---@return boolean
function records.is_name(name)
  return type(name) == "string" and #name <= 60 and name:find("^[a-z0-9][a-z0-9-]*$") ~= nil
end

local function path_of(self, name, ending)
  if not records.is_name(name) then
    error("not a name of an environment: " .. tostring(name), 3)
  end
  return self.dir .. "/" .. name .. ending
end

local function write(self, name, ending, text)
  local made, message, code = fs.mkdir(self.dir, MODE_DIRECTORY, true)
  if made then
    made, message, code = atomicfile.write(path_of(self, name, ending), text,
      { mode = MODE_FILE, sync = false })
  end
  if not made then
    return nil, errors.wrap("record of " .. name, message, code)
  end
  return true
end

-- Texts, numbers, booleans, and tables of them; of a map not what looks like a secret by its name.
local function plain(value)
  if type(value) == "function" then
    return nil
  elseif type(value) ~= "table" then
    return value
  end
  local copy = {}
  for key, item in pairs(value) do
    if type(key) ~= "string" or not scrub.looks_secret(key) then
      copy[key] = plain(item)
    end
  end
  return copy
end

---The options that may be written down.
---@param options table<string, any>
---@param declarations table<string, farcall.OptionDecl>
---@return table<string, any>
function records.writable(options, declarations)
  local kept = {}
  for name, value in pairs(options) do
    local declaration = declarations[name]
    if declaration and not declaration.secret then
      kept[name] = plain(value)
    end
  end
  return kept
end

---Waits until nobody else comes to, or removes, the environment of this name.
---@async
---@param name string
---@return {close: fun(self: table)}? lock
---@return farcall.Error? err
---@nodiscard
function records:lock(name)
  local path = path_of(self, name, ".lock")
  local made, message, code = fs.mkdir(self.dir, MODE_DIRECTORY, true)
  local deadline = task.now() + LOCK_SECONDS
  while made do
    made, message, code = fs.lock(path, MODE_FILE)
    if made then
      return made
    elseif code ~= "EAGAIN" or task.now() > deadline then
      break
    end
    made = true
    task.sleep(LOCK_PAUSE)
  end
  return nil, errors.wrap("lock of " .. name, message, code)
end

---Writes a record. Of one that is shared the first counts, and this engine becomes a user; call it
---with the lock.
---@param record farcall.EnvironmentRecord
---@param engine string identity of the engine that comes to use it
---@return true?
---@return farcall.Error? err
---@nodiscard
function records:add(record, engine)
  local shared = record.kind == "keyed"
  if shared then
    local ok, err = write(self, record.name, ".user." .. engine, "")
    if ok then
      ok, err = write(self, record.name, ".used", "")
    end
    if not ok or fs.stat(path_of(self, record.name, ".json")) then
      return ok, err
    end
  end
  return write(self, record.name, ".json", json.encode(record) .. "\n")
end

---An engine uses a shared one no longer.
---@param name string
---@param engine string
function records:release(name, engine)
  fs.unlink(path_of(self, name, ".user." .. engine))
  fs.unlink(path_of(self, name, ".ended." .. engine))
end

---For how long it has been known that an engine which used this environment is dead. The first time
---it is written down.
---@param name string
---@param engine string
---@return number seconds
function records:ended(name, engine)
  local seen = fs.stat(path_of(self, name, ".ended." .. engine))
  if not seen then
    write(self, name, ".ended." .. engine, "")
  end
  return seen and system.time() - seen.mtime or 0
end

---Notes that a shared one has just been used; nothing when it has been removed.
---@param name string
function records:touch(name)
  if fs.stat(path_of(self, name, ".json")) then
    write(self, name, ".used", "")
  end
end

---The environment is gone: so is all that was written of it. Of a shared one call it with the lock.
---@param name string
---@return true?
---@return farcall.Error? err
function records:remove(name)
  local prefix = name .. "."
  for _, file in ipairs(fs.list(self.dir) or {}) do
    if file:sub(1, #prefix) == prefix and file ~= prefix .. "json" then
      fs.unlink(self.dir .. "/" .. file)
    end
  end
  local path = path_of(self, name, ".json")
  local removed, message, code = fs.unlink(path)
  if not removed and code ~= "ENOENT" then
    return nil, errors.wrap("record of " .. name, message, code)
  end
  return true
end

local function is_record(value, name)
  return type(value) == "table" and value.name == name and type(value.backend) == "string"
    and type(value.use) == "string" and type(value.options) == "table"
    and type(value.created) == "number" and type(value.engine) == "string"
    and (value.kind == "private" or value.kind == "visited"
      or value.kind == "keyed" and type(value.key) == "string")
end

---The engines that use a shared environment.
---@param name string
---@return string[] identities
function records:users(name)
  local prefix, users = name .. ".user.", {}
  for _, file in ipairs(fs.list(self.dir) or {}) do
    if file:sub(1, #prefix) == prefix then
      users[#users + 1] = file:sub(#prefix + 1)
    end
  end
  table.sort(users)
  return users
end

---The record of this name; nil where there is none that can be read.
---@param name string
---@return farcall.EnvironmentRecord? with used, unix seconds
function records:read(name)
  local text = fs.read(path_of(self, name, ".json"), READ_MAX)
  local value = text and json.decode(text)
  if not is_record(value, name) then
    return nil
  end
  local used = fs.stat(path_of(self, name, ".used"))
  value.used = used and used.mtime or value.created
  return value
end

---Every record, by name.
---@return farcall.EnvironmentRecord[]
---@return string[] unreadable paths
function records:list()
  local names, found, unreadable = fs.list(self.dir) or {}, {}, {}
  table.sort(names)
  for _, file in ipairs(names) do
    local name = file:match("^(.*)%.json$")
    if records.is_name(name) then
      local record = self:read(name)
      if record then
        found[#found + 1] = record
      elseif fs.stat(self.dir .. "/" .. file) then
        unreadable[#unreadable + 1] = self.dir .. "/" .. file
      end
    end
  end
  return found, unreadable
end

return records
