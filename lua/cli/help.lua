-- SPDX-License-Identifier: MIT
-- Lays out the texts of the help for a terminal of ordinary width.

local help = {}

help.WIDTH = 79

-- Examples are indented, headings end with a colon: both keep their lines.
local function begins_paragraph(line, before)
  return line:find("^%s") or line == "" or before == "" or before:find("^%s") or before:find(":$")
end

local function wrapped(paragraph, width)
  local lines, line = {}, ""
  for word in paragraph:gmatch("%S+") do
    if line ~= "" and #line + 1 + #word > width then
      lines[#lines + 1] = line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

---Fills paragraphs to the width; indented lines stay as they are.
---@param text string
---@return string
function help.flow(text)
  local parts = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    local before = parts[#parts]
    if before == nil or begins_paragraph(line, before) then
      parts[#parts + 1] = line
    else
      parts[#parts] = before .. " " .. line
    end
  end
  for i, part in ipairs(parts) do
    parts[i] = part:find("^%s") and part or wrapped(part, help.WIDTH)
  end
  return table.concat(parts, "\n")
end

return help
