-- SPDX-License-Identifier: MIT
-- Checks of values that scripts and operators write: JSON Schema (a subset of draft 2020-12) turned
-- into closures, and option tables. What a schema says and this module does not know is an error
-- when it is compiled, never a rule that is silently not kept.

local json = require("farcall.core.json")
local options = require("farcall.options")
local schema_value = require("farcall.schema_value")
local suggest = require("farcall.suggest")

local schema = {}

---Checks values against declared options; see farcall.options.
schema.options = options.check

---The candidate that a word was probably meant to be; see farcall.suggest.
schema.suggest = suggest.nearest

local ARRAY, OBJECT = schema_value.ARRAY, schema_value.OBJECT
local big_integer, equal, shown = schema_value.big_integer, schema_value.equal, schema_value.shown
local getmetatable, pairs, rawget, setmetatable, type =
  getmetatable, pairs, rawget, setmetatable, type

-- A check takes a value and returns the value as it shall be used; or nil, the place inside the
-- value (".key[0]"), and what is wrong there. Places are put together only when something is wrong.
---@alias farcall.schema.Check fun(value: any): any, string?, string?

-- Of one keyword: compiles it to a check that leaves other types alone, or raises a `reason`.
local keywords = {}

local ANNOTATIONS = {}
for word in
  ([[title description examples default format deprecated readOnly writeOnly $schema $id $comment
     contentMediaType contentEncoding]]):gmatch("%S+")
do
  ANNOTATIONS[word] = true
end

-- Words of the standard that are not kept here, which a schema therefore must not say.
local UNSUPPORTED = {}
for word in
  ([[pattern patternProperties propertyNames $ref $defs $anchor $dynamicRef definitions if then else
     dependentRequired dependentSchemas contains minContains maxContains uniqueItems
     unevaluatedProperties unevaluatedItems]]):gmatch("%S+")
do
  UNSUPPORTED[word] = true
end

-- Compile errors travel as tables, which the outermost compile turns into nil, message.
local function refuse(where, reason)
  error({ where = where, reason = reason }, 0)
end

local function expect(condition, where, wanted)
  if not condition then
    refuse(where, "must be " .. wanted)
  end
end

local function is_list(value)
  return type(value) == "table" and getmetatable(value) ~= OBJECT and #value > 0
end

local function is_object(value)
  if type(value) ~= "table" then
    return false
  end
  local mark = getmetatable(value)
  return mark == OBJECT or mark ~= ARRAY and rawget(value, 1) == nil
end

-- An empty table that nobody marked is as good as an array.
local function is_array(value)
  if type(value) ~= "table" then
    return false
  end
  local mark = getmetatable(value)
  return mark == ARRAY or mark ~= OBJECT and (rawget(value, 1) ~= nil or next(value) == nil)
end

local TYPES = {
  null = { "null", function(value)
    return value == json.null
  end },
  boolean = { "a boolean", function(value)
    return type(value) == "boolean"
  end },
  string = { "a string", function(value)
    return type(value) == "string"
  end },
  number = { "a number", function(value)
    return type(value) == "number" or big_integer(value)
  end },
  integer = { "an integer", function(value)
    return type(value) == "number" and value % 1 == 0 or big_integer(value)
  end },
  array = { "an array", is_array },
  object = { "an object", is_object },
}

local function type_of(name, where)
  local kind = type(name) == "string" and TYPES[name]
  if not kind then
    local names = { "array", "boolean", "integer", "null", "number", "object", "string" }
    local near = suggest.nearest(name, names)
    refuse(where, ("unknown type %s%s"):format(shown(name),
      near and (" (did you mean %q?)"):format(near) or ""))
  end
  return kind
end

function keywords.type(wanted, where)
  if type(wanted) == "string" then
    local kind = type_of(wanted, where)
    local fits, wrong = kind[2], "expected " .. kind[1] .. ", got "
    return function(value)
      if fits(value) then
        return value
      end
      return nil, "", wrong .. shown(value)
    end
  end
  expect(is_list(wanted), where, "a type or a list of types")
  local tests, names = {}, {}
  for i, name in ipairs(wanted) do
    local kind = type_of(name, where)
    names[i], tests[i] = kind[1], kind[2]
  end
  local wrong = "expected " .. table.concat(names, " or ") .. ", got "
  return function(value)
    for i = 1, #tests do
      if tests[i](value) then
        return value
      end
    end
    return nil, "", wrong .. shown(value)
  end
end

function keywords.const(wanted)
  return function(value)
    if equal(value, wanted) then
      return value
    end
    return nil, "", "expected " .. shown(wanted) .. ", got " .. shown(value)
  end
end

function keywords.enum(choices, where)
  expect(is_list(choices), where, "a list of values")
  local direct, words, names = {}, {}, {}
  for i, choice in ipairs(choices) do
    if type(choice) ~= "table" then
      direct[choice] = true
    end
    words[i] = shown(choice)
    names[i] = type(choice) == "string" and choice or nil
  end
  local wrong = "expected one of " .. table.concat(words, ", ") .. ", got "
  return function(value)
    if direct[value] then
      return value
    end
    for i = 1, #choices do
      if type(value) == "table" and equal(value, choices[i]) then
        return value
      end
    end
    return nil, "", wrong .. shown(value)
  end
end

local function is_number(value)
  return type(value) == "number" and value == value
end

-- A keyword that bounds a measure of one type: bounded(measure)(test, words).
local function bounded(measure, is_count)
  return function(test, words)
    return function(bound, where)
      local fine = is_number(bound) and (not is_count or bound >= 0 and bound % 1 == 0)
      expect(fine, where, is_count and "a whole number, not negative" or "a number")
      local wrong = words:format(tostring(bound))
      return function(value)
        local size = measure(value, bound)
        if size == nil or test(size, bound) then
          return value
        end
        return nil, "", wrong .. ", got " .. (is_count and tostring(size) or shown(value))
      end
    end
  end
end

local function at_least(size, bound)
  return size >= bound
end

local function at_most(size, bound)
  return size <= bound
end

local of_number = bounded(function(value)
  return type(value) == "number" and value or big_integer(value) and tonumber(value) or nil
end)
keywords.minimum = of_number(at_least, "expected at least %s")
keywords.maximum = of_number(at_most, "expected at most %s")
keywords.exclusiveMinimum = of_number(function(size, bound)
  return size > bound
end, "expected more than %s")
keywords.exclusiveMaximum = of_number(function(size, bound)
  return size < bound
end, "expected less than %s")

function keywords.multipleOf(factor, where)
  expect(is_number(factor) and factor > 0, where, "a number above 0")
  return function(value)
    if type(value) ~= "number" or value / factor % 1 == 0 then
      return value
    end
    return nil, "", ("expected a multiple of %s, got %s"):format(tostring(factor), shown(value))
  end
end

-- Characters are counted only when the bytes leave a doubt.
local of_string = bounded(function(value, bound)
  if type(value) ~= "string" or big_integer(value) then
    return nil
  elseif bound <= 1 or #value < bound then
    return #value
  end
  local _, tails = value:gsub("[\128-\191]", "")
  return #value - tails
end, true)
keywords.minLength = of_string(at_least, "expected at least %s characters")
keywords.maxLength = of_string(at_most, "expected at most %s characters")

local of_array = bounded(function(value)
  return is_array(value) and #value or nil
end, true)
keywords.minItems = of_array(at_least, "expected at least %s items")
keywords.maxItems = of_array(at_most, "expected at most %s items")

local of_object = bounded(function(value)
  if not is_object(value) then
    return nil
  end
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  return count
end, true)
keywords.minProperties = of_object(at_least, "expected at least %s fields")
keywords.maxProperties = of_object(at_most, "expected at most %s fields")

local compile

local function compile_list(list, where)
  expect(is_list(list), where, "a list of schemas")
  local checks = {}
  for i, each in ipairs(list) do
    checks[i] = compile(each, ("%s[%d]"):format(where, i - 1))
  end
  return checks
end

function keywords.allOf(list, where)
  local checks = compile_list(list, where)
  return function(value)
    for i = 1, #checks do
      local result, place, wrong = checks[i](value)
      if wrong then
        return nil, place, wrong
      end
      value = result
    end
    return value
  end
end

function keywords.anyOf(list, where)
  local checks = compile_list(list, where)
  return function(value)
    local reasons = {}
    for i = 1, #checks do
      local result, place, wrong = checks[i](value)
      if not wrong then
        return result
      end
      reasons[i] = (place ~= "" and place:gsub("^%.", "") .. ": " or "") .. wrong
    end
    return nil, "", "fits none of the alternatives: " .. table.concat(reasons, "; ")
  end
end

keywords["not"] = function(wanted, where)
  local check = compile(wanted, where)
  return function(value)
    local _, _, wrong = check(value)
    if wrong then
      return value
    end
    return nil, "", shown(value) .. " is excluded"
  end
end

function keywords.oneOf(list, where)
  local checks = compile_list(list, where)
  local any = keywords.anyOf(list, where)
  return function(value)
    local found
    for i = 1, #checks do
      local result, _, wrong = checks[i](value)
      if not wrong and found ~= nil then
        return nil, "", "fits more than one of the alternatives"
      elseif not wrong then
        found = result
      end
    end
    if found == nil then
      return any(value)
    end
    return found
  end
end

---prefixItems and items together: a new array.
local function compile_items(said, where)
  local first = said.prefixItems and compile_list(said.prefixItems, where .. ".prefixItems") or {}
  local rest = said.items ~= nil and compile(said.items, where .. ".items")
  return function(value)
    if not is_array(value) then
      return value
    end
    local result = {}
    for i = 1, #value do
      local check, item = first[i] or rest, value[i]
      if check then
        local place, wrong
        item, place, wrong = check(item)
        if wrong then
          return nil, ("[%d]"):format(i - 1) .. place, wrong
        end
      end
      result[i] = item
    end
    return setmetatable(result, ARRAY)
  end
end

local function names_of(map)
  local names = {}
  for name in pairs(map) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function check_required(said, where)
  local required = said.required or {}
  expect(type(required) == "table" and getmetatable(required) ~= OBJECT
    and (#required > 0 or next(required) == nil), where .. ".required", "a list of names")
  for _, name in ipairs(required) do
    expect(type(name) == "string", where .. ".required", "a list of names")
    if said.additionalProperties == false and not (said.properties or {})[name] then
      refuse(where .. ".required", ("there is no property %q"):format(name))
    end
  end
  return required
end

local function unknown(key, names)
  local near = suggest.nearest(key, names)
  local hint = near and (" (did you mean %q?)"):format(near)
    or #names > 0 and " (there are: " .. table.concat(names, ", ") .. ")"
    or " (there are none)"
  return "there is no " .. shown(key):gsub("^the string ", "") .. hint
end

local function step_to(key)
  return type(key) == "string" and #key <= 64 and key:find("^[%a_][%w_-]*$") and "." .. key
    or ("[%s]"):format((shown(key):gsub("^the %a+ ", "")))
end

---properties, required and additionalProperties together: a new object, with defaults.
local function compile_object(said, where)
  local properties, defaults = {}, {}
  local wanted = said.properties or {}
  expect(type(wanted) == "table" and getmetatable(wanted) ~= ARRAY, where .. ".properties",
    "a table of schemas")
  local names = names_of(wanted)
  for _, name in ipairs(names) do
    expect(type(name) == "string", where .. ".properties", "a table of schemas by name")
    local inner = ("%s.properties.%s"):format(where, name)
    properties[name] = compile(wanted[name], inner)
    if type(wanted[name]) == "table" and wanted[name].default ~= nil then
      local default, place, wrong = properties[name](wanted[name].default)
      if wrong then
        refuse(inner .. ".default" .. place, wrong)
      end
      defaults[#defaults + 1] = { name, default }
    end
  end
  local required = check_required(said, where)
  local closed = said.additionalProperties == false
  local extra = not closed and said.additionalProperties ~= nil
    and compile(said.additionalProperties, where .. ".additionalProperties") or nil
  return function(value)
    if not is_object(value) then
      return value
    end
    local result = {}
    for key, item in pairs(value) do
      local check = properties[key]
      if check == nil then
        if closed then
          return nil, "", unknown(key, names)
        end
        check = extra
      end
      if check then
        local place, wrong
        item, place, wrong = check(item)
        if wrong then
          return nil, step_to(key) .. place, wrong
        end
      end
      result[key] = item
    end
    for i = 1, #required do
      if result[required[i]] == nil then
        return nil, step_to(required[i]), "is missing"
      end
    end
    for i = 1, #defaults do
      local name, default = defaults[i][1], defaults[i][2]
      if result[name] == nil then
        result[name] = type(default) == "table" and schema_value.copied(default) or default
      end
    end
    return next(result) == nil and setmetatable(result, OBJECT) or result
  end
end

-- Keywords that are compiled together, by the one that stands for them.
local TOGETHER = {
  properties = compile_object, required = compile_object, additionalProperties = compile_object,
  items = compile_items, prefixItems = compile_items,
}

-- Cheap and telling checks first: what a value is, before what is in it.
local ORDER = {
  "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
  "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
}
local LATE = { "allOf", "anyOf", "oneOf", "not" }

local function check_words(said, where)
  for word in pairs(said) do
    if UNSUPPORTED[word] then
      refuse(where, ("%s is not supported: check it in the handler"):format(word))
    elseif not (keywords[word] or TOGETHER[word] or ANNOTATIONS[word]) then
      local known = names_of(keywords)
      for _, more in ipairs({ TOGETHER, ANNOTATIONS }) do
        for name in pairs(more) do
          known[#known + 1] = name
        end
      end
      local near = suggest.nearest(word, known)
      refuse(where, ("unknown keyword %s%s"):format((shown(word):gsub("^the %a+ ", "")),
        near and (" (did you mean %q?)"):format(near) or ""))
    end
  end
end

local function anything(value)
  return value
end

local function nothing()
  return nil, "", "nothing is allowed here"
end

local function in_order(checks)
  if #checks <= 1 then
    return checks[1] or anything
  end
  local first, second = checks[1], checks[2]
  if #checks == 2 then
    return function(value)
      local result, place, wrong = first(value)
      if wrong then
        return nil, place, wrong
      end
      return second(result)
    end
  end
  return function(value)
    for i = 1, #checks do
      local result, place, wrong = checks[i](value)
      if wrong then
        return nil, place, wrong
      end
      value = result
    end
    return value
  end
end

---@return farcall.schema.Check
function compile(said, where)
  if type(said) == "boolean" then
    return said and anything or nothing
  end
  expect(is_object(said), where, "a schema: a table")
  check_words(said, where)
  local checks = {}
  local function add(words)
    for _, word in ipairs(words) do
      if said[word] ~= nil then
        checks[#checks + 1] = keywords[word](said[word], where .. "." .. word)
      end
    end
  end
  add(ORDER)
  if said.properties ~= nil or said.required ~= nil or said.additionalProperties ~= nil then
    checks[#checks + 1] = compile_object(said, where)
  end
  if said.items ~= nil or said.prefixItems ~= nil then
    checks[#checks + 1] = compile_items(said, where)
  end
  add(LATE)
  return in_order(checks)
end

---Compiles a schema. The validator returns the value with defaults filled in, in new tables wherever
---the schema says what is inside (the caller's are not changed); or nil and what is wrong with the
---path of where ("limit: expected an integer, got the string \"ten\""; items are counted from 0, as
---scripts do). Integers beyond 2^53, which the codec hands over as strings, are integers here too.
---@param said table|boolean
---@return (fun(value: any): any, string?)? validator
---@return string? message
---@nodiscard
function schema.compile(said)
  local ok, check = pcall(compile, said, "")
  if not ok then
    local failure = check
    if type(failure) ~= "table" then
      error(failure, 0)
    end
    local where = failure.where:gsub("^%.", "")
    return nil, where == "" and failure.reason or where .. ": " .. failure.reason
  end
  return function(value)
    local result, place, wrong = check(value)
    if wrong then
      return nil, place == "" and wrong or place:gsub("^%.", "") .. ": " .. wrong
    end
    return result
  end
end

return schema
