-- SPDX-License-Identifier: MIT
-- Finds processes by a text in their environment, wherever in the tree they are.
local fs = require("farcall.core.fs")

-- Pids of processes that have this text in their environment. Zombies have none.
return function(mark)
  local pids = {}
  for _, name in ipairs(assert(fs.list("/proc"))) do
    local file = name:find("^%d+$") and io.open("/proc/" .. name .. "/environ", "rb")
    if file then
      local environ = file:read("*a")
      file:close()
      if environ and environ:find(mark, 1, true) then
        pids[#pids + 1] = tonumber(name)
      end
    end
  end
  return pids
end
