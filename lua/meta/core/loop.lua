-- SPDX-License-Identifier: MIT
---@meta farcall.core.loop

---The poll loop: descriptors, timers, signals. Everything that waits in farcall waits here.
---@class farcall.core.loop
local loop = {}

---@class farcall.Loop
local Loop = {}

---@class farcall.Timer
local Timer = {}

---@class farcall.Watch
local Watch = {}

---@class farcall.Signals
local Signals = {}

---@return farcall.Loop?
---@return string? message
---@return string? code
function loop.new() end

---@return number seconds of the monotonic clock
function loop.now() end

---Turns until it is stopped or nothing is left to wait for. An error that a callback raises is
---raised here.
---@return true?
---@return string? message
---@return string? code
function Loop:run() end

---One turn.
---@param timeout_ms? integer -1: as long as it takes
---@return true?
---@return string? message
---@return string? code
function Loop:turn(timeout_ms) end

---Ends run() after this turn.
function Loop:stop() end

---@return {fds: integer, timers: integer, children: integer, wakes: integer} what it waits for
function Loop:census() end

---@param delay_ms number
---@param fn fun() called once
---@return farcall.Timer?
---@return string? message
---@return string? code
function Loop:timer(delay_ms, fn) end

---@param fd integer stays the caller's
---@param want ""|"r"|"w"|"rw"
---@param fn fun(ready: string) called as often as it is ready, with "r", "w" or "rw"
---@return farcall.Watch?
---@return string? message
---@return string? code
function Loop:watch(fd, want, fn) end

---@param names string[] "INT", "TERM", ...
---@param fn fun(name: string)
---@return farcall.Signals?
---@return string? message
---@return string? code
function Loop:signals(names, fn) end

---A descriptor that is readable when a turn would have something to do.
---@return integer? fd
---@return string? message
---@return string? code
function Loop:pollfd() end

---Not while it runs. Idempotent.
function Loop:close() end

---Starts it once more, from now.
---@param delay_ms number
---@return farcall.Timer?
---@return string? message
---@return string? code
function Timer:again(delay_ms) end

---Idempotent.
function Timer:close() end

---@param want ""|"r"|"w"|"rw"
---@return farcall.Watch?
---@return string? message
---@return string? code
function Watch:want(want) end

---Idempotent.
function Watch:close() end

---Idempotent.
function Signals:close() end

return loop
