-- SPDX-License-Identifier: MIT
-- Host keys in known_hosts files, as sshd(8) describes them: plain names with wildcards and
-- negation, hashed names, [host]:port, @revoked. Lines that are none are passed over.

local base64 = require("farcall.core.base64")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local quoting = require("farcall.quoting")
local ssh = require("farcall.core.ssh")

local known_hosts = {}

local MAX_FILE = 16 * 1024 * 1024

---@class farcall.KnownHost
---@field revoked boolean
---@field type string "ssh-ed25519"
---@field key string the blob
---@field path string file in which it stands
---@field line integer its number there

-- "*" and "?" of a host pattern; nothing else is special.
local function glob(pattern, name)
  local lua_pattern = pattern:gsub("[^%w*?]", "%%%0"):gsub("%*+", ".*"):gsub("%?", ".")
  return name:find("^" .. lua_pattern .. "$") ~= nil
end

local function is_named(field, name)
  if field:sub(1, 3) == "|1|" then
    return ssh.is_hash_of(field, name)
  end
  local found = false
  for pattern in field:lower():gmatch("[^,]+") do
    if pattern:sub(1, 1) == "!" then
      if glob(pattern:sub(2), name) then
        return false
      end
    else
      found = found or glob(pattern, name)
    end
  end
  return found
end

-- The type is said in the blob once more; that one counts.
local function key_type(blob)
  if #blob < 4 then
    return nil
  end
  local a, b, c, d = blob:byte(1, 4)
  local size = ((a * 256 + b) * 256 + c) * 256 + d
  return size <= 64 and #blob >= 4 + size and blob:sub(5, 4 + size) or nil
end
known_hosts.key_type = key_type

---@return farcall.KnownHost? host
---@return boolean? authority the line is of one that certifies the name's keys
local function parse(line, name)
  local marker, rest = line:match("^%s*(@%S+)%s+(.*)$")
  local field, _, text = (rest or line):match("^%s*([^%s#]%S*)%s+(%S+)%s+(%S+)")
  -- A host certificate's authority says nothing about a plain key.
  if not text or not is_named(field, name) then
    return nil
  elseif marker and marker ~= "@revoked" then
    return nil, marker == "@cert-authority"
  end
  local key = base64.decode(text)
  local kind = key and key_type(key)
  return kind and { revoked = marker ~= nil, type = kind, key = key }
end

---The name under which a host stands in the files.
---@param host string
---@param port integer
---@return string
function known_hosts.name(host, port)
  host = host:lower()
  return port == 22 and host or ("[%s]:%d"):format(host, port)
end

---What the files say about a name; a file that is not there says nothing.
---@param paths string[]
---@param name string
---@return {[integer]: farcall.KnownHost, authority: boolean}? hosts authority: certificates count
---@return farcall.Error? err
function known_hosts.find(paths, name)
  local found = { authority = false }
  for _, path in ipairs(paths) do
    local text, msg, code = fs.read(path, MAX_FILE)
    if not text and code ~= "ENOENT" then
      return nil, errors.wrap("known hosts", msg, code)
    end
    local number = 0
    for line in (text or ""):gmatch("([^\n]*)\n?") do
      number = number + 1
      local host, authority = parse(line:gsub("\r", ""), name)
      if host then
        host.path, host.line = path, number
        found[#found + 1] = host
      end
      found.authority = found.authority or authority or false
    end
  end
  return found
end

---@param hosts farcall.KnownHost[]
---@param key string the server's
---@return "known"|"unknown"|"changed"|"revoked"|"other" verdict other: only keys of other types
---@return farcall.KnownHost? host the key that is in the way of one that is changed or other
function known_hosts.check(hosts, key)
  local verdict, stands = "unknown", nil
  for _, host in ipairs(hosts) do
    if host.key == key then
      if host.revoked then
        return "revoked"
      end
      verdict = "known"
    elseif verdict ~= "known" and not host.revoked then
      local same = host.type == key_type(key)
      stands = (same and verdict ~= "changed" or not stands) and host or stands
      verdict = (same or verdict == "changed") and "changed" or "other"
    end
  end
  return verdict, verdict ~= "known" and stands or nil
end

---What to do about a key that is not the one that is known.
---@param name string as known_hosts.name makes it
---@param path string
---@param line integer
---@return string
function known_hosts.advice(name, path, line)
  return ("somebody may be in between; if the key was changed on purpose, remove the old one (line "
    .. "%d of %s) with ssh-keygen -R %s -f %s"):format(line, path, quoting.sh(name),
    quoting.sh(path))
end

---Appends a line, in one piece, for this user only.
---@param path string
---@param name string
---@param key string
---@return boolean?
---@return farcall.Error? err
function known_hosts.add(path, name, key)
  local dir = path:match("^(.*)/[^/]*$")
  if dir and dir ~= "" and not fs.stat(dir) then
    fs.mkdir(dir, 448, true)
  end
  local before = fs.read(path, MAX_FILE)
  local file, msg, code = fs.appender(path, 384)
  if not file then
    return nil, errors.wrap("known hosts", msg, code)
  end
  local line = ("%s %s %s\n"):format(name, key_type(key), base64.encode(key))
  if before and before ~= "" and before:sub(-1) ~= "\n" then
    line = "\n" .. line
  end
  local ok
  ok, msg, code = file:write(line)
  file:close()
  if not ok then
    return nil, errors.wrap("known hosts", msg, code)
  end
  return true
end

return known_hosts
