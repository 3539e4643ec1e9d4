-- SPDX-License-Identifier: MIT
---@meta farcall.core.mux

---Many streams over one link: docs/wire.md has the frames. It does no I/O: what comes of the link
---is fed to it, and what it puts out is sent by whoever has the link. Functions that it calls are
---called on the loop, never from within a method.
---@class farcall.core.mux
local mux = {}

---@class farcall.Mux
local Mux = {}

---A stream of it, with the methods of farcall.Fdbuf.
---@class farcall.MuxChannel
local MuxChannel = {}

---@class farcall.core.mux.Options
---@field side "engine"|"runner"
---@field max_channels? integer that the peer may have opened at the same time; 1024
---@field window? integer bytes that the peer may send ahead of the reader of a channel; 1 MiB
---@field max_kept? integer bytes sent and not acknowledged, beyond which no data are sent; 4 MiB

---@class farcall.core.mux.Events
---@field opened? fun(channel: farcall.MuxChannel, request: string) by the peer
---@field output? fun() output() has something again

---@param loop farcall.Loop
---@param options farcall.core.mux.Options
---@param events farcall.core.mux.Events
---@return farcall.Mux?
---@return string? message
---@return string? code
function mux.new(loop, options, events) end

---Bytes of the link.
---@param bytes string
---@return true?
---@return string? message
---@return string? code "SYNTAX", "LIMIT": the peer broke the rules, and the link is of no use any
---more; "CLOSED"
function Mux:feed(bytes) end

---What is to be sent next; it counts as sent.
---@param max? integer
---@return string? bytes nil when there is nothing now
function Mux:output(max) end

---The link is lost: nothing comes out until resume.
function Mux:suspend() end

---How many bytes have been fed in all, over all links: what the peer needs to resume.
---@return integer
function Mux:received() end

---Goes on with a new link.
---@param received integer bytes that the peer has had in all
---@return true?
---@return string? message
---@return string? code when the peer says what cannot be
function Mux:resume(received) end

---Asks the peer for a sign of life.
function Mux:ping() end

---@return integer signs of life so far
function Mux:pongs() end

---@param request string at most 32 KiB
---@return farcall.MuxChannel?
---@return string? message
---@return string? code
function Mux:open(request) end

---Every channel is as if the peer had given it up. Idempotent.
function Mux:close() end

---@param max? integer 65536
---@return string? bytes
---@return string? message
---@return string? code "EAGAIN": nothing now; "EOF"; or what has failed
function MuxChannel:read(max) end

---A line without its newline.
---@param max? integer a longer line is "LIMIT", and stays
---@return string? line
---@return string? message
---@return string? code as of read
function MuxChannel:readline(max) end

---@param bytes string
---@return integer? pending bytes that are not sent yet
---@return string? message
---@return string? code
function MuxChannel:write(bytes) end

---@return integer bytes that are not sent yet
function MuxChannel:pending() end

---@param fn? fun() called when a read would say something else than before
function MuxChannel:on_readable(fn) end

---@param fn? fun() called when all that was pending is sent, or cannot be
function MuxChannel:on_drained(fn) end

---No more is written: the peer reads the end after what is pending.
function MuxChannel:finish() end

---Gives it up, both ways; what was not sent is lost, unless it was finished before. Idempotent.
function MuxChannel:close() end

---@return integer number on the link
function MuxChannel:id() end

return mux
