-- SPDX-License-Identifier: MIT
-- Python statements out of lines as they are typed or piped: when one is complete. What is wrong is
-- complete too: Python says what is wrong with it.

local statements = {}

---@class farcall.cli.Statements
---@field private lines string[] of the statement that is not complete yet
local Statements = {}
Statements.__index = Statements

local COMPOUND, GOES_ON = {}, {}
for word in ("if for while def class with try async"):gmatch("%a+") do
  COMPOUND[word] = true
end
for word in ("else elif except finally"):gmatch("%a+") do
  GOES_ON[word] = true
end

---@return farcall.cli.Statements
function statements.new()
  return setmetatable({ lines = {} }, Statements)
end

-- Where the string that begins at `from` ends; nil when it goes on behind the text.
local function string_end(text, from)
  local quote = text:sub(from, from)
  local long = text:sub(from, from + 2) == quote:rep(3)
  local at = from + (long and 3 or 1)
  while at <= #text do
    local char = text:sub(at, at)
    if char == "\\" then
      at = at + 1
    elseif long and text:sub(at, at + 2) == quote:rep(3) then
      return at + 2
    elseif not long and (char == quote or char == "\n") then
      return at
    end
    at = at + 1
  end
  return nil
end

---Whether the text ends inside of brackets, a string or a continued line; and its last character
---that means something.
---@return boolean open
---@return string last
local function scan(text)
  local depth, at, last = 0, 1, ""
  while true do
    local from = text:find("[^%s]", at)
    if not from then
      return depth > 0, last
    end
    local char = text:sub(from, from)
    at = from + 1
    if char == "#" then
      at = text:find("\n", from, true) or #text + 1
    elseif char == "\\" and from == #text then
      return true, char
    else
      last = char
      if char == '"' or char == "'" then
        local to = string_end(text, from)
        if not to then
          return true, last
        end
        at = to + 1
      elseif char:find("[%(%[{]") then
        depth = depth + 1
      elseif char:find("[%)%]}]") then
        depth = depth - 1
        if depth < 0 then
          return false, last
        end
      end
    end
  end
end

local function is_compound(first, last)
  return COMPOUND[first:match("^%a+") or ""] or first:sub(1, 1) == "@" or last == ":"
end

local function take(self)
  local text = table.concat(self.lines, "\n")
  self.lines = {}
  return text:find("%S") and text .. "\n" or nil
end

-- Whether a line begins a new statement behind a compound one.
local function begins(self, line)
  local before = self.lines[#self.lines]
  return #self.lines > 0 and line:find("^[^%s#]") and not GOES_ON[line:match("^%a+") or ""]
    and not before:find("^@") and not scan(table.concat(self.lines, "\n"))
    and (#self.lines > 1 or not before:find(":%s*$"))
end

---Takes one line.
---@param line string without its end
---@param blank_ends boolean an empty line ends a compound statement, as it does when one types
---@return string[] complete the statements that are complete now
function Statements:feed(line, blank_ends)
  local complete = {}
  if begins(self, line) then
    complete[1] = take(self)
  end
  self.lines[#self.lines + 1] = line
  local text = table.concat(self.lines, "\n")
  local open, last = scan(text)
  if not open then
    local first = self.lines[1]
    local blank = not line:find("%S")
    if not is_compound(first, last) or blank and blank_ends then
      complete[#complete + 1] = take(self)
    end
  end
  return complete
end

---@return string? rest what has come of the last statement
function Statements:finish()
  return take(self)
end

---True in the middle of a statement.
function Statements:pending()
  return #self.lines > 0
end

---Forgets the statement that is not complete.
function Statements:reset()
  self.lines = {}
end

return statements
