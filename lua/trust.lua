-- SPDX-License-Identifier: MIT
-- Which ./farcall.lua may be run: a configuration is code, so the one that lies in the current
-- directory counts only after `farcall trust` has recorded the hash of it and of every file that it
-- names. A change of any of them ends the trust.

local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local sha256 = require("farcall.core.sha256")
local system = require("farcall.core.system")

local trust = {}

local MAX_FILE = 16 * 1024 * 1024
local MODE_DIRECTORY, MODE_FILE = 448, 384 -- 0700, 0600

local function record_path(state_dir)
  return state_dir .. "/trust.json"
end

-- A record that others could have written is none.
local function read_records(state_dir)
  local stat = fs.stat(record_path(state_dir), true)
  if not stat or stat.type ~= "file" or stat.uid ~= system.uid() or stat.mode % 64 ~= 0 then
    return {}
  end
  local text = fs.read(record_path(state_dir), MAX_FILE)
  local records = text and json.decode(text)
  return type(records) == "table" and records or {}
end

local function record_of(state_dir, path)
  local record = read_records(state_dir)[path]
  return type(record) == "table" and record or nil
end

local function hash_of(path)
  local text = fs.read(path, MAX_FILE)
  return text and sha256.hex(text) or nil
end

---Every file that a configuration loads: itself, the files that it names, the Lua files of the
---directories that it names.
---@param layer farcall.ConfigLayer
---@return table<string, string> hashes by path
function trust.hashes(layer)
  local hashes = { [layer.path] = hash_of(layer.path) }
  for _, path in ipairs(layer.loads) do
    local stat = fs.stat(path)
    if stat and stat.type == "directory" then
      for _, name in ipairs(fs.list(path) or {}) do
        if name:find("%.lua$") then
          hashes[path .. "/" .. name] = hash_of(path .. "/" .. name)
        end
      end
    elseif stat then
      hashes[path] = hash_of(path)
    end
  end
  return hashes
end

---@param state_dir string
---@param layer farcall.ConfigLayer
---@return true?
---@return farcall.Error? err
function trust.grant(state_dir, layer)
  local records = read_records(state_dir)
  records[layer.path] = json.object(trust.hashes(layer))
  local made, message, code = fs.mkdir(state_dir, MODE_DIRECTORY, true)
  if made then
    made, message, code = atomicfile.write(record_path(state_dir), json.encode(records),
      { mode = MODE_FILE })
  end
  if not made then
    return nil, errors.wrap("trust " .. layer.path, message, code)
  end
  return true
end

local function refusal(path, reason)
  return nil, errors.new("denied", path, reason,
    { hint = "a configuration is code: read it, then run `farcall trust` beside it" })
end

---A function that reads files of a trusted configuration: it returns what was recorded, byte by
---byte, or an error. So nothing is run that has changed meanwhile.
---@param state_dir string
---@param path string of the configuration
---@return (fun(file: string): string?, farcall.Error?)?
---@return farcall.Error? err
function trust.reader(state_dir, path)
  local record = record_of(state_dir, path)
  if not record then
    return refusal(path, "it is not trusted")
  end
  return function(file)
    local text, message = fs.read(file, MAX_FILE)
    if not text then
      return nil, errors.new("config", file, (message:gsub("^.*: ", "")))
    elseif record[file] ~= sha256.hex(text) then
      return refusal(file, record[file] and "it has changed since it was trusted"
        or "it is new since " .. path .. " was trusted")
    end
    return text
  end
end

---Whether every file that a configuration names is as it was recorded.
---@param state_dir string
---@param layer farcall.ConfigLayer
---@return true?
---@return farcall.Error? err which names the file that is new, gone or different
function trust.check(state_dir, layer)
  local record = record_of(state_dir, layer.path) or {}
  local hashes = trust.hashes(layer)
  for path, hash in pairs(hashes) do
    if record[path] ~= hash then
      return refusal(path, record[path] and "it has changed since it was trusted"
        or "it is new since " .. layer.path .. " was trusted")
    end
  end
  for path in pairs(record) do
    if not hashes[path] then
      return refusal(path, "it is gone since " .. layer.path .. " was trusted")
    end
  end
  return true
end

return trust
