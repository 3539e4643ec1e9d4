-- SPDX-License-Identifier: MIT
---@meta farcall.core.sha256

---@class farcall.core.sha256
local sha256 = {}

---@param bytes string
---@return string digest 64 hexadecimal digits
function sha256.hex(bytes) end

return sha256
