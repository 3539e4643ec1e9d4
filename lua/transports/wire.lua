-- SPDX-License-Identifier: MIT
-- What a request looks like, whichever way it came, and the reply to one that is none.

local bit = require("bit")
local json = require("farcall.core.json")

local wire = {}

-- Bytes of the largest request and of the largest reply.
wire.MAX_REQUEST = 64 * 1024 * 1024
wire.MAX_REPLY = 64 * 1024 * 1024
-- Calls of one run that are under way; more wait.
wire.MAX_IN_FLIGHT = 256

local MAX_ID = 64
local MAX_TOOL = 128
local FIELDS = { id = "id", tool = "string", args = "object", token = "string" }

---Compares without an early end, so that the time tells nothing.
---@param given string
---@param token string
---@return boolean
function wire.same_token(given, token)
  if #given ~= #token then
    return false
  end
  local difference = 0
  for i = 1, #token do
    difference = bit.bor(difference, bit.bxor(given:byte(i), token:byte(i)))
  end
  return difference == 0
end

---@param value any
---@return boolean
function wire.is_id(value)
  return type(value) == "number" and value % 1 == 0 or type(value) == "string" and #value <= MAX_ID
end

---@param request any a decoded request
---@return string? reason why it is none
function wire.misshapen(request)
  if type(request) ~= "table" or json.is_array(request) then
    return "a request is a JSON object"
  end
  for key in pairs(request) do
    if not FIELDS[key] then
      return "a request has no field of this name"
    end
  end
  if not wire.is_id(request.id) then
    return "id is an integer or a string of at most 64 bytes"
  end
  if type(request.tool) ~= "string" or #request.tool > MAX_TOOL then
    return "tool is a string of at most 128 bytes"
  end
  if type(request.args) ~= "table" or json.is_array(request.args) then
    return "args is an object"
  end
  if type(request.token) ~= "string" then
    return "token is a string"
  end
  return nil
end

---@param id any of the request, if it has one
---@param kind string
---@param message string
---@return table reply
function wire.failure(id, kind, message)
  return { id = id or json.null, error = { kind = kind, message = message } }
end

---A reply as a line, its fields in the order that a stub without a JSON reader counts on: id, then
---result or error, that with kind and message.
---@param id any of the request
---@param reply {result?: any, error?: {kind: string, message: string}}
---@return string? line
---@return string? problem why it cannot be sent
function wire.text(id, reply)
  local value, problem, kind
  if reply.error then
    kind = json.encode(reply.error.kind)
    value, problem = json.encode(reply.error.message)
    value = value and '"error":{"kind":' .. kind .. ',"message":' .. value .. "}}\n"
  else
    value, problem = json.encode(reply.result)
    value = value and '"result":' .. value .. "}\n"
  end
  return value and '{"id":' .. json.encode(id) .. "," .. value, problem
end

return wire
