-- SPDX-License-Identifier: MIT
-- "Did you mean ...?" for anything with a name.

local suggest = {}

-- Longer words are no slip of the fingers, and need not be compared.
local MAX_LENGTH = 64

-- Letters that differ in case only, and - and _, are the same.
local function folded(word)
  return (word:lower():gsub("-", "_"))
end

---How many letters must be put in, left out, changed or swapped to make one word of another.
---@param a string
---@param b string
---@return integer
function suggest.distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local above = row
    row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local cost = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        cost = math.min(cost, before[j - 2] + 1)
      end
      row[j] = cost
    end
    before = above
  end
  return row[#b]
end

---The candidate that the word was probably meant to be: at most a third of it is different, or
---it is how one candidate begins.
---@param word string
---@param candidates string[]
---@return string?
function suggest.nearest(word, candidates)
  if type(word) ~= "string" or #word == 0 or #word > MAX_LENGTH then
    return nil
  end
  local wanted = folded(word)
  local best, best_distance
  local begun, beginners = nil, 0
  for _, candidate in ipairs(candidates) do
    local name = folded(candidate)
    if math.abs(#name - #wanted) <= 1 + #wanted / 3 and #name <= MAX_LENGTH then
      local distance = suggest.distance(wanted, name)
      if
        distance <= math.max(1, math.floor(#wanted / 3))
        and distance < math.max(#wanted, #name)
        and (not best or distance < best_distance
          or distance == best_distance and candidate < best)
      then
        best, best_distance = candidate, distance
      end
    end
    if #wanted >= 3 and name:sub(1, #wanted) == wanted then
      begun, beginners = candidate, beginners + 1
    end
  end
  return best or (beginners == 1 and begun or nil)
end

return suggest
