-- SPDX-License-Identifier: MIT
-- Expected failures. A function that can fail returns `nil, err` with one of these; misuse raises
-- with error(msg, 2); anything else that is raised is a bug.

local errors = {}

---@alias farcall.ErrorKind
---| "usage"       # the caller asked for something that makes no sense
---| "config"      # a configuration, plugin or option is wrong
---| "not_found"   # a file, program, tool or environment is not there
---| "denied"      # not permitted by the system, a policy or credentials
---| "timeout"     # a deadline has passed
---| "limit"       # larger or more than is allowed
---| "protocol"    # the other side said something that it must not
---| "lost"        # the link or the other side went away
---| "exec"        # a program could not be started
---| "unavailable" # a service or resource is not there now
---| "unsupported" # not possible here
---| "cancelled"   # given up on request
---| "internal"    # a bug that was caught

---@class farcall.Error
---@field kind farcall.ErrorKind
---@field op string what was being done, with the name of the thing ("read config.lua")
---@field msg string one sentence about what went wrong
---@field code? string symbolic name from the core or a service ("ENOENT")
---@field hint? string what to do about it
---@field retry? boolean the same thing may work if tried again
---@field partial? any what was got before it went wrong
---@field cause? farcall.Error

local KINDS = {}
for kind in
  ([[usage config not_found denied timeout limit protocol lost exec unavailable unsupported
     cancelled internal]]):gmatch("%S+")
do
  KINDS[kind] = true
end

local FIELDS = { code = true, hint = true, retry = true, partial = true, cause = true }

local Error = {}
Error.__index = Error

function Error:__tostring()
  local text = self.op ~= "" and self.op .. ": " .. self.msg or self.msg
  return self.hint and text .. " (" .. self.hint .. ")" or text
end

---@param kind farcall.ErrorKind
---@param op string
---@param msg string
---@param fields? table code, hint, retry, partial, cause
---@return farcall.Error
function errors.new(kind, op, msg, fields)
  if not KINDS[kind] then
    error("unknown kind of error: " .. tostring(kind), 2)
  end
  local err = { kind = kind, op = op, msg = msg }
  for key, value in pairs(fields or {}) do
    if not FIELDS[key] then
      error("unknown field of an error: " .. tostring(key), 2)
    end
    err[key] = value
  end
  return setmetatable(err, Error)
end

---@return boolean
function errors.is(value)
  return getmetatable(value) == Error
end

local KIND_OF_CODE = {
  ENOENT = "not_found", ENOTDIR = "not_found", ESRCH = "not_found", RESOLVE = "not_found",
  EACCES = "denied", EPERM = "denied", EROFS = "denied",
  TIMEOUT = "timeout", ETIMEDOUT = "timeout",
  LIMIT = "limit", DEPTH = "limit", EFBIG = "limit", ENOSPC = "limit", EDQUOT = "limit",
  E2BIG = "limit", EMFILE = "limit", ENFILE = "limit", MEMORY = "limit", INSTRUCTIONS = "limit",
  SYNTAX = "protocol", UTF8 = "protocol", DUPLICATE = "protocol", NUMBER = "protocol",
  TLS = "denied", TYPE = "usage", EISDIR = "usage", RAISED = "internal",
  EOF = "lost", EPIPE = "lost", ECONNRESET = "lost", CLOSED = "lost",
  ECONNREFUSED = "unavailable", EAGAIN = "unavailable", ENOMEM = "unavailable",
  ENOEXEC = "exec", UNSUPPORTED = "unsupported", NOTFILE = "unsupported",
  PARTIAL = "lost", ENOSYS = "unsupported", CANCELLED = "cancelled",
}

---Turns the core's failure (message, code) into an error; the kind follows from the code.
---@param op string
---@param msg string
---@param code? string
---@return farcall.Error
function errors.wrap(op, msg, code)
  return errors.new(KIND_OF_CODE[code] or "unavailable", op, msg, { code = code })
end

return errors
