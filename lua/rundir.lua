-- SPDX-License-Identifier: MIT
-- Private directories of an engine below the runtime directory, each with a mark of whose it is, so
-- that what a killed engine left can be told from what is in use. The mark lies beside the
-- directory, as NAME.owner, and is there before it.

local atomicfile = require("farcall.core.atomicfile")
local fs = require("farcall.core.fs")
local hex = require("farcall.hex")
local identity = require("farcall.identity")
local system = require("farcall.core.system")

local rundir = {}

local MODE_DIRECTORY, MODE_FILE = 448, 384 -- 0700, 0600
local TRIES = 8
-- Without a mark nobody can say whose a directory is; after a day it is nobody's.
local UNMARKED_SECONDS = 86400
local KINDS = { run = true, work = true, sandbox = true }

local function random_name(kind)
  return kind .. "-" .. hex.random(5)
end

---A fresh directory RUNTIME_DIR/KIND-XXXXXXXXXX that only this user can enter.
---@param runtime_dir string
---@param owner? string the engine's identity; a new one of this process unless given
---@param kind? "run"|"work"|"sandbox" run unless given
---@return string? path
---@return string? message
---@return string? code
function rundir.create(runtime_dir, owner, kind)
  owner = owner or identity.new()
  local made, message, code
  for _ = 1, TRIES do
    local path = runtime_dir .. "/" .. random_name(kind or "run")
    made, message, code = atomicfile.write(path .. ".owner", owner,
      { mode = MODE_FILE, sync = false })
    if not made then
      return nil, message, code
    end
    made, message, code = fs.mkdir(path, MODE_DIRECTORY)
    if made then
      return path
    elseif code ~= "EEXIST" then
      fs.unlink(path .. ".owner")
      break
    end
  end
  return nil, message, code
end

---Removes a directory that create made, and its mark. Nothing there is success.
---@param path string
---@return true?
---@return string? message
---@return string? code
function rundir.remove(path)
  local removed, message, code = fs.rmtree(path)
  if removed then
    fs.unlink(path .. ".owner")
  end
  return removed, message, code
end

---The directories that dead engines left.
---@param runtime_dir string
---@param now? number unix seconds
---@return string[] paths, sorted
function rundir.stale(runtime_dir, now)
  now = now or system.time()
  local found, names = {}, {}
  for _, name in ipairs(fs.list(runtime_dir) or {}) do
    local base = name:match("^(.*)%.owner$") or name
    if KINDS[base:match("^(%l+)%-%w+$")] then
      names[base] = true
    end
  end
  for name in pairs(names) do
    local path = runtime_dir .. "/" .. name
    local owner = fs.read(path .. ".owner", 256)
    local stat = not owner and fs.stat(path, true)
    if owner and identity.state(owner) == "dead"
      or stat and now - stat.mtime > UNMARKED_SECONDS then
      found[#found + 1] = path
    end
  end
  table.sort(found)
  return found
end

return rundir
