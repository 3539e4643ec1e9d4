-- SPDX-License-Identifier: MIT
-- Environments: get or create, reuse, notice that one is dead, close; and whose they are.
--
-- One without a key belongs to this engine and goes with it. One with a key is created under a name
-- that follows from the key, by whoever comes first, and stays. One that is attached to, or that is
-- a whole machine, was never made here and is only visited. Of all that can outlive this process a
-- record is written before it is opened.

local errors = require("farcall.errors")
local guarded = require("farcall.guarded")
local identity = require("farcall.identity")
local json = require("farcall.core.json")
local records = require("farcall.records")
local resident = require("farcall.resident")
local sha256 = require("farcall.core.sha256")
local system = require("farcall.core.system")
local task = require("farcall.task")

---@class farcall.Environments
---@field engine string this engine's identity
---@field records? farcall.Records
---@field private open_ table<string, farcall.environments.Slot> by fingerprint
---@field private slots table<farcall.environments.Slot, true> all that are not given back yet
---@field private uses table<string, integer> slots of a shared environment, by its name
---@field private max_idle integer
---@field private clock integer counts loans that have ended
local environments = {}
environments.__index = environments

---@class farcall.environments.Slot
---@field ready table event: the environment, or why there is none
---@field waiting integer tasks that wait for that
---@field loans integer
---@field pinned? true it stays open until all go
---@field used integer when its last loan has ended
---@field env? farcall.Env
---@field record? farcall.EnvironmentRecord
---@field gone? table event: it has been given back; there from when that begins

---@class farcall.environments.Loan
---@field env farcall.Env
---@field over fun() it is not needed any more; idempotent

---@class farcall.Place a backend with the options that count, as catalog:backend gives it
---@field name string of the configuration, or of the backend itself
---@field backend farcall.Backend
---@field options table<string, any>
---@field member? integer which one, where there are several environments of one kind

-- What may be there although opening it failed.
local UNCERTAIN = { lost = true, timeout = true, cancelled = true, protocol = true,
  internal = true }

---@param ctx table what a backend's open() is handed: environ, supervisor, log
---@param state_dir? string where records are kept; none are without it
---@param runners? farcall.resident.Options none are brought without it
---@param max_idle? integer environments that stay open although nobody has them; all without it
---@return farcall.Environments
function environments.new(ctx, state_dir, runners, max_idle)
  return setmetatable({
    open_ = {}, slots = {}, uses = {}, ctx = ctx, engine = identity.new(), runners = runners,
    records = state_dir and records.new(state_dir), max_idle = max_idle or math.huge, clock = 0,
  }, environments)
end

-- Letters and digits of a text, for a name that people read.
local function slug(text, max)
  return (text:lower():gsub("[^a-z0-9]+", "-"):gsub("^%-", ""):sub(1, max):gsub("%-$", ""))
end

---The name of an environment: of one with a key always the same, else a new one.
---@param backend string
---@param key? string
---@return string name at most 60 of [a-z0-9-]
function environments.name(backend, key)
  local parts = { "farcall", slug(backend, 16) }
  if key then
    parts[#parts + 1] = slug(key, 20)
    parts[#parts + 1] = sha256.hex(backend .. "\0" .. key):sub(1, 10)
  else
    parts[#parts + 1] = sha256.hex(system.random(16)):sub(1, 12)
  end
  return (table.concat(parts, "-"):gsub("%-%-+", "-"))
end

---What becomes of an environment when its engine goes; nil: it cannot outlive it.
---@param where farcall.Place
---@return "private"|"keyed"|"visited"|nil
function environments.kind(where)
  local backend, options = where.backend, where.options
  if options.attach ~= nil then
    return "visited"
  elseif backend.reap then
    return options.key and "keyed" or "private"
  end
  local caps = backend.caps or {}
  return not caps.same_host and caps.kill ~= "native" and "visited" or nil
end

---A text that is the same for two places when every option is.
---@param where farcall.Place
---@param without? table<string, true> options that do not count
---@return string
function environments.fingerprint(where, without)
  local names, parts = {}, { where.name }
  for name in pairs(where.options) do
    names[#names + 1] = not (without and without[name]) and name or nil
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = where.options[name]
    parts[#parts + 1] = name .. "=" .. (json.encode({ value }) or tostring(value))
  end
  parts[#parts + 1] = where.member and "#" .. where.member
  return table.concat(parts, "\0")
end

local function log(self, level, text)
  if self.ctx.log then
    self.ctx.log(level, text)
  end
end

local function new_record(self, where, kind)
  local options = where.options
  return {
    name = environments.name(where.name, kind == "keyed" and options.key or nil),
    kind = kind, backend = where.name, use = where.backend.name,
    key = kind == "keyed" and options.key or nil, idle = kind == "keyed" and options.idle or nil,
    options = records.writable(options, where.backend.options or {}),
    engine = self.engine, created = system.time(),
  }
end

---What a backend is handed besides its options: the same for all, and for one that makes
---environments what this one is to be called, and whose it is.
---@param record? farcall.EnvironmentRecord
---@return farcall.BackendContext
function environments:context(record)
  local ctx = { engine = self.engine }
  for name, value in pairs(self.ctx) do
    ctx[name] = value
  end
  if record and record.kind ~= "visited" then
    ctx.name, ctx.key = record.name, record.key
    ctx.labels = {
      ["farcall.engine"] = self.engine, ["farcall.key"] = record.key,
      ["farcall.created"] = ("%d"):format(record.created), ["farcall.backend"] = record.backend,
    }
  end
  return ctx
end

-- An environment that is there already is as whoever came first wanted it.
local function tell_differences(self, record)
  local first = self.records:read(record.name)
  local names = {}
  for _, options in ipairs({ first and first.options or record.options, record.options }) do
    for name in pairs(options) do
      local one, other = first and first.options[name], record.options[name]
      if first and json.encode({ one }) ~= json.encode({ other }) then
        names[name] = true
      end
    end
  end
  local list = {}
  for name in pairs(names) do
    list[#list + 1] = name
  end
  table.sort(list)
  if #list > 0 then
    log(self, "warning", ("environment %s is there already, with another %s: it stays as it is")
      :format(record.name, table.concat(list, ", ")))
  end
end

-- Writes down that the environment is about to be made or used.
---@async
local function announce(self, record)
  if record.kind ~= "keyed" then
    return self.records:add(record, self.engine)
  end
  local lock, err = self.records:lock(record.name)
  if not lock then
    return nil, err
  end
  tell_differences(self, record)
  local ok
  ok, err = self.records:add(record, self.engine)
  lock:close()
  if ok then
    self.uses[record.name] = (self.uses[record.name] or 0) + 1
  end
  return ok, err
end

local function release(self, record)
  local uses = self.uses[record.name] - 1
  self.uses[record.name] = uses > 0 and uses or nil
  if uses == 0 then
    self.records:touch(record.name)
    self.records:release(record.name, self.engine)
  end
end

-- Opening failed. Whatever was made half is removed; what cannot be is left to `farcall env gc`,
-- which needs the record.
---@async
local function withdraw(self, where, record, failure)
  local certain = not UNCERTAIN[failure.kind]
  if record.kind == "keyed" then
    release(self, record)
    local lock = certain and self.records:lock(record.name)
    if lock then
      local first = self.records:read(record.name)
      if first and first.engine == self.engine and #self.records:users(record.name) == 0 then
        self.records:remove(record.name)
      end
      lock:close()
    end
    return
  end
  local gone = record.kind == "visited"
  if not gone then
    local ok, reaped = pcall(where.backend.reap, record.name, where.options, self:context(record))
    gone = ok and reaped
  end
  if gone or certain then
    self.records:remove(record.name)
  end
end

---@async
local function open(self, where, slot)
  local kind = self.records and environments.kind(where)
  local record = kind and new_record(self, where, kind)
  if record then
    local ok, err = announce(self, record)
    if not ok then
      return nil, err
    end
  end
  local ok, env, err = pcall(where.backend.open, where.options, self:context(record))
  if not ok or not env then
    local failure = not ok and env or err
    if record then
      task.shield(withdraw, self, where, record,
        errors.is(failure) and failure or { kind = "internal" })
    end
    if not ok then
      error(env, 0)
    end
    return nil, err
  end
  slot.record = record
  env.caps = env.caps or where.backend.caps
  local held = env.caps.kill == "native" and env or guarded.wrap(env, env.caps)
  return self.runners and resident.wrap(held, env, self.runners) or held
end

-- Gives back one environment: its backend removes it if it is private, and lets go of it otherwise.
---@async
local function give_back(self, slot)
  if slot.gone then
    slot.gone.wait()
    return
  end
  slot.gone = task.event()
  local ok, closed, err = pcall(slot.env.close, slot.env)
  local record = slot.record
  self.slots[slot] = nil
  slot.gone.set()
  if record and record.kind == "keyed" then
    release(self, record)
  elseif record and (record.kind == "visited" or ok and not (closed == nil and err)) then
    self.records:remove(record.name)
  elseif record then
    log(self, "warning", ("environment %s may be left: %s (see `farcall env gc`)")
      :format(record.name, tostring(not ok and closed or err)))
  end
  if not ok then
    error(closed, 0)
  end
end

-- Opens it in a task of its own: it is for all who ask, and whoever came first may give up.
local function begin(self, key, where)
  local slot = { ready = task.event(), waiting = 0, loans = 0, used = 0 }
  self.open_[key], self.slots[slot] = slot, true
  slot.opener = task.spawn(function()
    local ok, env, err = pcall(open, self, where, slot)
    if ok and env then
      slot.env = env
      if slot.abandoned then
        task.shield(give_back, self, slot)
      end
    else
      self.slots[slot] = nil
      if self.open_[key] == slot then
        self.open_[key] = nil
      end
    end
    if not ok then
      env, err = nil, env
      slot.raised = not (errors.is(err) and err.kind == "cancelled")
    end
    slot.ready.set(env, err)
  end)
  return slot
end

---@async
local function await(self, key, slot)
  slot.waiting = slot.waiting + 1
  local ok, env, err = pcall(slot.ready.wait)
  slot.waiting = slot.waiting - 1
  if not ok then
    if slot.waiting == 0 and not slot.opener:done() then
      slot.abandoned = true
      if self.open_[key] == slot then
        self.open_[key] = nil
      end
      slot.opener:cancel(errors.is(env) and env or nil)
    end
    error(env, 0)
  elseif slot.raised then
    error(err, 0)
  end
  return env, err
end

-- Opened once, however many ask at the same time, and once more when it turns out to be dead.
---@async
---@return farcall.environments.Slot? slot
---@return farcall.Error? err
local function find(self, where)
  local key = environments.fingerprint(where)
  local slot = self.open_[key]
  while slot do
    local env, err = await(self, key, slot)
    if not env then
      return nil, err
    end
    if not env.alive or env:alive() then
      if slot.record and slot.record.kind == "keyed" then
        self.records:touch(slot.record.name)
      end
      return slot
    end
    if self.open_[key] == slot then
      self.open_[key] = nil
      log(self, "warning", ("environment %s is dead, another one is opened"):format(
        env.name or where.name))
      task.shield(give_back, self, slot)
    end
    slot = self.open_[key]
  end
  if self.closed then
    return nil, errors.new("unavailable", "environment", "the engine is closed")
  end
  slot = begin(self, key, where)
  local env, err = await(self, key, slot)
  return env and slot, err
end

---The environment of this place, which stays open until all are closed.
---@async
---@param where farcall.Place
---@return farcall.Env?
---@return farcall.Error? err
---@nodiscard
function environments:get(where)
  local slot, err = find(self, where)
  if not slot then
    return nil, err
  end
  slot.pinned = true
  return slot.env
end

-- The one that nobody has had for longest goes when there are too many of that kind.
local function trim(self)
  local idle, oldest = 0, nil
  for key, slot in pairs(self.open_) do
    if slot.env and slot.loans == 0 and slot.waiting == 0 and not slot.pinned then
      idle = idle + 1
      if not oldest or slot.used < self.open_[oldest].used then
        oldest = key
      end
    end
  end
  if idle > self.max_idle then
    local slot = self.open_[oldest]
    self.open_[oldest] = nil
    task.spawn(function()
      local ok, failure = pcall(give_back, self, slot)
      if not ok then
        log(self, "warning", "an environment that nobody had could not be closed: "
          .. tostring(failure))
      end
    end)
  end
end

---The environment of this place for some time. Afterwards it waits for the next one who asks, as
---long as not too many do.
---@async
---@param where farcall.Place
---@return farcall.environments.Loan?
---@return farcall.Error? err
---@nodiscard
function environments:lend(where)
  local slot, err = find(self, where)
  if not slot then
    return nil, err
  end
  slot.loans = slot.loans + 1
  local loan = { env = slot.env }
  function loan.over()
    loan.over = function() end
    slot.loans, self.clock = slot.loans - 1, self.clock + 1
    slot.used = self.clock
    trim(self)
  end
  return loan
end

---Gives back all of them, all at once. Idempotent.
---@async
function environments:close()
  self.closed = true
  self.open_ = {}
  local closers = {}
  for slot in pairs(self.slots) do
    closers[#closers + 1] = task.spawn(function()
      local env = slot.ready.wait()
      if env and self.slots[slot] then
        give_back(self, slot)
      end
    end)
  end
  local failure
  for _, closer in ipairs(closers) do
    local ok, err = closer:join()
    failure = failure or not ok and err
  end
  if failure then
    error(failure, 0)
  end
end

return environments
