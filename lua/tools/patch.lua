-- SPDX-License-Identifier: MIT
-- Changes in text files: one text replaced by another, or a patch of any number of files.

local errors = require("farcall.errors")
local files = require("farcall.files")
local json = require("farcall.core.json")
local text = require("farcall.core.text")
local textdiff = require("farcall.textdiff")
local textpatch = require("farcall.textpatch")

local MAX_FILE = 8 * 1024 * 1024
local MAX_DIFF = 256 * 1024
-- Somebody else may write between our reading and writing: then it is all done again, so often.
local MAX_TRIES = 5

local MOVE = [[
if [ -e "$2" ] || [ -L "$2" ]; then exit 48; fi
d=${2%/*}
if [ ! -d "${d:-/}" ]; then mkdir -p "$d" || exit 47; fi
exec mv "$1" "$2"
]]

local function usage(op, message)
  return nil, errors.new("usage", op, message)
end

---@async
local function read_text(ctx, op, path)
  local bytes, err = files.read(ctx, op, path, { max = MAX_FILE + 1 })
  if not bytes then
    return nil, err
  end
  if #bytes > MAX_FILE then
    return nil, errors.new("limit", op, ("a file to patch has at most %d bytes"):format(MAX_FILE))
  end
  if files.is_binary(bytes) then
    return nil, errors.new("unsupported", op, "a binary file cannot be patched")
  end
  return bytes
end

-- A name in a diff's header stays on its line.
local function header_name(prefix, name)
  return prefix .. (name:gsub("^/+", ""):gsub("[%c]", "?"))
end

---What the patch makes of one file, held in memory until all is known to fit.
---@class farcall.patch.Slot
---@field asked string the path as it was given
---@field path string
---@field old? string absent: there was no such file
---@field new? string absent: the file goes
---@field move_to? farcall.patch.Slot

local function diff_of(slots)
  local out, size = {}, 0
  for _, slot in ipairs(slots) do
    local target = slot.move_to and slot.move_to.asked or slot.asked
    local diff = textdiff.unified(slot.old or "", slot.new or "",
      slot.old and header_name("a/", slot.asked) or "/dev/null",
      slot.new and header_name("b/", target) or "/dev/null")
    out[#out + 1] = diff
    size = size + #diff
  end
  local diff, cut = table.concat(out), size > MAX_DIFF
  if cut then
    diff = files.clip(diff, MAX_DIFF)
  end
  return (text.clean(diff, { escapes = false, utf8 = true, secrets = false })), cut
end

local function report(slots)
  local lists = { files_modified = {}, files_created = {}, files_deleted = {} }
  for _, slot in ipairs(slots) do
    if slot.move_to then
      table.insert(lists.files_created, slot.move_to.asked)
      table.insert(lists.files_deleted, slot.asked)
    else
      local list = not slot.old and "files_created" or not slot.new and "files_deleted"
        or "files_modified"
      table.insert(lists[list], slot.asked)
    end
  end
  local reply = { success = true }
  for name, list in pairs(lists) do
    reply[name] = json.array(list)
  end
  local cut
  reply.diff, cut = diff_of(slots)
  if cut then
    reply.diff_truncated = true
  end
  return reply
end

---@async
local function replace(args, ctx)
  local op = "patch " .. args.path
  local path, err = files.resolve(ctx, op, args.path)
  if not path then
    return nil, err
  end
  for try = 1, MAX_TRIES do
    local old
    old, err = read_text(ctx, op, path)
    if not old then
      return nil, err
    end
    local new, count = textpatch.replace(old, args.old_string, args.new_string, args.replace_all)
    if not new then
      return usage(op, count)
    end
    local written
    written, err = files.write(ctx, op, path, new, { unless_changed = old })
    if written then
      local reply = report({ { asked = args.path, path = path, old = old, new = new } })
      reply.replacements = count
      return reply
    end
    if err.code ~= "CHANGED" or try == MAX_TRIES then
      return nil, err
    end
  end
end

---The slot of a path, read when it is first named.
---@async
local function slot_of(ctx, state, asked)
  local op = "patch " .. asked
  local path, err = files.resolve(ctx, op, asked)
  if not path then
    return nil, err
  end
  local slot = state.by_path[path]
  if not slot then
    slot = { asked = asked, path = path }
    slot.old, err = read_text(ctx, op, path)
    if not slot.old and err.code ~= "ENOENT" then
      return nil, err
    end
    slot.new = slot.old
    state.by_path[path] = slot
    table.insert(state.slots, slot)
  end
  return slot
end

---Carries one change of the patch out in memory.
---@async
local function plan(ctx, state, change)
  local op = "patch " .. change.path
  local slot, err = slot_of(ctx, state, change.path)
  if not slot then
    return nil, err
  end
  if slot.move_to then
    return usage(op, "the patch has moved this file away before")
  end
  if change.kind == "add" then
    if slot.new then
      return usage(op, "the file to be added is there already")
    end
    slot.new = textpatch.apply("", change.hunks)
    return slot.new and true
  end
  if not slot.new then
    return nil, errors.new("not_found", op, "no such file", { code = "ENOENT" })
  end
  if change.kind == "delete" then
    slot.new = nil
    return true
  end
  local new, problem = textpatch.apply(slot.new, change.hunks)
  if not new then
    return usage(op, problem)
  end
  slot.new = new
  if change.move_to then
    local target
    target, err = slot_of(ctx, state, change.move_to)
    if not target then
      return nil, err
    end
    if target.new or not slot.old then
      return usage(op, change.move_to .. " is there already, or the file is new")
    end
    slot.move_to, target.taken = target, true
  end
  return true
end

---Puts back what was there, last change first. What cannot be put back is told.
---@async
local function undo(ctx, done)
  local failed = {}
  for i = #done, 1, -1 do
    local slot, op = done[i].slot, "undo"
    local ok
    if done[i].moved then
      ok = files.sh(ctx, op, MOVE, { slot.move_to.path, slot.path })
    elseif slot.old then
      ok = files.write(ctx, op, slot.path, slot.old)
    else
      ok = files.remove(ctx, op, slot.path)
    end
    if not ok then
      table.insert(failed, slot.asked)
    end
  end
  return failed
end

---Writes what was planned: first all texts, then what is moved, then what goes.
---@async
local function commit(ctx, slots, done)
  for _, slot in ipairs(slots) do
    if slot.new and slot.new ~= slot.old then
      local ok, err = files.write(ctx, "patch " .. slot.asked, slot.path, slot.new,
        { unless_changed = slot.old or false })
      if not ok then
        return nil, err
      end
      table.insert(done, { slot = slot })
    end
  end
  for _, slot in ipairs(slots) do
    if slot.move_to then
      local op = "patch " .. slot.asked
      local result, err = files.sh(ctx, op, MOVE, { slot.path, slot.move_to.path },
        { accept = { [48] = true } })
      if not result or result.exit_code == 48 then
        return nil, err or errors.new("usage", op, slot.move_to.asked .. " is there already")
      end
      table.insert(done, { slot = slot, moved = true })
    end
  end
  for _, slot in ipairs(slots) do
    if slot.old and not slot.new then
      local ok, err = files.remove(ctx, "patch " .. slot.asked, slot.path)
      if not ok then
        return nil, err
      end
      table.insert(done, { slot = slot })
    end
  end
  return true
end

---@async
local function attempt(ctx, changes)
  local state = { by_path = {}, slots = {} }
  for _, change in ipairs(changes) do
    local ok, err = plan(ctx, state, change)
    if not ok then
      return nil, err
    end
  end
  local slots = {}
  for _, slot in ipairs(state.slots) do
    if not slot.taken and (slot.old or slot.new) then
      slots[#slots + 1] = slot
    end
  end
  local done = {}
  local ok, err = commit(ctx, slots, done)
  if ok then
    return report(slots)
  end
  local failed = undo(ctx, done)
  if #failed > 0 then
    err = errors.new(err.kind, err.op, err.msg .. "; could not put back: "
      .. table.concat(failed, ", "), { cause = err })
  end
  return nil, err
end

---@async
local function apply(args, ctx)
  local changes, problem = textpatch.parse(args.patch)
  if not changes then
    return usage("patch", problem)
  end
  for try = 1, MAX_TRIES do
    local reply, err = attempt(ctx, changes)
    if reply or err.code ~= "CHANGED" or try == MAX_TRIES then
      return reply, err
    end
  end
end

---@async
local function handler(args, ctx)
  if args.mode == "patch" then
    if not args.patch or not args.patch:find("%S") then
      return usage("patch", "with mode \"patch\" the argument patch holds the text of the patch")
    end
    return apply(args, ctx)
  end
  for _, field in ipairs({ "path", "old_string", "new_string" }) do
    if not args[field] then
      return usage("patch", "with mode \"replace\" the argument " .. field .. " is needed")
    end
  end
  if args.old_string == "" then
    return usage("patch", "old_string is empty", { hint = "write_file writes a whole file" })
  elseif args.old_string == args.new_string then
    return usage("patch", "old_string and new_string are the same: nothing to change")
  end
  return replace(args, ctx)
end

return {
  name = "patch",
  summary = "Change text files in the script's environment: replace a text, or apply a patch.",
  description = [[
mode "replace": old_string, which must be in the file exactly once (replace_all: at least once), to
the byte, becomes new_string. mode "patch": patch is a V4A patch (*** Begin Patch, *** Update File:
...) or a unified diff, of any number of files; either all of it is done or, as far as the system
allows, nothing. Files with CRLF keep it.
Returns {"success": true, "diff": unified diff, "files_modified": [path], "files_created": [path],
"files_deleted": [path], "replacements": int (mode "replace" only)}. A text that is not there or
not unique is an error that says where it is, or what is nearest; a patch that does not fit names
file and hunk, and nothing was changed.]],
  parameters = {
    type = "object",
    properties = {
      path = {
        type = "string", minLength = 1, description = "the file; relative to the run's directory",
      },
      old_string = { type = "string", description = "what is there now" },
      new_string = { type = "string", description = "what shall be there" },
      replace_all = {
        type = "boolean", default = false, description = "all occurrences, not one only",
      },
      mode = {
        type = "string", enum = { "replace", "patch" }, default = "replace",
        description = "replace a text, or apply a patch",
      },
      patch = { type = "string", description = "the text of the patch (mode \"patch\")" },
    },
    additionalProperties = false,
  },
  order = { "path", "old_string", "new_string", "replace_all", "mode", "patch" },
  returns = "dict",
  idempotent = false,
  handler = handler,
}
