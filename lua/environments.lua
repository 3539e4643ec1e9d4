-- SPDX-License-Identifier: MIT
-- Environments: get or create under a key, reuse, notice that one is dead, close.

local errors = require("farcall.errors")
local guarded = require("farcall.guarded")
local task = require("farcall.task")

---@class farcall.Environments
---@field private open_ table<string, table> key -> slot
local environments = {}
environments.__index = environments

---@param ctx table what a backend's open() is handed: environ, supervisor, log
---@return farcall.Environments
function environments.new(ctx)
  return setmetatable({ open_ = {}, ctx = ctx }, environments)
end

local function open(self, backend, options)
  local env, err = backend.open(options, self.ctx)
  if not env then
    return nil, err
  end
  env.caps = env.caps or backend.caps
  return env.caps.kill == "native" and env or guarded.wrap(env, env.caps)
end

---The environment under this key; opened once, however many ask at the same time, and opened once
---more when it turns out to be dead.
---@async
---@param key string
---@param backend farcall.Backend
---@param options table checked options
---@return farcall.Env?
---@return farcall.Error? err
---@nodiscard
function environments:get(key, backend, options)
  local slot = self.open_[key]
  if slot then
    local env, err = slot.ready.wait()
    if not env then
      return nil, err
    end
    if not env.alive or env:alive() then
      return env
    end
    if self.open_[key] == slot then
      self.open_[key] = nil
      env:close()
    end
    return self:get(key, backend, options)
  end
  if self.closed then
    return nil, errors.new("unavailable", "environment", "the engine is closed")
  end
  slot = { ready = task.event() }
  self.open_[key] = slot
  local ok, env, err = pcall(open, self, backend, options)
  if not ok then
    env, err = nil, env
  end
  if not env then
    self.open_[key] = nil
  end
  slot.env = env
  slot.ready.set(env, err)
  if not ok then
    error(err, 0)
  end
  return env, err
end

---Closes all of them. Idempotent.
---@async
function environments:close()
  self.closed = true
  local slots = self.open_
  self.open_ = {}
  for _, slot in pairs(slots) do
    local env = slot.ready.wait()
    if env then
      env:close()
    end
  end
end

return environments
