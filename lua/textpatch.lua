-- SPDX-License-Identifier: MIT
-- Patches as texts: reads V4A and unified diffs, and applies their hunks to the text of a file.
-- It knows nothing of files; whoever calls it reads and writes.

local textpatch = {}

---@class farcall.textpatch.Hunk
---@field items {mark: " "|"-"|"+", text: string}[]
---@field line? integer where the old side should be (unified diff)
---@field anchors? string[] lines that stand before it (V4A)
---@field at_end? boolean it is the last of the file
---@field old_bare? boolean the old text ends without a newline, says the diff
---@field new_bare? boolean the new one does

---@class farcall.textpatch.Change
---@field kind "update"|"add"|"delete"
---@field path string
---@field move_to? string
---@field hunks farcall.textpatch.Hunk[]

local function lines_of(text)
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

local function chomp(line)
  return (line:gsub("\r$", ""))
end

---The lines of a V4A hunk from index i on, up to the next directive.
local function v4a_hunk(lines, i)
  local hunk = { items = {}, anchors = {} }
  while lines[i] and chomp(lines[i]):find("^@@") do
    local anchor = chomp(lines[i]):match("^@@%s?(.-)%s*$"):gsub("%s*@@$", "")
    if anchor ~= "" and not anchor:find("^%-%d+[,%d]* %+%d+") then
      table.insert(hunk.anchors, anchor)
    end
    i = i + 1
  end
  while lines[i] and not lines[i]:find("^@@") and not lines[i]:find("^%*%*%* ") do
    local mark, text = lines[i]:sub(1, 1), chomp(lines[i]:sub(2))
    if mark == "" or mark == "\r" then
      mark, text = " ", ""
    end
    if mark ~= " " and mark ~= "-" and mark ~= "+" then
      return nil, ("line %d of the patch begins with none of space, -, +"):format(i)
    end
    table.insert(hunk.items, { mark = mark, text = text })
    i = i + 1
  end
  if lines[i] and lines[i]:find("^%*%*%* End of File") then
    hunk.at_end = true
    i = i + 1
  end
  return hunk, i
end

local function v4a_update(lines, i, change)
  local target = lines[i] and chomp(lines[i]):match("^%*%*%* Move to: (.+)$")
  if target then
    change.move_to = target
    i = i + 1
  end
  while lines[i] and not lines[i]:find("^%*%*%* ") do
    local hunk, next_or_problem = v4a_hunk(lines, i)
    if not hunk then
      return nil, next_or_problem
    end
    if #hunk.items > 0 then
      table.insert(change.hunks, hunk)
    end
    i = next_or_problem
  end
  return i
end

local function v4a_add(lines, i, change)
  local hunk = { items = {} }
  while lines[i] and not lines[i]:find("^%*%*%* ") do
    if lines[i]:sub(1, 1) ~= "+" then
      return nil, ("line %d of the patch: lines of a new file begin with +"):format(i)
    end
    table.insert(hunk.items, { mark = "+", text = chomp(lines[i]:sub(2)) })
    i = i + 1
  end
  change.hunks = { hunk }
  return i
end

local KINDS = { Update = "update", Add = "add", Delete = "delete" }

local function parse_v4a(lines)
  local changes, i = {}, 1
  while lines[i] do
    local line = chomp(lines[i])
    local word, path = line:match("^%*%*%* (%a+) File: (.+)$")
    local kind = KINDS[word]
    i = i + 1
    if kind then
      local change = { kind = kind, path = path, hunks = {} }
      local problem
      if kind == "update" then
        i, problem = v4a_update(lines, i, change)
      elseif kind == "add" then
        i, problem = v4a_add(lines, i, change)
      end
      if not i then
        return nil, problem
      end
      changes[#changes + 1] = change
    elseif line:find("^%*%*%* End Patch") then
      break
    elseif line ~= "" and not line:find("^%*%*%* Begin Patch") then
      return nil, ("line %d of the patch belongs to no file"):format(i - 1)
    end
  end
  return changes
end

local function diff_name(line)
  return (chomp(line):gsub("^[-+]+ ", ""):gsub("\t.*$", ""))
end

local HUNK_HEADER = "^@@ %-(%d+),?(%d*) %+(%d+),?(%d*) @@"

---The body of a unified hunk. The header's counts say how far it goes; where they are wrong, as in
---diffs written by hand, the lines themselves do.
local function unified_hunk(lines, i)
  local first, old_left, _, new_left = lines[i]:match(HUNK_HEADER)
  local hunk = { items = {}, line = tonumber(first) }
  old_left = first and (tonumber(old_left) or 1) or 0
  new_left = first and (tonumber(new_left) or 1) or 0
  i = i + 1
  while lines[i] do
    local line = lines[i]
    local mark, text = line:sub(1, 1), line:sub(2)
    local pending = old_left > 0 or new_left > 0
    if mark == "\\" then
      local last = hunk.items[#hunk.items]
      if last and last.mark ~= "+" then
        hunk.old_bare = true
      end
      if last and last.mark ~= "-" then
        hunk.new_bare = true
      end
    elseif not pending and line:find("^%-%-%- ") and (lines[i + 1] or ""):find("^%+%+%+ ") then
      break
    elseif chomp(line) == "" and (pending or (lines[i + 1] or ""):find("^[-+ ]")) then
      table.insert(hunk.items, { mark = " ", text = "" })
      old_left, new_left = old_left - 1, new_left - 1
    elseif mark == " " or mark == "-" or mark == "+" then
      table.insert(hunk.items, { mark = mark, text = chomp(text) })
      old_left = mark ~= "+" and old_left - 1 or old_left
      new_left = mark ~= "-" and new_left - 1 or new_left
    else
      break
    end
    i = i + 1
  end
  return hunk, i
end

local function unified_change(old_name, new_name)
  if old_name:find("^a/") and (new_name:find("^b/") or new_name == "/dev/null")
    or old_name == "/dev/null" and new_name:find("^b/") then
    old_name, new_name = old_name:gsub("^a/", ""), new_name:gsub("^b/", "")
  end
  local change = { kind = "update", path = old_name, hunks = {} }
  if old_name == "/dev/null" then
    change.kind, change.path = "add", new_name
  elseif new_name == "/dev/null" then
    change.kind = "delete"
  elseif new_name ~= old_name then
    change.move_to = new_name
  end
  return change
end

local function parse_unified(lines)
  local changes, current, i, renamed = {}, nil, 1, nil
  while lines[i] do
    local line = lines[i]
    if line:find("^%-%-%- ") and (lines[i + 1] or ""):find("^%+%+%+ ") then
      current = unified_change(diff_name(line), diff_name(lines[i + 1]))
      table.insert(changes, current)
      renamed = nil
      i = i + 2
    elseif line:find("^@@") then
      if not current then
        return nil, ("line %d of the patch: a hunk before any --- and +++"):format(i)
      end
      local hunk
      hunk, i = unified_hunk(lines, i)
      if #hunk.items == 0 then
        return nil, ("line %d of the patch: a hunk without lines"):format(i - 1)
      end
      table.insert(current.hunks, hunk)
    else
      renamed = chomp(line):match("^rename from (.+)$") or renamed
      local target = chomp(line):match("^rename to (.+)$")
      if target and renamed and not (lines[i + 1] or ""):find("^index ")
        and not (lines[i + 1] or ""):find("^%-%-%- ") then
        table.insert(changes, { kind = "update", path = renamed, move_to = target, hunks = {} })
      end
      i = i + 1
    end
  end
  return changes
end

---Reads a patch. Paths are as they stand there; a pair of a/ and b/ is taken off.
---@param text string
---@return farcall.textpatch.Change[]? changes at least one
---@return string? problem
---@nodiscard
function textpatch.parse(text)
  local lines = lines_of(text)
  local changes, problem
  if text:find("^%s*%*%*%* ") or text:find("\n%*%*%* %a+ File: ") then
    while lines[1] and lines[1]:find("^%s*$") do
      table.remove(lines, 1)
    end
    changes, problem = parse_v4a(lines)
  else
    changes, problem = parse_unified(lines)
  end
  if changes and #changes == 0 then
    return nil, "the patch names no file: neither a V4A patch nor a unified diff"
  end
  return changes, problem
end

local function rtrim(line)
  return (line:gsub("%s+$", ""))
end

local function trim(line)
  return (line:gsub("^%s+", ""):gsub("%s+$", ""))
end

-- How alike lines must be for a hunk to fit: first to the byte, then but for white space.
local LIKENESS = { chomp, rtrim, trim }

local function fits(lines, wanted, at, like)
  for i = 1, #wanted do
    local line = lines[at + i - 1]
    if not line or like(line) ~= like(wanted[i]) then
      return false
    end
  end
  return true
end

---Where the old side of a hunk is, at or after index `from`: the place nearest to the one it names.
local function locate(lines, wanted, from, hint, at_end)
  for _, like in ipairs(LIKENESS) do
    local last = #lines - #wanted + 1
    if at_end and last >= from and fits(lines, wanted, last, like) then
      return last
    end
    local best
    for at = from, last do
      if fits(lines, wanted, at, like) then
        if not hint then
          return at
        end
        if not best or math.abs(at - hint) < math.abs(best - hint) then
          best = at
        end
      end
    end
    if best then
      return best
    end
  end
  return nil
end

local function find_anchor(lines, anchor, from)
  for _, like in ipairs(LIKENESS) do
    for at = from, #lines do
      if like(lines[at]) == like(anchor) then
        return at
      end
    end
  end
  for at = from, #lines do
    if lines[at]:find(anchor, 1, true) then
      return at
    end
  end
  return nil
end

---@return integer? at index of its first old line
---@return string|integer problem or, for an insertion, nothing
local function place(lines, hunk, cursor, drift)
  local wanted, from, anchored = {}, cursor, false
  for _, item in ipairs(hunk.items) do
    if item.mark ~= "+" then
      wanted[#wanted + 1] = item.text
    end
  end
  for _, anchor in ipairs(hunk.anchors or {}) do
    local at = find_anchor(lines, anchor, from)
    if not at then
      return nil, ("no line like %q"):format(anchor)
    end
    from, anchored = at, true
  end
  if #wanted == 0 then
    if anchored then
      return from + 1
    elseif hunk.line then
      return math.max(cursor, math.min(#lines + 1, hunk.line + 1 + drift))
    end
    return #lines + 1
  end
  local at = locate(lines, wanted, from, hunk.line and hunk.line + drift, hunk.at_end)
  if not at then
    local first = wanted[1]
    for _, line in ipairs(wanted) do
      if line:find("%S") then
        first = line
        break
      end
    end
    return nil, ("its old lines, from %q on, are not there"):format(first)
  end
  return at
end

---Applies the hunks of a change, in order.
---@param text string
---@param hunks farcall.textpatch.Hunk[]
---@return string? text
---@return string? problem "hunk 2: ..."
---@nodiscard
function textpatch.apply(text, hunks)
  local lines = text == "" and {} or lines_of(text)
  local bare = text ~= "" and text:sub(-1) ~= "\n"
  local crlf = text:find("\r\n", 1, true) and not text:find("[^\r]\n") and "\r" or ""
  local out, cursor, drift = {}, 1, 0
  for number, hunk in ipairs(hunks) do
    local at, problem = place(lines, hunk, cursor, drift)
    if not at then
      return nil, ("hunk %d: %s"):format(number, problem)
    end
    if hunk.line then
      drift = at - hunk.line
    end
    for i = cursor, at - 1 do
      out[#out + 1] = lines[i]
    end
    for _, item in ipairs(hunk.items) do
      if item.mark == " " then
        out[#out + 1] = lines[at]
        at = at + 1
      elseif item.mark == "-" then
        at = at + 1
      else
        out[#out + 1] = item.text .. crlf
      end
    end
    cursor = at
    if hunk.new_bare then
      bare = true
    elseif hunk.old_bare then
      bare = false
    end
  end
  for i = cursor, #lines do
    out[#out + 1] = lines[i]
  end
  if #out == 0 then
    return ""
  end
  return table.concat(out, "\n") .. (bare and "" or "\n")
end

local function line_number(text, at)
  local _, newlines = text:sub(1, at - 1):gsub("\n", "")
  return newlines + 1
end

-- Of two lines, how many pairs of neighbouring bytes they share: 0 to 1.
local function likeness(a, b)
  if #a < 2 or #b < 2 then
    return a == b and 1 or 0
  end
  local pairs_of, shared = {}, 0
  for i = 1, #a - 1 do
    local pair = a:sub(i, i + 1)
    pairs_of[pair] = (pairs_of[pair] or 0) + 1
  end
  for i = 1, #b - 1 do
    local pair = b:sub(i, i + 1)
    if (pairs_of[pair] or 0) > 0 then
      pairs_of[pair] = pairs_of[pair] - 1
      shared = shared + 1
    end
  end
  return 2 * shared / (#a + #b - 2)
end

-- Lines and bytes of a line that are looked at for a hint: it must not hold the engine's loop.
local HINT_LINES, HINT_BYTES = 2000, 200

local function nearest(text, wanted)
  local first
  for line in (wanted .. "\n"):gmatch("([^\n]*)\n") do
    if line:find("%S") then
      first = trim(line):sub(1, HINT_BYTES)
      break
    end
  end
  if not first then
    return ""
  end
  local number, best, best_number, best_line = 0, 0.5, nil, nil
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local like = trim(line) == first and 1
      or number <= HINT_LINES and likeness(first, trim(line:sub(1, HINT_BYTES))) or 0
    if like > best then
      best, best_number, best_line = like, number, line
    end
  end
  if not best_number then
    return ""
  end
  local shown = trim(best_line:sub(1, HINT_BYTES))
  if best == 1 then
    return ("; its first line is like line %d, the rest or the white space differs")
      :format(best_number)
  end
  return ("; the nearest is line %d: %s"):format(best_number, shown)
end

---Replaces an exact text, which must be there once unless all are wanted. A text with LF fits a
---file with CRLF; the file keeps its line ends.
---@param text string
---@param old string not empty
---@param new string
---@param all boolean
---@return string? text
---@return string|integer problem_or_count
---@nodiscard
function textpatch.replace(text, old, new, all)
  if not text:find(old, 1, true) and old:find("\n", 1, true) and not old:find("\r", 1, true)
    and text:find("\r\n", 1, true) then
    old, new = old:gsub("\n", "\r\n"), new:gsub("\r?\n", "\r\n")
  end
  local out, places, at = {}, {}, 1
  while true do
    local first, last = text:find(old, at, true)
    if not first then
      break
    end
    places[#places + 1] = first
    out[#out + 1] = text:sub(at, first - 1)
    at = last + 1
  end
  if #places == 0 then
    return nil, "old_string is not in the file" .. nearest(text, old)
  end
  if #places > 1 and not all then
    local numbers = {}
    for i = 1, math.min(#places, 10) do
      numbers[i] = tostring(line_number(text, places[i]))
    end
    local more = #places > 10 and ", ..." or ""
    return nil, ("old_string occurs %d times (lines %s%s); give more of what is around it, or "
      .. "replace_all"):format(#places, table.concat(numbers, ", "), more)
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out, new), #places
end

return textpatch
