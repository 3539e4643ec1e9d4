-- SPDX-License-Identifier: MIT
---@meta farcall.core.fs

---Files and directories of this machine. All of it happens at once: what may be slow goes through
---farcall.core.work.
---@class farcall.core.fs
local fs = {}

---@class farcall.Stat
---@field type "file"|"directory"|"link"|"fifo"|"socket"|"device"
---@field size integer
---@field mode integer the permissions
---@field uid integer
---@field gid integer
---@field mtime number unix seconds
---@field ino integer

---A file that is only written to at its end.
---@class farcall.Appender
local Appender = {}

---@class farcall.FileLock
local FileLock = {}

---A new directory that only this user can enter.
---@param prefix string six letters are put behind it
---@return string? path
---@return string? message
---@return string? code
function fs.mkdtemp(prefix) end

---@param path string
---@param mode integer
---@param parents? boolean with those above it; one that is there already is success
---@return true?
---@return string? message
---@return string? code
function fs.mkdir(path, mode, parents) end

---@param dir string
---@return string[]? names in no order, without . and ..
---@return string? message
---@return string? code
function fs.list(dir) end

---@param path string
---@param nofollow? boolean of a symbolic link itself
---@return farcall.Stat?
---@return string? message
---@return string? code
function fs.stat(path, nofollow) end

---@param path string
---@return true?
---@return string? message
---@return string? code
function fs.unlink(path) end

---@param path string
---@return true?
---@return string? message
---@return string? code
function fs.rmdir(path) end

---@param from string
---@param to string
---@return true?
---@return string? message
---@return string? code
function fs.rename(from, to) end

---@param path string
---@param mode integer
---@return true?
---@return string? message
---@return string? code
function fs.chmod(path, mode) end

---The file ends there.
---@param path string
---@param size integer
---@return true?
---@return string? message
---@return string? code
function fs.truncate(path, size) end

---Removes a tree and follows no link out of it. Success also when there is nothing.
---@param path string
---@return true?
---@return string? message
---@return string? code
function fs.rmtree(path) end

---@param path string
---@return string?
---@return string? message
---@return string? code
function fs.realpath(path) end

---@param path string
---@return string? target
---@return string? message
---@return string? code
function fs.readlink(path) end

---The whole of a regular file.
---@param path string
---@param max integer bytes; a larger one is "LIMIT"
---@return string? bytes
---@return string? message
---@return string? code
function fs.read(path, max) end

---@param path string made when it is not there
---@param mode integer
---@return farcall.Appender?
---@return string? message
---@return string? code
function fs.appender(path, mode) end

---A lock on a file, which ends with its holder.
---@param path string made when it is not there
---@param mode integer
---@return farcall.FileLock?
---@return string? message
---@return string? code "EAGAIN" while another holds it
function fs.lock(path, mode) end

---Exactly one write(2).
---@param bytes string
---@return true?
---@return string? message
---@return string? code "PARTIAL" when only a part went in
function Appender:write(bytes) end

---@return integer? fd
---@return string? message
---@return string? code
function Appender:fileno() end

---Idempotent.
function Appender:close() end

---Lets go. Idempotent.
function FileLock:close() end

return fs
