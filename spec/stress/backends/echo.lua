-- SPDX-License-Identifier: MIT
-- A backend that runs nothing: each oneshot answers with its input, some of them after a while.

local task = require("farcall.task")

local count = 0

return {
  name = "echo", summary = "answers with its input", api = 1, options = {},
  caps = { stdin = "bytes", stdout = "end", split = true, status = "exact", kill = "native" },
  open = function()
    return {
      exec = function(_, spec)
        count = count + 1
        if count % 16 == 0 then
          task.sleep(0.001)
        end
        return {
          exit_code = 7, stdout = spec.stdin, stderr = "", truncated = false, timed_out = false,
        }
      end,
      alive = function()
        return true
      end,
      close = function() end,
    }
  end,
}
