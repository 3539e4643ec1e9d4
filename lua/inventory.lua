-- SPDX-License-Identifier: MIT
-- Which environments there are: those that records tell of and those that services do, seen
-- together.

local environments = require("farcall.environments")
local errors = require("farcall.errors")
local identity = require("farcall.identity")
local plugin = require("farcall.plugin")
local task = require("farcall.task")

---@class farcall.Inventory
---@field private cfg farcall.Config
---@field private catalog farcall.Catalog
---@field private environments farcall.Environments
local inventory = {}
inventory.__index = inventory

-- Nobody waits longer for a service that does not answer.
local LIST_SECONDS = 30

---@class farcall.KnownEnvironment
---@field name string
---@field kind "private"|"keyed"|"visited"
---@field backend string
---@field key? string
---@field owner "alive"|"dead"|"unknown" whether the engine that made it is there; of one with a
---key: whether any that uses it is
---@field users integer engines that use one with a key, as far as is known here
---@field created? number unix seconds
---@field used? number
---@field idle? number
---@field exists? boolean as its service says; nil when it could not be asked
---@field record? farcall.EnvironmentRecord
---@field where? farcall.Place by which it can be removed
---@field problem? farcall.Error why it cannot

---@param cfg farcall.Config
---@param catalog farcall.Catalog
---@param envs farcall.Environments
---@return farcall.Inventory
function inventory.new(cfg, catalog, envs)
  return setmetatable({ cfg = cfg, catalog = catalog, environments = envs }, inventory)
end

-- The place of a record. The configuration may have changed since; then the backend itself may do.
local function place_of(self, record)
  local name = self.cfg.backends[record.backend] and record.backend or record.use
  return self.catalog:backend(name, record.options, true)
end

-- Asks a service what it has. Names -> labels, or nil and why.
---@async
local function ask(self, where)
  local list, err = task.timeout(LIST_SECONDS, where.backend.list, where.options,
    self.environments:context())
  if not list then
    return nil, err
  end
  local names = {}
  for _, entry in ipairs(list) do
    names[entry.name] = entry.labels or {}
  end
  return names
end

-- What does not tell one service from another.
local OWN_OPTIONS = { key = true, idle = true }

-- Asks each service once, all of them at the same time.
local function begin_to_ask(self, asked, where)
  local which = environments.fingerprint(where, OWN_OPTIONS)
  asked[which] = asked[which] or { where = where, task = task.spawn(ask, self, where) }
  return asked[which]
end

---How the users of a shared environment stand, as far as is known here.
---@param name string
---@return integer living those that are not known to be dead
---@return string[] dead identities
function inventory:users(name)
  local living, dead = 0, {}
  for _, engine in ipairs(self.environments.records:users(name)) do
    if identity.state(engine) == "dead" then
      dead[#dead + 1] = engine
    else
      living = living + 1
    end
  end
  return living, dead
end

local function row_of_record(self, record)
  local row = {
    name = record.name, kind = record.kind, backend = record.backend, key = record.key,
    created = record.created, used = record.used, idle = record.idle, record = record, users = 0,
    owner = identity.state(record.engine),
  }
  if record.kind == "keyed" then
    row.users = self:users(record.name)
    row.owner = row.users > 0 and "alive" or "dead"
  end
  row.where, row.problem = place_of(self, record)
  return row
end

local function row_of_labels(name, labels, where)
  local key = labels["farcall.key"]
  return {
    name = name, kind = key and "keyed" or "private", key = key, users = 0, exists = true,
    backend = labels["farcall.backend"] or where.name, where = where,
    owner = key and "unknown" or identity.state(labels["farcall.engine"]),
    created = tonumber(labels["farcall.created"]),
  }
end

-- Every backend that could have something: those of the configuration, and the others as they are
-- without any.
local function places(self)
  local list, seen = {}, {}
  local function add(name, configured)
    local where = self.catalog:backend(name, nil, true)
    if where and where.backend.list then
      list[#list + 1] = { where = where, configured = configured }
      seen[where.backend.name] = true
    end
  end
  for name in pairs(self.cfg.backends) do
    add(name, true)
  end
  for _, entry in ipairs(plugin.all("backend", self.cfg.backend_path)) do
    if not seen[entry.name] then
      add(entry.name, false)
    end
  end
  return list
end

---Every environment that is known: by record, or by its service.
---@async
---@return farcall.KnownEnvironment[] sorted by name
---@return {where: string, err: farcall.Error}[] problems services that could not be asked
function inventory:known()
  local rows, by_name, problems = {}, {}, {}
  local list, unreadable = self.environments.records:list()
  for _, path in ipairs(unreadable) do
    problems[#problems + 1] = { where = path,
      err = errors.new("config", path, "this is no record of an environment") }
  end
  local asked = {}
  for _, place in ipairs(places(self)) do
    begin_to_ask(self, asked, place.where).configured = place.configured
  end
  for _, record in ipairs(list) do
    local row = row_of_record(self, record)
    rows[#rows + 1], by_name[record.name] = row, row
    if row.where and row.kind ~= "visited" and row.where.backend.list then
      row.answer = begin_to_ask(self, asked, row.where)
      row.answer.configured = true
    end
  end
  for _, answer in pairs(asked) do
    local ok, names, err = answer.task:join()
    if not ok then
      names, err = nil, errors.is(names) and names or errors.new("internal", "list", names)
    end
    answer.names, answer.err = names, err
    if err and answer.configured then
      problems[#problems + 1] = { where = answer.where.name, err = err }
    end
    for name, labels in pairs(names or {}) do
      if not by_name[name] then
        local row = row_of_labels(name, labels, answer.where)
        rows[#rows + 1], by_name[name] = row, row
      end
    end
  end
  for _, row in ipairs(rows) do
    local answer = row.answer
    if answer and answer.names then
      row.exists = answer.names[row.name] ~= nil
    elseif answer then
      row.problem = answer.err
    end
    row.answer = nil
  end
  table.sort(rows, function(a, b)
    return a.name < b.name
  end)
  return rows, problems
end

return inventory
