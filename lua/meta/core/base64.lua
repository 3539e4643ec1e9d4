-- SPDX-License-Identifier: MIT
---@meta farcall.core.base64

---Base64 with padding, by the widest instructions that the processor has.
---@class farcall.core.base64
local base64 = {}

---@param bytes string
---@return string text
function base64.encode(bytes) end

---Strict: nothing but whole groups, no spaces.
---@param text string
---@return string? bytes
---@return string? message
---@return string? code "SYNTAX"
---@return integer? at the first wrong character, from 1
function base64.decode(text) end

---@return "scalar"|"avx2"|"avx512vbmi"
function base64.level() end

---For tests: uses these instructions from now on.
---@param level "scalar"|"avx2"|"avx512vbmi"
---@return true?
---@return string? message
---@return string? code when the processor has them not
function base64.force(level) end

return base64
