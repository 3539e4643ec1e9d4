-- SPDX-License-Identifier: MIT
-- JSON values as Lua holds them: what they are, how they are compared, copied and shown in
-- messages. Part of farcall.schema.

local json = require("farcall.core.json")

local schema_value = {}

-- The marks that the codec puts on arrays and on empty objects.
local ARRAY = getmetatable(json.array({}))
local OBJECT = getmetatable(json.object({}))
schema_value.ARRAY, schema_value.OBJECT = ARRAY, OBJECT

-- Compile errors travel as tables, which the outermost compile turns into nil, message.
function schema_value.refuse(where, reason)
  error({ where = where, reason = reason }, 0)
end

function schema_value.expect(condition, where, wanted)
  if not condition then
    schema_value.refuse(where, "must be " .. wanted)
  end
end

function schema_value.is_list(value)
  return type(value) == "table" and getmetatable(value) ~= OBJECT and #value > 0
end

function schema_value.is_object(value)
  if type(value) ~= "table" then
    return false
  end
  local mark = getmetatable(value)
  return mark == OBJECT or mark ~= ARRAY and rawget(value, 1) == nil
end

-- An empty table that nobody marked is as good as an array.
function schema_value.is_array(value)
  if type(value) ~= "table" then
    return false
  end
  local mark = getmetatable(value)
  return mark == ARRAY or mark ~= OBJECT and (rawget(value, 1) ~= nil or next(value) == nil)
end

-- Of a string, a message shows so many bytes.
local SHOWN_BYTES = 60

local LARGEST = "9007199254740992"

---Whether this is an integer that no number of Lua's can hold, and therefore a string.
---@return boolean
function schema_value.big_integer(value)
  if type(value) ~= "string" or #value < #LARGEST then
    return false
  end
  local digits = value:match("^%-?([1-9]%d*)$")
  return digits ~= nil and (#digits > #LARGEST or #digits == #LARGEST and digits > LARGEST)
end

---@return boolean
function schema_value.equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, item in pairs(a) do
    if not schema_value.equal(item, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return next(a) ~= nil or json.is_array(a) == json.is_array(b)
end

---@generic T
---@param value T
---@return T
function schema_value.copied(value)
  if type(value) ~= "table" then
    return value
  end
  local copy = {}
  for key, item in pairs(value) do
    copy[key] = schema_value.copied(item)
  end
  return setmetatable(copy, getmetatable(value))
end

-- Cut between characters; what would disturb a line or a terminal becomes a question mark.
local function quoted(text)
  local cut = text
  if #text > SHOWN_BYTES then
    local stop = SHOWN_BYTES
    while stop > 0 and text:byte(stop + 1) >= 0x80 and text:byte(stop + 1) < 0xC0 do
      stop = stop - 1
    end
    cut = text:sub(1, stop) .. "..."
  end
  return '"' .. cut:gsub("[%c]", "?"):gsub('"', "'") .. '"'
end

---A value in a message that says by itself what kind of value this is.
---@return string
function schema_value.named(value)
  return (schema_value.shown(value):gsub("^the %a+ ", ""))
end

---@return string[] sorted
function schema_value.names(map)
  local names = {}
  for name in pairs(map) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

---A value as a message shows it: "the string \"ten\"".
---@return string
function schema_value.shown(value)
  local kind = type(value)
  if kind == "string" then
    return "the string " .. quoted(value)
  elseif kind == "number" then
    return "the number " .. (json.encode(value) or tostring(value))
  elseif kind == "boolean" then
    return tostring(value)
  elseif value == nil or value == json.null then
    return value == nil and "nothing" or "null"
  elseif kind == "table" then
    return json.is_array(value) and "an array" or "an object"
  end
  return "a " .. kind
end

return schema_value
