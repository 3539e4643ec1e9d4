-- SPDX-License-Identifier: MIT
-- Bytes as hexadecimal digits, and random words made of them: marks, tokens, names that nobody else
-- has chosen.

local system = require("farcall.core.system")

local hex = {}

---@param bytes string
---@return string digits two a byte, lower case
function hex.encode(bytes)
  return (bytes:gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

---@param count integer random bytes
---@return string digits two a byte
function hex.random(count)
  return hex.encode(system.random(count))
end

return hex
