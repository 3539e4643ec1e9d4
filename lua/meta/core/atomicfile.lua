-- SPDX-License-Identifier: MIT
---@meta farcall.core.atomicfile

---Files that are there whole or not at all: written beside, synced, renamed.
---@class farcall.core.atomicfile
local atomicfile = {}

---Replaces the file. Until it is done the old one is there.
---@param path string
---@param bytes string
---@param options? {mode?: integer, sync?: boolean, follow?: boolean} mode: 0600; sync: to the disk,
---unless false; follow: a symbolic link is kept and its target replaced
---@return true?
---@return string? message
---@return string? code
function atomicfile.write(path, bytes, options) end

---Removes what writers that were killed have left in a directory.
---@param dir string
---@return integer? removed
---@return string? message
---@return string? code
function atomicfile.clean(dir) end

return atomicfile
