-- SPDX-License-Identifier: MIT
-- What engines have left behind, environments and directories on this machine: one is removed on
-- request, all of dead engines are collected.

local environments = require("farcall.environments")
local errors = require("farcall.errors")
local identity = require("farcall.identity")
local inventory = require("farcall.inventory")
local records = require("farcall.records")
local rundir = require("farcall.rundir")
local supervision = require("farcall.supervision")
local system = require("farcall.core.system")
local task = require("farcall.task")

---@class farcall.Leftovers
---@field private cfg farcall.Config
---@field private catalog farcall.Catalog
---@field private environments farcall.Environments
---@field inventory farcall.Inventory
---@field private swept table<string, {err?: farcall.Error}> places that have been looked into
local leftovers = {}
leftovers.__index = leftovers

local REMOVE_SECONDS = 120
-- What a run has begun to make a moment ago is not swept; an engine that has been dead for so long
-- has begun nothing since.
local SETTLED_SECONDS = 180

---@param cfg farcall.Config
---@param catalog farcall.Catalog
---@param envs farcall.Environments
---@return farcall.Leftovers
function leftovers.new(cfg, catalog, envs)
  return setmetatable({
    cfg = cfg, catalog = catalog, environments = envs, swept = {},
    inventory = inventory.new(cfg, catalog, envs),
  }, leftovers)
end

---@async
local function reap(self, row)
  if not row.where then
    return nil, row.problem
  elseif not row.where.backend.reap then
    return nil, errors.new("unsupported", "remove " .. row.name,
      ("backend %s cannot remove"):format(row.backend))
  end
  return task.timeout(REMOVE_SECONDS, row.where.backend.reap, row.name, row.where.options,
    self.environments:context())
end

-- Removes the environment and its record. still() is asked once nobody else can come to it.
---@async
local function remove(self, row, still)
  local store = self.environments.records
  local lock, err
  if row.kind == "keyed" then
    lock, err = store:lock(row.name)
    if not lock then
      return nil, err
    end
  end
  local ok, done, failure = pcall(function()
    if still and not still() then
      return nil, errors.new("unavailable", "remove " .. row.name, "somebody has come to use it")
    end
    if row.kind ~= "visited" and row.exists ~= false then
      local gone
      gone, err = reap(self, row)
      if not gone then
        return nil, err
      end
    end
    return store:remove(row.name)
  end)
  if lock then
    lock:close()
  end
  if not ok then
    error(done, 0)
  end
  return done, failure
end

---@async
local function sweep(self, where)
  local env, err = self.environments:get(where)
  if not env then
    return nil, err
  end
  return supervision.sweep(env)
end

-- Opens an environment that is not ours alone, and removes what dead engines have left in it: once,
-- however many records tell of it.
---@async
local function sweep_once(self, row)
  if not row.where then
    return nil, row.problem
  end
  local where, err = self.catalog:backend(row.where.name, row.record.options)
  if not where then
    return nil, err
  end
  local which = environments.fingerprint(where)
  local before = self.swept[which]
  if not before then
    local count
    count, err = sweep(self, where)
    self.swept[which] = { err = err }
    return count, err
  end
  return not before.err and 0 or nil, before.err
end

---Removes one, as `farcall env rm` asks.
---@async
---@param row farcall.KnownEnvironment
---@param force? boolean also one that a living engine uses, or that may be in use
---@return true?
---@return farcall.Error? err
---@nodiscard
function leftovers:remove(row, force)
  local op = "remove " .. row.name
  if row.kind == "visited" and row.owner ~= "dead" and not force then
    return nil, errors.new("denied", op, "farcall did not make it, it is only in use",
      { hint = "--force forgets it; nothing is removed" })
  end
  local function in_use()
    if row.kind == "keyed" then
      return self.inventory:users(row.name) > 0
    end
    return row.owner ~= "dead"
  end
  if not force and in_use() then
    return nil, errors.new("denied", op,
      row.owner == "unknown" and "its engine may be alive, elsewhere" or "a living engine uses it",
      { hint = "--force removes it all the same" })
  end
  return remove(self, row, not force and row.kind == "keyed" and function()
    return not in_use()
  end or nil)
end

-- What is to be done about one: "remove", "forget" (only the record is left), "sweep" (somebody's
-- else, with leftovers of dead engines in it), or nil.
local function verdict(self, row, now)
  if row.kind == "visited" then
    return row.owner == "dead" and "sweep" or nil
  elseif row.kind == "private" then
    if row.owner ~= "dead" then
      return nil
    end
    return row.exists == false and "forget" or "remove"
  elseif not row.record then
    return nil
  end
  local living, dead = self.inventory:users(row.name)
  if living == 0 and row.exists == false then
    return "forget"
  elseif living == 0 and row.idle and now - row.used > row.idle then
    return "remove"
  end
  return #dead > 0 and "sweep" or nil
end

-- Looks into an environment that stays, for what dead engines have left. They are forgotten once
-- that was late enough to have seen everything.
---@async
local function look_into(self, row)
  local store = self.environments.records
  local count, err = 0, nil
  if row.exists ~= false then
    count, err = sweep_once(self, row)
  end
  if not count then
    return nil, err
  end
  local dead = { row.record.engine }
  if row.kind == "keyed" then
    dead = select(2, self.inventory:users(row.name))
  end
  local settled = true
  for _, engine in ipairs(dead) do
    if row.exists ~= false and store:ended(row.name, engine) < SETTLED_SECONDS then
      settled = false
    elseif row.kind == "keyed" then
      store:release(row.name, engine)
    end
  end
  if settled and row.kind == "visited" then
    return store:remove(row.name), nil, count
  end
  return true, nil, count
end

---@async
local function act(self, row, what)
  if what == "sweep" then
    return look_into(self, row)
  end
  return remove(self, row, row.kind == "keyed" and function()
    return self.inventory:users(row.name) == 0
  end or nil)
end

---@class farcall.Collected
---@field what "remove"|"forget"|"sweep"|"directory"
---@field name string
---@field backend? string
---@field count? integer directories that a sweep has removed
---@field err? farcall.Error why it could not be done

---Removes what dead engines left: their private environments, records of what is not there any
---more, shared environments that nobody has used for longer than their limit, what is left of runs
---in environments that stay, and directories on this machine.
---@async
---@param dry_run? boolean only tell
---@return farcall.Collected[]
---@return {where: string, err: farcall.Error}[] problems services that could not be asked
function leftovers:collect(dry_run)
  local rows, problems = self.inventory:known()
  local done, now = {}, system.time()
  for _, row in ipairs(rows) do
    local what = verdict(self, row, now)
    if what then
      local ok, err, count = true, nil, nil
      if not dry_run then
        ok, err, count = act(self, row, what)
      end
      done[#done + 1] = {
        what = what, name = row.name, backend = row.backend, err = not ok and err or nil,
        count = count,
      }
    end
  end
  for _, path in ipairs(rundir.stale(self.cfg.runtime_dir, now)) do
    local ok, message, code = true, nil, nil
    if not dry_run then
      ok, message, code = rundir.remove(path)
    end
    done[#done + 1] = {
      what = "directory", name = path,
      err = not ok and errors.wrap("remove " .. path, message, code) or nil,
    }
  end
  return done, problems
end

---How much dead engines have left, without asking any service.
---@param state_dir string
---@param runtime_dir string
---@return integer environments
---@return integer directories
function leftovers.count(state_dir, runtime_dir)
  local store, n = records.new(state_dir), 0
  for _, record in ipairs((store:list())) do
    local engines = record.kind == "keyed" and store:users(record.name) or { record.engine }
    local dead = false
    for _, engine in ipairs(engines) do
      dead = dead or identity.state(engine) == "dead"
    end
    n = n + (dead and 1 or 0)
  end
  return n, #rundir.stale(runtime_dir)
end

return leftovers
