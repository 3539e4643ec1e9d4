-- SPDX-License-Identifier: MIT
-- Which ./farcall.lua may be run: a configuration is code, so the one that lies in the current
-- directory counts only after `farcall trust` has recorded the hash of it and of every file that it
-- names. A change of any of them ends the trust.

local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local json = require("farcall.core.json")
local sha256 = require("farcall.core.sha256")

local trust = {}

local MAX_FILE = 16 * 1024 * 1024

local function record_path(state_dir)
  return state_dir .. "/trust.json"
end

local function read_records(state_dir)
  local text = fs.read(record_path(state_dir), MAX_FILE)
  return text and json.decode(text) or {}
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
  local made, message, code = fs.mkdir(state_dir, 448, true)
  if made then
    made, message, code = atomicfile.write(record_path(state_dir), json.encode(records),
      { mode = 384 })
  end
  if not made then
    return nil, errors.wrap("trust " .. layer.path, message, code)
  end
  return true
end

local function refusal(path, reason)
  return nil, errors.new("denied", path, reason,
    { hint = "a configuration is code: read it, then run `farcall trust`" })
end

---Whether this very file may be run at all; the files that it names are checked by trust.check.
---@return true?
---@return farcall.Error? err
function trust.check_file(state_dir, path)
  local record = read_records(state_dir)[path]
  if not record then
    return refusal(path, "it is not trusted")
  end
  if record[path] ~= hash_of(path) then
    return refusal(path, "it has changed since it was trusted")
  end
  return true
end

---@return true?
---@return farcall.Error? err which names the file that is new, gone or different
function trust.check(state_dir, layer)
  local record = read_records(state_dir)[layer.path] or {}
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
