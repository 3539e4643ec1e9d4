-- SPDX-License-Identifier: MIT
-- What differs between two texts, told as a unified diff. Texts in, text out.

local textdiff = {}

local CONTEXT = 3
-- Texts that differ in more lines than this (inserted and deleted ones together) are told as one
-- block between their first and last difference.
local MAX_EDITS = 1000

---Lines with their newlines; the last one may have none.
local function split(text)
  local lines, at = {}, 1
  while at <= #text do
    local stop = text:find("\n", at, true) or #text
    lines[#lines + 1] = text:sub(at, stop)
    at = stop + 1
  end
  return lines
end

---Myers' greedy search from (low, low): the shortest list of edits, as the frontiers of each step.
local function frontiers(old, new, low, old_high, new_high)
  local rows, columns = old_high - low + 1, new_high - low + 1
  local trace, front = {}, { [1] = 0 }
  for d = 0, math.min(rows + columns, MAX_EDITS) do
    local copy = {}
    -- 0 - d and not -d, which would be -0 for the first step.
    local low_k = 0 - d
    for k = low_k, d, 2 do
      local x
      if k == low_k or (k ~= d and front[k - 1] < front[k + 1]) then
        x = front[k + 1]
      else
        x = front[k - 1] + 1
      end
      local y = x - k
      while x < rows and y < columns and old[low + x] == new[low + y] do
        x, y = x + 1, y + 1
      end
      front[k], copy[k] = x, x
      if x >= rows and y >= columns then
        trace[d] = copy
        return trace, d
      end
    end
    trace[d] = copy
  end
  return nil
end

---@return table edits in order: {old_first, old_count, new_first, new_count}
local function edits_between(old, new)
  local low, old_high, new_high = 1, #old, #new
  while low <= old_high and low <= new_high and old[low] == new[low] do
    low = low + 1
  end
  while old_high >= low and new_high >= low and old[old_high] == new[new_high] do
    old_high, new_high = old_high - 1, new_high - 1
  end
  if low > old_high and low > new_high then
    return {}
  end
  local trace, steps = frontiers(old, new, low, old_high, new_high)
  if not trace then
    return { { low, old_high - low + 1, low, new_high - low + 1 } }
  end
  -- Backwards through the frontiers; each step is one line inserted or deleted.
  local single, x, y = {}, old_high - low + 1, new_high - low + 1
  for d = steps, 1, -1 do
    local k, previous = x - y, trace[d - 1]
    local down = k == -d or (k ~= d and previous[k - 1] < previous[k + 1])
    local from_k = down and k + 1 or k - 1
    local from_x = previous[from_k]
    local from_y = from_x - from_k
    if down then
      table.insert(single, { low + from_x, 0, low + from_y, 1 })
    else
      table.insert(single, { low + from_x, 1, low + from_y, 0 })
    end
    x, y = from_x, from_y
  end
  local edits = {}
  for i = #single, 1, -1 do
    local edit, last = single[i], edits[#edits]
    if last and last[1] + last[2] == edit[1] and last[3] + last[4] == edit[3] then
      last[2], last[4] = last[2] + edit[2], last[4] + edit[4]
    else
      edits[#edits + 1] = edit
    end
  end
  return edits
end

local function put(out, mark, line)
  if line:sub(-1) == "\n" then
    out[#out + 1] = mark .. line
  else
    out[#out + 1] = mark .. line .. "\n\\ No newline at end of file\n"
  end
end

local function range(first, count)
  return count == 0 and ("%d,0"):format(first - 1) or count == 1 and tostring(first)
    or ("%d,%d"):format(first, count)
end

---One hunk of the edits from..to, with context around them.
local function hunk(out, old, new, edits, from, to)
  local first, last = edits[from], edits[to]
  local start = math.max(1, first[1] - CONTEXT)
  local stop = math.min(#old, last[1] + last[2] - 1 + CONTEXT)
  local shift = first[3] - first[1]
  local new_count = stop - start + 1
  for i = from, to do
    new_count = new_count + edits[i][4] - edits[i][2]
  end
  out[#out + 1] = ("@@ -%s +%s @@\n"):format(range(start, stop - start + 1),
    range(start + shift, new_count))
  local at = start
  for i = from, to do
    local edit = edits[i]
    for j = at, edit[1] - 1 do
      put(out, " ", old[j])
    end
    for j = edit[1], edit[1] + edit[2] - 1 do
      put(out, "-", old[j])
    end
    for j = edit[3], edit[3] + edit[4] - 1 do
      put(out, "+", new[j])
    end
    at = edit[1] + edit[2]
  end
  for j = at, stop do
    put(out, " ", old[j])
  end
end

---@param old string
---@param new string
---@param old_name string stands after ---
---@param new_name string stands after +++
---@return string diff empty when nothing differs
function textdiff.unified(old, new, old_name, new_name)
  local old_lines, new_lines = split(old), split(new)
  local edits = edits_between(old_lines, new_lines)
  if #edits == 0 then
    return ""
  end
  local out = { ("--- %s\n+++ %s\n"):format(old_name, new_name) }
  local from = 1
  for i = 1, #edits do
    local next_edit = edits[i + 1]
    if not next_edit or next_edit[1] - (edits[i][1] + edits[i][2]) > 2 * CONTEXT then
      hunk(out, old_lines, new_lines, edits, from, i)
      from = i + 1
    end
  end
  return table.concat(out)
end

return textdiff
