-- SPDX-License-Identifier: MIT
-- Several environments of one place: which of them a run gets.

local environments = require("farcall.environments")
local task = require("farcall.task")

-- Seconds for which an environment that could not be opened is only taken when all others are like
-- it: it has nothing to do, and would get every run.
local REST = 5

---@class farcall.Pools
---@field private pools table<string, farcall.pools.Member[]> by place
local pools = {}
pools.__index = pools

---@class farcall.pools.Member
---@field number integer
---@field load integer runs that have it now
---@field rested number when it counts again after a failure

---A run's place in one of the environments.
---@class farcall.pools.Seat
local Seat = {}
Seat.__index = Seat

---@return farcall.Pools
function pools.new()
  return setmetatable({ pools = {} }, pools)
end

---Takes the environment with the fewest runs, of so many, and makes the place mean that one.
---@param where farcall.Place
---@param size integer
---@return farcall.pools.Seat
function pools:take(where, size)
  local key = environments.fingerprint(where)
  local members = self.pools[key] or {}
  self.pools[key] = members
  local now = task.now()
  local best
  for number = 1, size do
    local member = members[number] or { number = number, load = 0, rested = 0 }
    members[number] = member
    local resting = member.rested > now
    if not best or best.rested > now and not resting
      or member.load < best.load and resting == (best.rested > now)
    then
      best = member
    end
  end
  best.load = best.load + 1
  where.member = best.number
  -- The first is the one that has the key when there is no pool.
  if where.options.key and best.number > 1 then
    where.options.key = ("%s-%d"):format(where.options.key, best.number)
  end
  return setmetatable({ member = best }, Seat)
end

---The environment could not be opened.
function Seat:failed()
  self.member.rested = task.now() + REST
end

---The run has ended. Once.
function Seat:leave()
  self.member.load = self.member.load - 1
end

return pools
