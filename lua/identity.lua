-- SPDX-License-Identifier: MIT
-- Who an engine is, in one word that outlives it: machine, boot, PID namespace, pid and when that
-- process began. Whoever finds the word later can tell whether the engine is still there; a pid
-- alone may be somebody else's by then.

local fs = require("farcall.core.fs")
local hex = require("farcall.hex")
local sha256 = require("farcall.core.sha256")
local system = require("farcall.core.system")

local identity = {}

local PATTERN = "^(%x+)%-(%x+)%-(%d+)%-(%d+)%-(%d+)%-%x+$"

---When a process began, in the kernel's ticks: with the pid it tells one process from all others of
---this boot. nil if there is no such process, or one that has ended and only waits to be reaped.
---@param pid integer
---@return string?
function identity.start_of(pid)
  local stat = fs.read(("/proc/%d/stat"):format(pid), 4096)
  -- Behind the name, which may hold anything, in its closing parenthesis.
  local fields = stat and stat:match("^.*%) (.*)$")
  local n = 2
  for field in (fields or ""):gmatch("%S+") do
    n = n + 1
    if n == 3 and (field == "Z" or field == "X") then
      return nil
    elseif n == 22 then
      return field
    end
  end
  return nil
end

-- Machine, boot and PID namespace of this process. Copies of one image have one machine id, and
-- many machines have one name: together they tell more. Of one boot there is one machine, whatever
-- it is called meanwhile.
local function place()
  local machine = fs.read("/etc/machine-id", 256) or ""
  local boot = fs.read("/proc/sys/kernel/random/boot_id", 256)
  local namespace = fs.readlink("/proc/self/ns/pid") or ""
  return sha256.hex(system.hostname() .. "\n" .. machine):sub(1, 12),
    boot and sha256.hex(boot):sub(1, 12) or "0", namespace:match("%d+") or "0"
end

---A new word for an engine of this process: at most 63 of [a-z0-9-].
---@return string
function identity.new()
  local machine, boot, namespace = place()
  local pid = system.pid()
  local tail = hex.random(2)
  return table.concat({ machine, boot, namespace, ("%d"):format(pid),
    identity.start_of(pid) or "0", tail }, "-")
end

---Whether the engine of this word is still there. "unknown": it is on another machine or in another
---container, which cannot be looked into from here, or this is no such word.
---@param word any
---@return "alive"|"dead"|"unknown"
function identity.state(word)
  local machine, boot, namespace, pid, start = tostring(word):match(PATTERN)
  local here_machine, here_boot, here_namespace = place()
  if not machine or boot == "0" or here_boot == "0" then
    return "unknown"
  elseif boot ~= here_boot then
    return machine == here_machine and "dead" or "unknown"
  elseif namespace ~= here_namespace then
    return "unknown"
  end
  return identity.start_of(tonumber(pid)) == start and "alive" or "dead"
end

return identity
