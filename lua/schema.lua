-- SPDX-License-Identifier: MIT
-- Checks of values that scripts and operators write: JSON Schema (a subset of draft 2020-12) turned
-- into closures, and option tables. What a schema says and this module does not know is an error
-- when it is compiled, never a rule that is silently not kept.

local options = require("farcall.options")
local schema_inner = require("farcall.schema_inner")
local schema_rules = require("farcall.schema_rules")
local schema_value = require("farcall.schema_value")
local suggest = require("farcall.suggest")

local schema = {}

---Checks values against declared options; see farcall.options.
schema.options = options.check

---The candidate that a word was probably meant to be; see farcall.suggest.
schema.suggest = suggest.nearest

-- A check takes a value and returns the value as it shall be used; or nil, the place inside the
-- value (".key[0]"), and what is wrong there. Places are put together only when something is wrong.
---@alias farcall.schema.Check fun(value: any): any, string?, string?

local expect, refuse, is_object = schema_value.expect, schema_value.refuse, schema_value.is_object

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

-- Keywords that are compiled together with others.
local TOGETHER = {
  properties = true, required = true, additionalProperties = true, items = true,
  prefixItems = true,
}

-- Cheap and telling checks first: what a value is, before what is in it.
local ORDER = {
  "type", "const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
  "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
}
local LATE = { "allOf", "anyOf", "oneOf", "not" }

local KNOWN = {}
for _, words in ipairs({ ORDER, LATE }) do
  for _, word in ipairs(words) do
    KNOWN[word] = true
  end
end
for _, words in ipairs({ TOGETHER, ANNOTATIONS }) do
  for word in pairs(words) do
    KNOWN[word] = true
  end
end

local function check_words(said, where)
  for word in pairs(said) do
    if UNSUPPORTED[word] then
      refuse(where, ("%s is not supported: check it in the handler"):format(word))
    elseif not KNOWN[word] then
      local near = suggest.nearest(word, schema_value.names(KNOWN))
      refuse(where, ("unknown keyword %s%s"):format(schema_value.named(word),
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
local function compile(said, where)
  if type(said) == "boolean" then
    return said and anything or nothing
  end
  expect(is_object(said), where, "a schema: a table")
  check_words(said, where)
  local checks = {}
  for _, word in ipairs(ORDER) do
    if said[word] ~= nil then
      checks[#checks + 1] = schema_rules[word](said[word], where .. "." .. word)
    end
  end
  if said.properties ~= nil or said.required ~= nil or said.additionalProperties ~= nil then
    checks[#checks + 1] = schema_inner.object(compile, said, where)
  end
  if said.items ~= nil or said.prefixItems ~= nil then
    checks[#checks + 1] = schema_inner.items(compile, said, where)
  end
  for _, word in ipairs(LATE) do
    if said[word] ~= nil then
      checks[#checks + 1] = schema_inner[word](compile, said[word], where .. "." .. word)
    end
  end
  return in_order(checks)
end

---Compiles a schema. The validator returns the value with defaults filled in, in new tables
---wherever the schema says what is inside (the caller's are not changed); or nil and what is wrong,
---with its place (`limit: expected an integer, got the string "ten"`; items are counted from 0, as
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
