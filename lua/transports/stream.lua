-- SPDX-License-Identifier: MIT
-- The transport of a live link: a runner in the environment carries the script's connections, as
-- streams of the one exec that it lives in. What is spoken over them is what transports/uds.lua
-- speaks on this machine, so the stubs are the same: over there, too, they find a socket.

local connect = require("farcall.clients.runner_connect")
local errors = require("farcall.errors")
local lacking = require("farcall.transports.lacking")
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

-- Carries out all of these at once; the first failure counts.
---@async
local function all(bodies)
  local workers, failure = {}, nil
  for i, body in ipairs(bodies) do
    workers[i] = task.spawn(function()
      local ok, err = body()
      failure = failure or not ok and err or nil
    end)
  end
  for _, worker in ipairs(workers) do
    local ok, raised = worker:join()
    if not ok then
      error(raised, 0)
    end
  end
  return not failure or nil, failure
end

-- Puts the files and the socket into the run's directory.
---@async
local function furnish(self, one, files)
  local bodies = {}
  for i, entry in ipairs(files) do
    bodies[i] = function()
      return one:put(self.dir .. "/" .. entry.name, entry.text, MODE_PRIVATE)
    end
  end
  -- Who may connect has been looked at over there, where user numbers mean something.
  local own, err = self.server.uid, nil
  bodies[#bodies + 1] = function()
    self.server.listener, err = one:listen(self.dir .. "/socket", function(io)
      self.server:accept(io, { uid = own })
    end)
    return self.server.listener and true, err
  end
  return all(bodies)
end

local function leave_place(self)
  if self.server and self.server.listener then
    self.server:close()
    self.server.listener = nil
  end
  if self.directory then
    self.directory.close()
    self.directory = nil
  end
end

-- After these no other place is looked for.
local FINAL = { lost = true, protocol = true }

-- The run's directory with all that is in it, in the first place that takes that.
---@async
local function settle(self, one, files)
  local places = supervision.places(self.spec.env)
  local left = { unpack(places) }
  while #left > 0 do
    local directory, err = one:directory(left)
    local settled
    if directory then
      self.directory, self.dir = directory, directory.path
      settled, err = furnish(self, one, files)
    end
    if settled then
      return true
    elseif FINAL[err.kind] or not one:alive() then
      return nil, err
    end
    leave_place(self)
    -- Those before the one that was too small cannot be written to at all.
    local used = directory and directory.path:match("^(.*)/")
    repeat
      local place = table.remove(left, 1)
    until not place or place == used
  end
  local size = 0
  for _, entry in ipairs(files) do
    size = size + #entry.text
  end
  return nil, lacking.place(places, size)
end

---@async
local function prepare(self, one)
  local files = { { name = "token", text = self.spec.token } }
  for _, entry in ipairs(self.spec.files) do
    files[#files + 1] = entry
  end
  if self.spec.uses_program and one.form == "python" then
    for _, name in ipairs(connect.NAMES) do
      files[#files + 1] = { name = name, text = connect.PROGRAM }
    end
  end
  self.server = uds.server(self.spec.token, self.spec.on_request)
  return settle(self, one, files)
end

-- There is no runner after all. Without standard input, the next way is another one too.
---@async
local function pass_over(env, err)
  if err.kind == "unsupported" and env:is_deaf() then
    return errors.new("unsupported", "transport stream",
      "what is written to an exec's standard input does not arrive there", { cause = err })
  end
  return err
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
    return nil, pass_over(spec.env, err)
  end
  local self = setmetatable({
    name = "stream", spec = spec, one = one, execs = fresh and 1 or 0, runner = one.form,
  }, Session)
  local ok, ready, failure = pcall(prepare, self, one)
  if ok and ready then
    return self
  end
  self:close()
  if not ok then
    error(ready, 0)
  end
  return nil, pass_over(spec.env, failure)
end

---@async
---@return farcall.Process?
---@return farcall.Error? err
function Session:start()
  return uds.start(self.spec, self.dir)
end

---How calls travel since the link was lost, if not as before.
---@return string?
function Session:changed()
  local why = self.one:by_turns()
  return why and "stream: its link was lost, and is made of execs that end: " .. why
end

---Removes what the run had there. Idempotent; after the script's process has been killed.
function Session:close()
  leave_place(self)
end

return stream
