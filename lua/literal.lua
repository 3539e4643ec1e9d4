-- SPDX-License-Identifier: MIT
-- What may be put into the text of a program: identifiers that were checked, and the insides of
-- string literals that nothing gets out of.

local literal = {}

---Whether a text is an identifier in about every language: a letter, then letters, digits, _.
---@param name any
---@return boolean
function literal.identifier(name)
  return type(name) == "string" and #name <= 64 and name:find("^%a[%w_]*$") ~= nil
end

---The code point of the UTF-8 sequence at `at` and its length; nil when there is none.
local function code_point(text, at)
  local lead = text:byte(at)
  local length = lead >= 0xF0 and 4 or lead >= 0xE0 and 3 or 2
  if lead < 0xC2 or lead > 0xF4 or at + length - 1 > #text then
    return nil
  end
  local point = lead % (length == 2 and 0x20 or length == 3 and 0x10 or 0x08)
  for i = at + 1, at + length - 1 do
    local byte = text:byte(i)
    if byte < 0x80 or byte > 0xBF then
      return nil
    end
    point = point * 64 + byte - 0x80
  end
  local least = length == 2 and 0x80 or length == 3 and 0x800 or 0x10000
  if point < least or point > 0x10FFFF or point >= 0xD800 and point <= 0xDFFF then
    return nil
  end
  return point, length
end

---The inside of a double-quoted literal. It is printable ASCII without a bare quote: each " and \
---of the text has a backslash before it and every other byte is written as an escape, so nothing in
---it ends the literal, or the line. Bytes that are not UTF-8 become U+FFFD.
---@param text string
---@param astral fun(point: integer): string how the language writes code points over U+FFFF
---@return string
function literal.escape(text, astral)
  local out, at = {}, 1
  while at <= #text do
    local plain = text:match("^[ !#-[%]^-~]+", at)
    if plain then
      out[#out + 1] = plain
      at = at + #plain
    else
      local byte = text:byte(at)
      if byte == 0x22 or byte == 0x5C then
        out[#out + 1] = "\\" .. string.char(byte)
      elseif byte == 0x0A then
        out[#out + 1] = "\\n"
      elseif byte < 0x80 then
        out[#out + 1] = ("\\u%04x"):format(byte)
      else
        local point, length = code_point(text, at)
        if not point then
          out[#out + 1] = "\\ufffd"
        elseif point > 0xFFFF then
          out[#out + 1] = astral(point)
        else
          out[#out + 1] = ("\\u%04x"):format(point)
        end
        at = at + (length or 1) - 1
      end
      at = at + 1
    end
  end
  return table.concat(out)
end

---The inside of a double-quoted literal of Lua, whichever version: the same bytes, those that are
---no printable ASCII as \ddd.
---@param text string
---@return string
function literal.decimal(text)
  return (text:gsub('[^ !#-[%]^-~]', function(char)
    return ("\\%03d"):format(char:byte())
  end))
end

-- Line separators, and marks that turn the direction of writing: what comes after them looks like
-- something else than it is.
local UNSEEN = { [0x2028] = true, [0x2029] = true, [0xFEFF] = true }
for _, range in ipairs({ { 0x80, 0x9F }, { 0x200E, 0x200F }, { 0x202A, 0x202E },
  { 0x2066, 0x2069 } }) do
  for point = range[1], range[2] do
    UNSEEN[point] = true
  end
end

---The lines of a text as they may stand in a comment: UTF-8 without control characters and what
---else is not seen, for each of which there is a space.
---@param text string
---@param terminator? string what ends the comment, two characters: it gets a space inside
---@return string[] lines without spaces at their ends
function literal.comment(text, terminator)
  local lines = {}
  for line in (text:gsub("%s+$", "") .. "\n"):gmatch("([^\n]*)\n") do
    local out, at = {}, 1
    while at <= #line do
      local plain = line:match("^[ -~]+", at)
      local point, length
      if not plain and line:byte(at) >= 0x80 then
        point, length = code_point(line, at)
        if point and not UNSEEN[point] then
          plain = line:sub(at, at + length - 1)
        end
      end
      out[#out + 1] = plain or " "
      at = at + (plain and #plain or length or 1)
    end
    line = table.concat(out)
    if terminator then
      line = line:gsub((terminator:gsub("%p", "%%%0")), terminator:sub(1, 1) .. " "
        .. terminator:sub(2))
    end
    lines[#lines + 1] = (line:gsub("%s+$", ""))
  end
  return lines
end

return literal
