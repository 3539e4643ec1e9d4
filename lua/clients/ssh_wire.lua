-- SPDX-License-Identifier: MIT
-- Words of SSH's messages, of which those of OpenSSH's control socket are made too: RFC 4251,
-- section 5.

local bit = require("bit")

local ssh_wire = {}

---@param n integer
---@return string
function ssh_wire.u32(n)
  return string.char(bit.band(bit.rshift(n, 24), 255), bit.band(bit.rshift(n, 16), 255),
    bit.band(bit.rshift(n, 8), 255), bit.band(n, 255))
end

---Bytes behind their number.
---@param bytes string
---@return string
function ssh_wire.counted(bytes)
  return ssh_wire.u32(#bytes) .. bytes
end

---The number at `at` and where the next word begins; nil when the bytes end before.
---@param bytes string
---@param at integer
---@return integer? number
---@return integer? next
function ssh_wire.get_u32(bytes, at)
  local a, b, c, d = bytes:byte(at, at + 3)
  if d then
    return ((a * 256 + b) * 256 + c) * 256 + d, at + 4
  end
end

---The counted bytes at `at` and where the next word begins; nil when the bytes end before.
---@param bytes string
---@param at? integer nil: there was nothing before either
---@return string? counted
---@return integer? next
function ssh_wire.get_string(bytes, at)
  local size, from = ssh_wire.get_u32(bytes, at or #bytes + 1)
  if size and from + size - 1 <= #bytes then
    return bytes:sub(from, from + size - 1), from + size
  end
end

return ssh_wire
