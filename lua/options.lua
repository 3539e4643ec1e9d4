-- SPDX-License-Identifier: MIT
-- Tables of options that a backend or a policy declares: checked, converted and completed.

local errors = require("farcall.errors")
local suggest = require("farcall.suggest")

local options = {}

local FIELDS = {
  type = true, required = true, default = true, secret = true, one_of = true, doc = true,
}

local BOOLEANS = {
  ["true"] = true, yes = true, on = true, ["1"] = true,
  ["false"] = false, no = false, off = false, ["0"] = false,
}

local SIZES = { [""] = 1, k = 2 ^ 10, m = 2 ^ 20, g = 2 ^ 30, t = 2 ^ 40 }
local SECONDS = { [""] = 1, ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

local function is_finite(value)
  return type(value) == "number" and value == value and math.abs(value) ~= math.huge
end

---A number from text as people write it. Octal needs 0o: is 022 meant to be 22 or 18?
local function to_number(text)
  local sign, octal = text:match("^([+-]?)0[oO]([0-7]+)$")
  if octal then
    return tonumber(sign .. "1") * tonumber(octal, 8)
  end
  if text:find("^[+-]?0%d") then
    return nil, "a number without leading zeros (0o for octal)"
  end
  local number = text:find("^[+-]?[%d.]") and tonumber(text)
  return is_finite(number) and number or nil
end

local function number(value)
  if type(value) == "string" then
    return to_number(value)
  end
  return is_finite(value) and value or nil
end

---A number with a unit behind it, in whole or in parts.
local function measure(value, units, ending)
  if type(value) == "string" then
    local digits, unit = value:lower():match("^%s*([%d.]+)%s*(%a*)%s*$")
    local factor = units[unit] or units[(unit or ""):gsub(ending, "")]
    value = digits and factor and tonumber(digits) and tonumber(digits) * factor
  end
  return is_finite(value) and value >= 0 and value or nil
end

local function is_sequence(value)
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  return count == #value
end

local function split(text)
  local parts = {}
  for part in (text .. ","):gmatch("%s*(.-)%s*,") do
    if part ~= "" then
      parts[#parts + 1] = part
    end
  end
  return parts
end

local function list(value)
  if type(value) == "string" then
    return split(value)
  end
  return type(value) == "table" and is_sequence(value) and value or nil
end

local function map(value)
  if type(value) == "string" then
    local pairs_of = {}
    for _, part in ipairs(split(value)) do
      local key, item = part:match("^(.-)=(.*)$")
      if not key or key == "" then
        return nil
      end
      pairs_of[key] = item
    end
    return pairs_of
  end
  for key in pairs(type(value) == "table" and value or {}) do
    if type(key) ~= "string" then
      return nil
    end
  end
  return type(value) == "table" and value or nil
end

-- What each type takes and what it is called. A conversion returns nil for what it cannot take, and
-- may say better what it wants.
local TYPES = {
  string = { "a text", function(value)
    return type(value) == "string" and value or nil
  end },
  path = { "a path", function(value)
    return type(value) == "string" and value ~= "" and not value:find("\0", 1, true) and value
      or nil
  end },
  number = { "a number", number },
  integer = { "a whole number", function(value)
    local result, wanted = number(value)
    return result and result % 1 == 0 and result or nil, wanted
  end },
  boolean = { "true or false", function(value)
    if type(value) == "string" then
      return BOOLEANS[value:lower()]
    end
    if type(value) == "boolean" then
      return value
    end
    return nil
  end },
  size = { "a size such as 512m or 1g, or a number of bytes", function(value)
    local bytes = measure(value, SIZES, "i?b$")
    return bytes and math.floor(bytes)
  end },
  seconds = { "a time such as 500ms, 30s or 2m, or a number of seconds", function(value)
    return measure(value, SECONDS, "^$")
  end },
  list = { "a list", list },
  map = { "a table of names and values", map },
  ["function"] = { "a function", function(value)
    return type(value) == "function" and value or nil
  end },
}

local function names_of(map_of)
  local names = {}
  for name in pairs(map_of) do
    if type(name) == "string" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function did_you_mean(word, names)
  local near = suggest.nearest(word, names)
  return near and ("did you mean %s?"):format(near) or nil
end

-- A value as a message shows it; never a secret.
local function shown(value, declaration)
  if declaration.secret then
    return "what was given"
  elseif type(value) == "string" then
    return ("%q"):format(#value > 60 and value:sub(1, 60) .. "..." or value)
  elseif type(value) == "number" or type(value) == "boolean" then
    return tostring(value)
  end
  return "a " .. type(value)
end

local function copied(value)
  if type(value) ~= "table" then
    return value
  end
  local copy = {}
  for key, item in pairs(value) do
    copy[key] = copied(item)
  end
  return setmetatable(copy, getmetatable(value))
end

-- What is wrong with a declaration itself, and a hint.
local function misdeclared(name, declaration)
  if type(declaration) ~= "table" then
    return "is not declared with a table"
  end
  for field in pairs(declaration) do
    if not FIELDS[field] then
      return ("is declared with the unknown field %s"):format(tostring(field)),
        did_you_mean(field, names_of(FIELDS))
    end
  end
  if not TYPES[declaration.type] then
    return ("is declared with the unknown type %s"):format(tostring(declaration.type)),
      did_you_mean(declaration.type, names_of(TYPES))
  end
  return type(name) ~= "string" and "is not declared with a name" or nil
end

---@return any? value
---@return string? problem
---@return string? hint
local function converted(value, declaration)
  local kind = TYPES[declaration.type]
  local result, wanted = kind[2](value)
  if result == nil then
    return nil, ("must be %s, not %s"):format(wanted or kind[1], shown(value, declaration))
  end
  local choices = declaration.one_of
  if not choices then
    return result
  end
  local words = {}
  for i, choice in ipairs(choices) do
    if choice == result then
      return result
    end
    words[i] = tostring(choice)
  end
  if declaration.secret then
    return nil, "is none of the values that it may have"
  end
  return nil, ("must be one of %s, not %s"):format(table.concat(words, ", "),
    shown(value, declaration)), did_you_mean(result, words)
end

---Checks values against their declarations. Texts, as the command line gives them, become numbers,
---sizes, times, lists ("a,b") and maps ("A=1,B=2") where such are declared.
---@param declarations? table<string, farcall.OptionDecl>
---@param values? table<string, any> not changed
---@param where string whose options these are ("backend box")
---@return table<string, any>? values a new table, with the defaults
---@return farcall.Error? err of kind "config"
---@nodiscard
function options.check(declarations, values, where)
  declarations = declarations or {}
  local names, result = names_of(declarations), {}
  local function refuse(name, problem, hint)
    return nil, errors.new("config", where, ("option %s %s"):format(tostring(name), problem),
      { hint = hint })
  end
  for name, declaration in pairs(declarations) do
    local problem, hint = misdeclared(name, declaration)
    if problem then
      return refuse(name, problem, hint)
    end
  end
  for _, name in ipairs(names_of(values or {})) do
    if not declarations[name] then
      return nil, errors.new("config", where, "there is no option " .. name, {
        hint = did_you_mean(name, names)
          or (#names > 0 and "there are: " .. table.concat(names, ", ") or "it has none"),
      })
    end
  end
  for key in pairs(values or {}) do
    if type(key) ~= "string" then
      return refuse(key, "has no name: options are written name = value")
    end
  end
  for _, name in ipairs(names) do
    local declaration, value = declarations[name], values and values[name]
    if value == nil then
      value = declaration.default
    end
    if value == nil and declaration.required then
      return refuse(name, "is missing", declaration.doc)
    elseif value ~= nil then
      local problem, hint
      value, problem, hint = converted(value, declaration)
      if problem then
        return refuse(name, problem, hint)
      end
      result[name] = copied(value)
    end
  end
  return result
end

return options
