-- SPDX-License-Identifier: MIT
-- A link that can be made bad: a TCP relay (relay.py), a process of its own.

local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local relay = {}

---Must be called in a task; stop() it at the end of the test.
---@param target integer port on loopback
---@param every? integer it pauses for 50 ms after so many bytes
---@param delay? number seconds that each way takes
---@return {port: integer, address: {host: string, port: integer}, stall: function, cut: function,
---stop: function}
function relay.start(target, every, delay)
  local dir = helper.scratch()
  os.execute(("python3 -I -S spec/support/relay.py %d %s %d %g >%s/log 2>&1 </dev/null &")
    :format(target, dir, every or 0, delay or 0, dir))
  local pid = helper.eventually(function()
    return (helper.read(dir .. "/pid") or ""):match("(%d+)\n")
  end, 20)
  assert(pid, "the relay did not start: " .. tostring(helper.read(dir .. "/log")))
  local self = { port = tonumber((helper.read(dir .. "/port"):match("%d+"))) }
  self.address = { host = "127.0.0.1", port = self.port }

  local function flag(name, on)
    if on then
      helper.write(dir .. "/" .. name, "")
    else
      fs.unlink(dir .. "/" .. name)
    end
  end

  ---Nothing moves while it is on, either way, and nobody is told.
  function self.stall(on)
    flag("stall", on)
  end

  ---Every connection is reset, and so is each new one while it is on.
  function self.cut(on)
    flag("cut", on)
  end

  function self.stop()
    os.execute("kill -9 " .. pid .. " 2>/dev/null")
  end

  return self
end

return relay
