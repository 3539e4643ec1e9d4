-- SPDX-License-Identifier: MIT
-- Words for a POSIX shell. The only place where a command line is put together from data.

local quoting = {}

---One word that a POSIX shell reads back as exactly these bytes. A word cannot hold NUL: it raises.
---@param word string
---@return string
function quoting.sh(word)
  if word:find("\0", 1, true) then
    error("a word of a shell command cannot hold a NUL byte", 2)
  end
  if word:find("^[%w_%-./:=@%%+,]+$") and word:sub(1, 1) ~= "=" then
    return word
  end
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

---A command line from a list of words.
---@param argv string[]
---@return string
function quoting.command(argv)
  local words = {}
  for i, word in ipairs(argv) do
    words[i] = quoting.sh(word)
  end
  return table.concat(words, " ")
end

---A command line in ASCII that becomes the program argv, whatever bytes its words are made of: for
---where nothing but UTF-8 gets through. It needs sh with printf.
---@param argv string[]
---@return string
function quoting.ascii(argv)
  local lines = { "set --" }
  for _, word in ipairs(argv) do
    if word:find("[\128-\255]") then
      if word:find("\0", 1, true) then
        error("a word of a shell command cannot hold a NUL byte", 2)
      end
      local octal = word:gsub("[^%w ]", function(char)
        return ("\\%03o"):format(char:byte())
      end)
      -- $() drops newlines at the end, so something else stands there.
      lines[#lines + 1] = ("x=$(printf '%s_'); set -- \"$@\" \"${x%%_}\""):format(octal)
    else
      lines[#lines + 1] = "set -- \"$@\" " .. quoting.sh(word)
    end
  end
  lines[#lines + 1] = "exec \"$@\""
  return table.concat(lines, "; ")
end

return quoting
