-- SPDX-License-Identifier: MIT
-- busted's helper: after each test of every file the process must be as it was before it. What is
-- left is told with the test's name, which busted does not give for a hook of the whole suite.

local busted = require("busted")
local helper = require("spec.helper")

local running
busted.subscribe({ "test", "start" }, function(test)
  running = ("%s:%d: %s"):format(test.trace.short_src, test.trace.currentline, test.name)
  return nil, true
end)

busted.before_each(helper.note_state)
busted.after_each(function()
  local left = helper.left_behind()
  if left then
    error(("%s: the test left behind: %s"):format(running, left), 0)
  end
end)
