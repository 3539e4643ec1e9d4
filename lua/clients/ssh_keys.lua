-- SPDX-License-Identifier: MIT
-- Keys to log in with: private key files, and those that an agent keeps (draft-miller-ssh-agent).
-- Talking to the agent waits without blocking anything.

local base64 = require("farcall.core.base64")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local sock = require("farcall.core.sock")
local task = require("farcall.task")

local ssh_keys = {}

local MAX_FILE = 64 * 1024
-- As OpenSSH has it (AGENT_MAX_LEN).
local MAX_MESSAGE = 256 * 1024
local MAX_KEYS = 2048
local REQUEST_IDENTITIES, IDENTITIES = 11, 12
local SIGN_REQUEST, SIGNATURE = 13, 14

local function u32(number)
  return string.char(math.floor(number / 2 ^ 24), math.floor(number / 2 ^ 16) % 256,
    math.floor(number / 256) % 256, number % 256)
end

local function get_u32(bytes, at)
  if #bytes < at + 3 then
    return nil
  end
  local a, b, c, d = bytes:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d, at + 4
end

-- The string at a place, and the place after it; nil when there is none.
local function get_string(bytes, at)
  local size, from = get_u32(bytes, at)
  if not size or from + size - 1 > #bytes then
    return nil
  end
  return bytes:sub(from, from + size - 1), from + size
end

---@class farcall.PrivateKey
---@field path string
---@field text string
---@field type? string "ssh-ed25519"; nil when only the key itself would tell
---@field public? string the public key's blob, if the file shows it
---@field encrypted boolean

local PEM_TYPES = { RSA = "ssh-rsa", DSA = "ssh-dss", EC = "ecdsa-sha2-nistp256" }
local MAGIC = "openssh-key-v1\0"

local function parse_openssh(key)
  local body = key.text:match("%-%-%-%-%-BEGIN OPENSSH PRIVATE KEY%-%-%-%-%-(.-)%-%-%-%-%-END")
  local bytes = body and base64.decode((body:gsub("%s", "")))
  if not bytes or bytes:sub(1, #MAGIC) ~= MAGIC then
    return nil
  end
  local cipher, at = get_string(bytes, #MAGIC + 1)
  for _ = 1, 2 do
    if at then
      _, at = get_string(bytes, at)
    end
  end
  local public = at and get_string(bytes, at + 4)
  if not public then
    return nil
  end
  key.encrypted = cipher ~= "none"
  key.public = public
  key.type = get_string(public, 1)
  return key
end

---Reads a private key file, without its secret being looked at.
---@param path string
---@return farcall.PrivateKey?
---@return farcall.Error? err
function ssh_keys.read(path)
  local text, msg, code = fs.read(path, MAX_FILE)
  if not text then
    return nil, errors.wrap("key " .. path, msg, code)
  end
  local key = { path = path, text = text, encrypted = false }
  local label = text:match("%-%-%-%-%-BEGIN ([%u ]*)PRIVATE KEY%-%-%-%-%-")
  if label == "OPENSSH " then
    key = parse_openssh(key)
  elseif label then
    key.encrypted = label == "ENCRYPTED " or text:find("Proc-Type: 4,ENCRYPTED", 1, true) ~= nil
    key.type = PEM_TYPES[label:sub(1, -2)]
  else
    key = nil
  end
  if not key then
    return nil, errors.new("config", "key " .. path, "not a private key", { code = "KEYFILE" })
  end
  return key
end

---@class farcall.SshAgent
---@field private io farcall.Fdbuf
local Agent = {}
Agent.__index = Agent

---@param path string its socket
---@return farcall.SshAgent?
---@return farcall.Error? err
function ssh_keys.agent(path)
  local io, msg, code = sock.connect(task.loop(), path)
  if not io then
    return nil, errors.wrap("agent", msg, code)
  end
  return setmetatable({ io = io }, Agent)
end

-- Exactly so many bytes, or nil when it went away.
local function read_exactly(io, size)
  local pieces, have = {}, 0
  while have < size do
    local bytes, _, code = io:read(size - have)
    if bytes then
      pieces[#pieces + 1] = bytes
      have = have + #bytes
    elseif code ~= "EAGAIN" then
      return nil
    else
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
  end
  return table.concat(pieces)
end

local function ask(self, message)
  self.io:write(u32(#message) .. message)
  local head = read_exactly(self.io, 4)
  local size = head and get_u32(head, 1)
  if not size or size < 1 or size > MAX_MESSAGE then
    return nil
  end
  return read_exactly(self.io, size)
end

---The public keys that it has.
---@async
---@return {public: string, type: string}[]? keys
---@return farcall.Error? err
function Agent:keys()
  local answer = ask(self, string.char(REQUEST_IDENTITIES))
  local count = answer and answer:byte(1) == IDENTITIES and get_u32(answer, 2)
  if not count or count > MAX_KEYS then
    return nil, errors.new("protocol", "agent", "it did not list its keys")
  end
  local keys, at = {}, 6
  for _ = 1, count do
    local public
    public, at = get_string(answer, at)
    local kind = public and get_string(public, 1)
    if not kind then
      return nil, errors.new("protocol", "agent", "malformed list of keys")
    end
    keys[#keys + 1] = { public = public, type = kind }
    _, at = get_string(answer, at)
    if not at then
      return nil, errors.new("protocol", "agent", "malformed list of keys")
    end
  end
  return keys
end

---The signature proper, or nil when it refuses.
---@async
---@param public string
---@param bytes string
---@return string?
function Agent:sign(public, bytes)
  local answer = ask(self, string.char(SIGN_REQUEST) .. u32(#public) .. public .. u32(#bytes)
    .. bytes .. u32(0))
  local blob = answer and answer:byte(1) == SIGNATURE and get_string(answer, 2)
  local _, at = get_string(blob or "", 1)
  return at and get_string(blob, at) or nil
end

function Agent:close()
  self.io:close()
end

return ssh_keys
