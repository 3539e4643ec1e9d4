-- SPDX-License-Identifier: MIT
-- What OpenSSH's ssh says when it fails, and what that means.

local errors = require("farcall.errors")
local known_hosts = require("farcall.clients.known_hosts")
local text = require("farcall.core.text")

local openssh_sayings = {}

local function clean(bytes)
  return (text.clean(bytes, { escapes = true, utf8 = true, secrets = false }))
end

-- The first that is found in all it said counts. Kind, code, message, hint, and whether what it
-- says has a better one.
local SAYINGS = {
  { "REMOTE HOST IDENTIFICATION HAS CHANGED", "denied", "HOSTKEY",
    "the server's key is not the one in known_hosts",
    "somebody may be in between; if the key was changed on purpose, remove the old one with "
    .. "ssh-keygen -R", true },
  { "REVOKED HOST KEY", "denied", "HOSTKEY", "the server's host key is marked as revoked" },
  { "Host key verification failed", "denied", "UNKNOWN_HOST", "the host key is not known",
    "check it and add it, as ssh does when it asks, or set accept_new" },
  { ": Permission denied (", "denied", "AUTH", nil,
    "the option identity names a key; its public half belongs into authorized_keys over there" },
  { "Too many authentication failures", "denied", "AUTH" },
  { "Could not resolve hostname", "unavailable", "RESOLVE" },
  { "Connection refused", "unavailable", "ECONNREFUSED" },
  { "No route to host", "unavailable", "EHOSTUNREACH" },
  { "Network is unreachable", "unavailable", "ENETUNREACH" },
  { "onnection timed out", "unavailable", "TIMEOUT" },
  { "not responding", "unavailable", "TIMEOUT" },
  { "Unable to negotiate", "unsupported", "KEX" },
  { "Bad configuration option", "config" },
  { "terminating, ", "config" },
  { "Bad owner or permissions", "config" },
  { "kex_exchange_identification", "unavailable", "ECONNRESET" },
}

-- ssh names the file and the line of the key that is in the way, and the host by its name there.
local function advice(words)
  local path, line = words:match("Offending [^\r\n]- key in ([^\r\n]-):(%d+)")
  local name = words:match("ssh%-keygen %-f [^\r\n]- %-R [\"']([^\r\n\"']+)")
    or words:match("Host key for ([^\r\n]-) has changed")
  return path and name and known_hosts.advice(clean(name), clean(path), tonumber(line))
end

---@param op string
---@param words string what ssh has said
---@return farcall.Error
function openssh_sayings.explain(op, words)
  local last
  for line in words:gmatch("[^\r\n]+") do
    last = line:find("%S") and line or last
  end
  for _, saying in ipairs(SAYINGS) do
    for line in words:gmatch("[^\r\n]+") do
      if line:find(saying[1], 1, true) then
        return errors.new(saying[2], op, saying[4] or clean(line),
          { code = saying[3], hint = saying[6] and advice(words) or saying[5] })
      end
    end
  end
  return errors.new("unavailable", op, last and clean(last) or "ssh ended without a word")
end

return openssh_sayings
