-- SPDX-License-Identifier: MIT
---@meta farcall.core.sandbox

---Lua in a state of its own, within limits of memory, instructions and time, without files,
---processes, other code or the engine. Values cross as copies: texts, numbers, booleans, JSON's
---null, and tables of them.
---@class farcall.core.sandbox
local sandbox = {}

---@class farcall.Sandbox
local Sandbox = {}

---@class farcall.core.sandbox.Options
---@field memory_bytes? integer
---@field instructions? integer of one call
---@field milliseconds? integer of one call
---@field prelude? string Lua that is run first: it gets the callbacks as a table and returns the
---methods, of which `load` gets what a loaded text returns; without one that is the methods itself,
---and the callbacks are globals
---@field callbacks? table<string, function> of this side, which the code inside may call

---@param options? farcall.core.sandbox.Options
---@return farcall.Sandbox?
---@return string? message
---@return string? code
function sandbox.new(options) end

---Runs a text, which returns one table, and hands out what the prelude's `load` makes of it, as
---far as it can be copied; of functions only that there is one.
---@param source string
---@param name string of the chunk, beginning with @ or =
---@return true?
---@return any ... results; or a message and a code: "RAISED", "INSTRUCTIONS", "TIMEOUT", "MEMORY",
---"TYPE", "LIMIT"
function Sandbox:load(source, name) end

---@param method string
---@param ... any
---@return true?
---@return any ... as of load
function Sandbox:call(method, ...) end

---@return {memory_bytes: integer, instructions: integer, dead: boolean} dead: out of service since
---it needed too much memory
function Sandbox:usage() end

---Not from within a callback. Idempotent.
function Sandbox:close() end

return sandbox
