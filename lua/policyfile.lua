-- SPDX-License-Identifier: MIT
-- One policy file: what it says of itself, and a box with it inside.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local policybox = require("farcall.policybox")
local sandbox = require("farcall.core.sandbox")
local text = require("farcall.core.text")

local MAX_FILE_BYTES = 1048576

local policyfile = {}

---@class farcall.PolicyDescription
---@field name string
---@field summary string
---@field options table<string, table> declarations, as schema.options takes them
---@field hooks table<"before"|"after"|"place"|"finish", true>
---@field path string

-- What is known of a file's text: a policy that many runs use is looked at once.
---@type table<string, {source: string, description: farcall.PolicyDescription}>
local known = {}

-- The first line with this word, as a policy's author would look for it.
local function line_of(source, word)
  local line, wanted = 1, "[^%w_]" .. word:gsub("%W", "%%%0") .. "[^%w_]"
  for row in (source .. "\n"):gmatch("(.-)\n") do
    if (" " .. row:gsub("%-%-.*", "") .. " "):find(wanted) then
      return line
    end
    line = line + 1
  end
  return 1
end

---Makes a message say the file, and the line as far as one is known.
function policyfile.located(path, source, message, word)
  -- A tail call leaves no line of the policy, only this of what stands around it.
  message = message:gsub("^farcall:%d+: ", "")
  if message:sub(1, #path + 1) == path .. ":" then
    return message
  end
  -- Lua shortens a long path to its end.
  local shown, rest = message:match("^%.%.%.([^:]+)(:%d+:.*)$")
  if shown and path:sub(-#shown) == shown then
    return path .. rest
  end
  return ("%s:%d: %s"):format(path, word and line_of(source, word) or 1, message)
end

local function no_op() end

-- Functions of the host that a policy reaches through ctx.
local function callbacks(spec, state)
  local now, random = spec.now or no_op, spec.random or math.random
  return {
    now = now,
    random = random,
    date = function()
      return os.date("*t", math.floor(now()))
    end,
    get = function(key)
      if type(key) ~= "string" then
        error("ctx.operator.get needs a text as key", 0)
      end
      return state[key]
    end,
    set = function(key, value)
      if type(key) ~= "string" then
        error("ctx.operator.set needs a text as key", 0)
      end
      state[key] = value
    end,
    redact = function(bytes)
      if type(bytes) ~= "string" then
        error("ctx.redact needs a text", 0)
      end
      return (text.clean(bytes, { escapes = false, utf8 = false, secrets = true }))
    end,
  }
end

---Makes a box with the policy in it.
---@param path string
---@param source string
---@param spec farcall.policy.Spec
---@param state table what ctx.operator gets and sets
---@return userdata? box
---@return farcall.PolicyDescription|string description or what is wrong, with file and line
function policyfile.open(path, source, spec, state)
  local limits = spec.limits or {}
  local box, message = sandbox.new({
    memory_bytes = limits.memory_bytes, instructions = limits.instructions,
    milliseconds = limits.milliseconds, prelude = policybox, callbacks = callbacks(spec, state),
  })
  if not box then
    return nil, ("%s:1: %s"):format(path, message)
  end
  local ok, description, problem, word = box:load(source, "@" .. path)
  if not ok or not description then
    box:close()
    return nil, policyfile.located(path, source, ok and problem or description, word or nil)
  end
  description.path = path
  return box, description
end

local function read(path)
  local source, message, code = fs.read(path, MAX_FILE_BYTES)
  if not source then
    return nil, errors.wrap("policy " .. path, message, code)
  end
  return source
end

---What a policy file says of itself.
---@param path string
---@return farcall.PolicyDescription?
---@return farcall.Error? err
---@nodiscard
function policyfile.describe(path)
  local source, err = read(path)
  if not source then
    return nil, err
  end
  if not known[path] or known[path].source ~= source then
    local box, description = policyfile.open(path, source, {}, {})
    if not box then
      return nil, errors.new("config", "policy", description)
    end
    box:close()
    known[path] = { source = source, description = description }
  end
  return known[path].description
end

---The text that the last description of this file was made from.
---@param path string
---@return string
function policyfile.source(path)
  return known[path].source
end

return policyfile
