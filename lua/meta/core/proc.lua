-- SPDX-License-Identifier: MIT
---@meta farcall.core.proc

---Processes of this machine.
---@class farcall.core.proc
local proc = {}

---@class farcall.Child
local Child = {}

---@class farcall.core.proc.Spec
---@field argv string[] the program by its path, and its arguments
---@field env? string[] "NAME=value"; this process' own when absent
---@field cwd? string
---@field stdin? "pipe"|"null"|"inherit"|integer a descriptor; "null" when absent
---@field stdout? "pipe"|"null"|"inherit"|integer
---@field stderr? "pipe"|"null"|"inherit"|integer
---@field fds? table<integer, integer> number in the child -> descriptor of ours
---@field session? boolean a session of its own, unless false
---@field umask? integer
---@field uid? integer
---@field gid? integer
---@field rlimits? table<string, number> "nofile", "fsize", ...
---@field max_in? integer as of farcall.Fdbuf, of each pipe
---@field max_out? integer
---@field walk_fds? boolean for tests: closes descriptors one by one

---Returns when the program runs: what keeps it from running is an error here.
---@param loop farcall.Loop
---@param spec farcall.core.proc.Spec
---@return farcall.Child?
---@return string? message
---@return string? code
function proc.spawn(loop, spec) end

---Where a program is.
---@param name string
---@param path? string as in PATH; this process' own when absent
---@return string?
---@return string? message
---@return string? code
function proc.which(name, path) end

---@param number integer
---@return string name "KILL"
function proc.signal_name(number) end

---@param name string|integer
---@return integer
function proc.signal_number(name) end

---What an errno means, and its name.
---@param number integer
---@return string text
---@return string code
function proc.error_text(number) end

---Closes a descriptor that is known by its number only.
---@param fd integer
function proc.close_fd(fd) end

---@return integer
function Child:pid() end

---@return farcall.Fdbuf? nil when it is no pipe
function Child:stdin() end

---@return farcall.Fdbuf?
function Child:stdout() end

---@return farcall.Fdbuf?
function Child:stderr() end

---@return "exit"|"signal"|nil how nil while it runs
---@return integer? number
function Child:status() end

---@param fn fun(how: "exit"|"signal", number: integer) called once; at once when it has ended
function Child:on_exit(fn) end

---@param signal string|integer
---@return true?
---@return string? message
---@return string? code
function Child:kill(signal) end

---The whole group that it leads.
---@param signal string|integer
---@return true?
---@return string? message
---@return string? code
function Child:kill_group(signal) end

---Closes this side's ends. A child that runs goes on, and is reaped. Idempotent.
function Child:close() end

return proc
