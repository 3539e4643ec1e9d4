-- SPDX-License-Identifier: MIT
---@meta farcall.core.system

---Facts about this process and its machine.
---@class farcall.core.system
local system = {}

---@return integer
function system.pid() end

---@return integer the effective one
function system.uid() end

---@return integer the effective one
function system.gid() end

---@return string?
---@return string? message
---@return string? code
function system.hostname() end

---@param count integer 1 to 65536
---@return string? bytes that nobody can foretell
---@return string? message
---@return string? code
function system.random(count) end

---@return number unix seconds
function system.time() end

---@param fd integer
---@return boolean
function system.isatty(fd) end

---A copy of the environment. Only config.lua may ask for it.
---@return table<string, string>
function system.environ() end

---@return string? path of the program that runs now
---@return string? message
---@return string? code
function system.exe() end

---@return string?
---@return string? message
---@return string? code
function system.cwd() end

---@return integer processors that this process may use
function system.cores() end

---No core dumps, and nobody of the same user can attach or read our environment.
---@return true?
---@return string? message
---@return string? code
function system.set_nondumpable() end

---Writes all of it, however long it takes: for the command line's own output.
---@param fd integer
---@param bytes string
---@return true?
---@return string? message
---@return string? code
function system.write(fd, bytes) end

---@param fd integer of a terminal
---@return integer? columns
---@return integer|string rows or a message
---@return string? code
function system.winsize(fd) end

---@return integer? bytes of memory that this process has
---@return string? message
---@return string? code
function system.rss_bytes() end

return system
