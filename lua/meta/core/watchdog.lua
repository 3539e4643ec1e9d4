-- SPDX-License-Identifier: MIT
---@meta farcall.core.watchdog

---Notices Lua that holds the loop, names the line, and stops it.
---@class farcall.core.watchdog
local watchdog = {}

---@class farcall.Watchdog
local Watchdog = {}

---One per Lua state.
---@param loop farcall.Loop
---@param options {warn_ms?: integer, stop_ms?: integer, own?: string} warn_ms: 200; stop_ms: 0,
---never; own: how the names of files begin that are not to blame, and not to be stopped
---@param held fun(where: string, held_ms: integer, stopped: boolean) called when it is over
---@return farcall.Watchdog?
---@return string? message
---@return string? code
function watchdog.new(loop, options, held) end

---Idempotent.
function Watchdog:close() end

---@return boolean its timer runs now
function Watchdog:armed() end

return watchdog
