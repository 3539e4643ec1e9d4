-- SPDX-License-Identifier: MIT
-- HTTP for clients of services: requests that wait as tasks do, over farcall.core.http. Sizes are
-- bounded; nothing is sent twice, except by a client that knows a request to be idempotent.

local core_http = require("farcall.core.http")
local errors = require("farcall.errors")
local task = require("farcall.task")

local http = {}

local MAX_BODY = 4 * 1024 * 1024

---@class farcall.http.Request
---@field url string
---@field method? string GET
---@field headers? string[] "Name: value"
---@field body? string
---@field unix_path? string connect here instead
---@field ca_file? string
---@field cert_file? string
---@field key_file? string
---@field proxy? string none unless set: no environment variable is looked at
---@field connect_timeout? number seconds (30)
---@field timeout? number seconds for all of it
---@field max_in? integer bytes of the response that are kept for a reader (256 KiB)
---@field fresh? boolean on a connection of its own; for what must never be sent twice

---@class farcall.http.Client
---@field private core any
local Client = {}
Client.__index = Client

---A client on the running task's loop. Its connections are kept for the next request.
---@param defaults? table fields for every request
---@return farcall.http.Client?
---@return farcall.Error? err
function http.new(defaults)
  local core, msg, code = core_http.new(task.loop())
  if not core then
    return nil, errors.wrap("http", msg, code)
  end
  return setmetatable({ core = core, defaults = defaults or {} }, Client)
end

---A response whose body is still to be read.
---@class farcall.http.Response
---@field status integer
---@field headers table<string, string> names in lower case
local Response = {}
Response.__index = Response

---@async
local function await_change(transfer)
  task.await(function(resume)
    local function stop()
      transfer:on_change(nil)
    end
    transfer:on_change(function()
      stop()
      resume()
    end)
    return stop
  end)
end

---The next bytes of the body; nil at its end, nil and an error when it was cut.
---@async
---@param max? integer
---@return string?
---@return farcall.Error? err
function Response:read(max)
  while self.transfer do
    local bytes, msg, code = self.transfer:read(max)
    if bytes then
      return bytes
    elseif code == "EOF" then
      return nil
    elseif code ~= "EAGAIN" then
      return nil, errors.wrap(self.op, msg, code)
    end
    await_change(self.transfer)
  end
  return nil, errors.new("lost", self.op, "the response was closed", { code = "CLOSED" })
end

---Gives up what was not read. Idempotent.
function Response:close()
  if self.transfer then
    local transfer = self.transfer
    self.transfer = nil
    transfer:close()
  end
end

local function op_of(request)
  return (request.method or "GET") .. " " .. request.url
end

local function begin(self, kind, request)
  local full = {}
  for _, source in ipairs({ self.defaults, request }) do
    for name, value in pairs(source) do
      full[name] = value
    end
  end
  local transfer, msg, code = self.core[kind](self.core, full)
  if not transfer then
    return nil, errors.wrap(op_of(request), msg, code)
  end
  return transfer
end

-- Runs fn; when it raises (the task was cancelled), the transfer goes.
local function guard(transfer, fn, ...)
  local ok, first, second = pcall(fn, transfer, ...)
  if not ok then
    transfer:close()
    error(first, 0)
  end
  return first, second
end

local function await_head(transfer, op)
  while not transfer:status() do
    local bytes, msg, code = transfer:read(1)
    if not bytes and code ~= "EAGAIN" then
      return nil, errors.wrap(op, msg, code)
    end
    await_change(transfer)
  end
  return true
end

---Sends a request and returns when the head of the response is there. Close the response.
---@async
---@param request farcall.http.Request
---@return farcall.http.Response?
---@return farcall.Error? err
---@nodiscard
function Client:open(request)
  local transfer, err = begin(self, "request", request)
  if not transfer then
    return nil, err
  end
  local op = op_of(request)
  local ok
  ok, err = guard(transfer, await_head, op)
  if not ok then
    transfer:close()
    return nil, err
  end
  return setmetatable({
    transfer = transfer, status = transfer:status(), headers = transfer:headers(), op = op,
  }, Response)
end

---@async
local function read_all(response, max)
  local parts, size = {}, 0
  while true do
    local bytes, err = response:read()
    if not bytes then
      return not err and table.concat(parts) or nil, err
    end
    size = size + #bytes
    if size > max then
      return nil, errors.new("limit", response.op, ("the response has more than %d bytes")
        :format(max), { code = "LIMIT" })
    end
    parts[#parts + 1] = bytes
  end
end

---Sends a request and returns the whole response. A status of 400 or more is a response, too.
---@async
---@param request farcall.http.Request
---@param max_body? integer 4 MiB
---@return {status: integer, headers: table<string, string>, body: string}?
---@return farcall.Error? err
---@nodiscard
function Client:fetch(request, max_body)
  local response, err = self:open(request)
  if not response then
    return nil, err
  end
  local ok, body, failure = pcall(read_all, response, max_body or MAX_BODY)
  response:close()
  if not ok then
    error(body, 0)
  elseif not body then
    return nil, failure
  end
  return { status = response.status, headers = response.headers, body = body }
end

local function await_end(transfer, op)
  while true do
    local _, msg, code = transfer:read(1)
    if code == "EOF" then
      return true
    elseif code ~= "EAGAIN" then
      return nil, errors.wrap(op, msg, code)
    end
    await_change(transfer)
  end
end

---Only connects to where the request would go.
---@async
---@param request farcall.http.Request
---@return integer? fd the caller's
---@return farcall.Error? err
---@nodiscard
function Client:connect(request)
  local transfer, err = begin(self, "connect", request)
  if not transfer then
    return nil, err
  end
  local ok
  ok, err = guard(transfer, await_end, "connect to " .. (request.unix_path or request.url))
  local fd = ok and transfer:take_fd()
  transfer:close()
  return fd or nil, err
end

---Requests that run end with kind "lost"; connections are closed. Idempotent.
function Client:close()
  self.core:close()
end

return http
