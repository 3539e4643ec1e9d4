-- SPDX-License-Identifier: MIT
-- The transport of a live link: a runner in the environment carries the script's connections, as
-- streams of the one exec that it lives in. What is spoken over them is what transports/uds.lua
-- speaks on this machine, so the stubs are the same: over there, too, they find a socket.

local errors = require("farcall.errors")
local supervision = require("farcall.supervision")
local task = require("farcall.task")
local uds = require("farcall.transports.uds")

local stream = {}

local MODE_PRIVATE = 384 -- 0600

---@class farcall.stream.Session
---@field execs integer
---@field runner string which form of the runner it is
local Session = {}
Session.__index = Session

-- The usual places, then where commands start.
local function places_of(env)
  local places = { unpack(supervision.BASES) }
  if env.cwd and env.cwd:sub(1, 1) == "/" then
    places[#places + 1] = env.cwd
  end
  return places
end

-- Puts all files there, all at once.
---@async
local function furnish(self, one, files)
  local writers, failure = {}, nil
  for _, entry in ipairs(files) do
    writers[#writers + 1] = task.spawn(function()
      local ok, err = one:put(self.dir .. "/" .. entry.name, entry.text, MODE_PRIVATE)
      failure = failure or not ok and err or nil
    end)
  end
  for _, writer in ipairs(writers) do
    local ok, raised = writer:join()
    if not ok then
      error(raised, 0)
    end
  end
  return not failure or nil, failure
end

---@async
local function prepare(self, one)
  local spec, err = self.spec
  self.directory, err = one:directory(places_of(spec.env))
  if not self.directory then
    return nil, err
  end
  self.dir = self.directory.path
  local files = { { name = "token", text = spec.token } }
  for _, entry in ipairs(spec.files) do
    files[#files + 1] = entry
  end
  self.server = uds.server(spec.token, spec.on_request)
  -- Who may connect has been looked at over there, where user numbers mean something.
  local own = self.server.uid
  local listening = task.spawn(one.listen, one, self.dir .. "/socket", function(io)
    self.server:accept(io, { uid = own })
  end)
  local furnished
  furnished, err = furnish(self, one, files)
  local ok, listener, failure = listening:join()
  if not ok then
    error(listener, 0)
  end
  self.server.listener = listener
  return furnished and listener and true, err or failure
end

---Prepares a run: a runner, where there is none yet, the private directory over there with token,
---stub and script, and the socket.
---@async
---@param spec farcall.transport.Spec
---@return farcall.stream.Session?
---@return farcall.Error? err of kind unsupported when there can be no runner
---@nodiscard
function stream.open(spec)
  if not spec.env.bring then
    return nil, errors.new("unsupported", "transport stream", "no runner is known here")
  end
  local fresh = not spec.env:has_runner()
  local one, err = spec.env:bring()
  if not one then
    return nil, err
  elseif spec.needs_program and one.form ~= "c" then
    return nil, errors.new("unsupported", "transport stream", "only the static runner, which cannot"
      .. " run there, has the program through which such a script calls")
  end
  local self = setmetatable({
    name = "stream", spec = spec, execs = fresh and 1 or 0, runner = one.form,
  }, Session)
  local ok, ready, failure = pcall(prepare, self, one)
  if ok and ready then
    return self
  end
  self:close()
  if not ok then
    error(ready, 0)
  end
  return nil, failure
end

---@async
---@return farcall.Process?
---@return farcall.Error? err
function Session:start()
  return uds.start(self.spec, self.dir)
end

---Removes what the run had there. Idempotent; after the script's process has been killed.
function Session:close()
  if self.server and self.server.listener then
    self.server:close()
  end
  if self.directory then
    self.directory.close()
  end
end

return stream
