-- SPDX-License-Identifier: MIT
---@meta farcall.core.sock

---Unix sockets.
---@class farcall.core.sock
local sock = {}

---@class farcall.Listener
local Listener = {}

---@param loop farcall.Loop
---@param path string must not exist
---@param options? {backlog?: integer, mode?: integer} mode: 0600
---@param on_accept fun(connection: farcall.Fdbuf, peer: {pid: integer, uid: integer, gid: integer})
---@return farcall.Listener?
---@return string? message
---@return string? code
function sock.listen(loop, path, options, on_accept) end

---@param loop farcall.Loop
---@param path string
---@return farcall.Fdbuf?
---@return string? message
---@return string? code
function sock.connect(loop, path) end

---Two ends of one: ours, and a descriptor to give away.
---@param loop farcall.Loop
---@return farcall.Fdbuf?
---@return integer|string fd or a message
---@return string? code
function sock.pair(loop) end

---Ends listening and removes the socket. Idempotent.
function Listener:close() end

return sock
