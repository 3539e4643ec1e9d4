-- SPDX-License-Identifier: MIT
---@meta farcall.core.fdbuf

---A descriptor with buffers both ways, on the loop.
---@class farcall.core.fdbuf
local fdbuf = {}

---@class farcall.Fdbuf
local Fdbuf = {}

---Takes over a descriptor, which is closed with it.
---@param loop farcall.Loop
---@param fd integer
---@param options? {max_in?: integer, max_out?: integer} bytes that are kept at most
---@return farcall.Fdbuf?
---@return string? message
---@return string? code
function fdbuf.new(loop, fd, options) end

---What is there now. Bytes that came before the end come before it is told.
---@param max? integer 65536
---@return string? bytes
---@return string? message
---@return string? code "EAGAIN": nothing now; "EOF"; or what has failed
function Fdbuf:read(max) end

---A line without its newline. Bytes after the last newline are no line.
---@param max? integer a longer line is "LIMIT", and stays
---@return string? line
---@return string? message
---@return string? code as of read
function Fdbuf:readline(max) end

---Takes all bytes and sends them when it can.
---@param bytes string
---@return integer? pending bytes that are not sent yet
---@return string? message
---@return string? code "LIMIT" when too many are pending: none is taken; "EPIPE", "CLOSED"
function Fdbuf:write(bytes) end

---@return integer bytes that are not sent yet
function Fdbuf:pending() end

---@param fn? fun() called on the loop when a read would say something else than before
function Fdbuf:on_readable(fn) end

---@param fn? fun() called on the loop when all that was pending is sent, or cannot be
function Fdbuf:on_drained(fn) end

---No more is written: the other side reads the end after what is pending.
function Fdbuf:finish() end

---Closes the descriptor; what is pending is lost. Idempotent.
function Fdbuf:close() end

---@return integer? fd
---@return string? message
---@return string? code
function Fdbuf:fileno() end

return fdbuf
