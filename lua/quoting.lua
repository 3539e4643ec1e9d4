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

return quoting
