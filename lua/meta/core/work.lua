-- SPDX-License-Identifier: MIT
---@meta farcall.core.work

---What can only block, in two threads: files, fsync, names of hosts.
---@class farcall.core.work
local work = {}

---Jobs have an id, and a function that is called on the loop: with the result, or nil, a message
---and a code.
---@class farcall.Work
local Work = {}

---@param loop farcall.Loop
---@return farcall.Work?
---@return string? message
---@return string? code
function work.new(loop) end

---As atomicfile.write.
---@param path string
---@param bytes string
---@param options {mode?: integer, sync?: boolean, follow?: boolean, parents?: boolean}
---@param fn fun(ok: true?, message: string?, code: string?)
---@return integer? id
---@return string? message
---@return string? code
function Work:write_file(path, bytes, options, fn) end

---@param path string
---@param options {max?: integer, offset?: integer} without max the whole file, which has a limit
---@param fn fun(bytes: string?, size: integer|string, code: string?) size of the file
---@return integer? id
---@return string? message
---@return string? code
function Work:read_file(path, options, fn) end

---@param fd integer duplicated: it may be closed at once
---@param fn fun(ok: true?, message: string?, code: string?)
---@return integer? id
---@return string? message
---@return string? code
function Work:fsync(fd, fn) end

---@param fd integer duplicated: it may be closed at once
---@param fn fun(ok: true?, message: string?, code: string?)
---@return integer? id
---@return string? message
---@return string? code
function Work:fdatasync(fd, fn) end

---@param host string
---@param port string
---@param fn fun(found: {family: "inet"|"inet6", address: string, port: integer}[]?, message:
---string?, code: string?)
---@return integer? id
---@return string? message
---@return string? code
function Work:resolve(host, port, fn) end

---Its function will not be called.
---@param id integer
---@return boolean found there was such a job
function Work:cancel(id) end

---@return integer jobs that are under way
function Work:pending() end

---Idempotent.
function Work:close() end

return work
