-- SPDX-License-Identifier: MIT
-- The keywords of JSON Schema that look at a value and not into it. Part of farcall.schema: each
-- compiles what a schema says to a check, which leaves alone what the keyword does not speak of.

local json = require("farcall.core.json")
local schema_value = require("farcall.schema_value")
local suggest = require("farcall.suggest")

local schema_rules = {}

local big_integer, equal, shown = schema_value.big_integer, schema_value.equal, schema_value.shown
local is_array, is_object = schema_value.is_array, schema_value.is_object
local expect, refuse = schema_value.expect, schema_value.refuse
local type = type

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
    refuse(where, ("unknown type %s%s"):format(schema_value.named(name),
      near and (" (did you mean %q?)"):format(near) or ""))
  end
  return kind
end

function schema_rules.type(wanted, where)
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
  expect(schema_value.is_list(wanted), where, "a type or a list of types")
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

function schema_rules.const(wanted)
  return function(value)
    if equal(value, wanted) then
      return value
    end
    return nil, "", "expected " .. shown(wanted) .. ", got " .. shown(value)
  end
end

function schema_rules.enum(choices, where)
  expect(schema_value.is_list(choices), where, "a list of values")
  local direct, words = {}, {}
  for i, choice in ipairs(choices) do
    if type(choice) ~= "table" then
      direct[choice] = true
    end
    words[i] = schema_value.named(choice)
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
      wrong = is_count and bound == 1 and wrong:gsub("s$", "") or wrong
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
schema_rules.minimum = of_number(at_least, "expected at least %s")
schema_rules.maximum = of_number(at_most, "expected at most %s")
schema_rules.exclusiveMinimum = of_number(function(size, bound)
  return size > bound
end, "expected more than %s")
schema_rules.exclusiveMaximum = of_number(function(size, bound)
  return size < bound
end, "expected less than %s")

function schema_rules.multipleOf(factor, where)
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
schema_rules.minLength = of_string(at_least, "expected at least %s characters")
schema_rules.maxLength = of_string(at_most, "expected at most %s characters")

local of_array = bounded(function(value)
  return is_array(value) and #value or nil
end, true)
schema_rules.minItems = of_array(at_least, "expected at least %s items")
schema_rules.maxItems = of_array(at_most, "expected at most %s items")

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
schema_rules.minProperties = of_object(at_least, "expected at least %s fields")
schema_rules.maxProperties = of_object(at_most, "expected at most %s fields")

return schema_rules
