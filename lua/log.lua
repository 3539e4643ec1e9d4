-- SPDX-License-Identifier: MIT
-- What is told while things go on, by level. It is handed down as a function: who has something to
-- tell knows neither where it goes nor whether anybody wants to hear it.

local log = {}

local RANK = { debug = 1, info = 2, warning = 3, error = 4 }

---@alias farcall.LogLevel "debug"|"info"|"warning"|"error"
---@alias farcall.Log fun(level: farcall.LogLevel, text: string)

---@param least farcall.LogLevel what is below it is dropped
---@param write fun(text: string, level: farcall.LogLevel)
---@return farcall.Log
function log.new(least, write)
  if not RANK[least] then
    error("unknown level: " .. tostring(least), 2)
  end
  return function(level, text)
    local rank = RANK[level] or error("unknown level: " .. tostring(level), 2)
    if rank >= RANK[least] then
      write(text, level)
    end
  end
end

return log
