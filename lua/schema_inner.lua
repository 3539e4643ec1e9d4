-- SPDX-License-Identifier: MIT
-- The keywords of JSON Schema that look into a value, or at it in several ways. Part of
-- farcall.schema, which hands its compile function down: compile(schema, where) -> check.

local schema_value = require("farcall.schema_value")
local suggest = require("farcall.suggest")

local schema_inner = {}

local ARRAY, OBJECT = schema_value.ARRAY, schema_value.OBJECT
local is_array, is_object, is_list = schema_value.is_array, schema_value.is_object,
  schema_value.is_list
local expect, refuse, shown = schema_value.expect, schema_value.refuse, schema_value.shown
local pairs, setmetatable, type = pairs, setmetatable, type

local function compile_list(compile, list, where)
  expect(is_list(list), where, "a list of schemas")
  local checks = {}
  for i, each in ipairs(list) do
    checks[i] = compile(each, ("%s[%d]"):format(where, i - 1))
  end
  return checks
end

function schema_inner.allOf(compile, list, where)
  local checks = compile_list(compile, list, where)
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

function schema_inner.anyOf(compile, list, where)
  local checks = compile_list(compile, list, where)
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

schema_inner["not"] = function(compile, wanted, where)
  local check = compile(wanted, where)
  return function(value)
    local _, _, wrong = check(value)
    if wrong then
      return value
    end
    return nil, "", shown(value) .. " is excluded"
  end
end

function schema_inner.oneOf(compile, list, where)
  local checks = compile_list(compile, list, where)
  local any = schema_inner.anyOf(compile, list, where)
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
function schema_inner.items(compile, said, where)
  local first = said.prefixItems
    and compile_list(compile, said.prefixItems, where .. ".prefixItems") or {}
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
  return "there is no " .. schema_value.named(key) .. hint
end

local function step_to(key)
  return type(key) == "string" and #key <= 64 and key:find("^[%a_][%w_-]*$") and "." .. key
    or ("[%s]"):format(schema_value.named(key))
end

---properties, required and additionalProperties together: a new object, with defaults.
function schema_inner.object(compile, said, where)
  local properties, defaults = {}, {}
  local wanted = said.properties or {}
  expect(type(wanted) == "table" and getmetatable(wanted) ~= ARRAY, where .. ".properties",
    "a table of schemas")
  local names = schema_value.names(wanted)
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

return schema_inner
