-- SPDX-License-Identifier: MIT
---@meta farcall.core.text

---Text out of bytes of anybody, in one pass: without escapes of terminals, as whole UTF-8, without
---what looks like a secret.
---@class farcall.core.text
local text = {}

---@class farcall.core.text.What
---@field escapes? boolean each is done unless it is false
---@field utf8? boolean
---@field secrets? boolean

---@class farcall.core.text.Counts
---@field escapes integer
---@field invalid integer
---@field secrets integer

---Cleans a stream, piece by piece.
---@class farcall.TextCleaner
local TextCleaner = {}

---@param bytes string
---@param what? farcall.core.text.What
---@return string? clean
---@return farcall.core.text.Counts|string counts or a message
---@return string? code
function text.clean(bytes, what) end

---@param what? farcall.core.text.What
---@return farcall.TextCleaner?
---@return string? message
---@return string? code
function text.cleaner(what) end

---@param bytes string
---@return string? clean what of it can be told by now
---@return string? message
---@return string? code
function TextCleaner:feed(bytes) end

---The rest. It is closed then.
---@return string? clean
---@return farcall.core.text.Counts|string counts or a message
---@return string? code
function TextCleaner:finish() end

---Idempotent.
function TextCleaner:close() end

return text
