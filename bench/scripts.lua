-- 64 scripts in one engine, 100 calls each, all calling at once: calls a second, none lost; and the
-- engine's resident size. Run as: host bench/scripts.lua, in the folder of the project.
local config = require("farcall.config")
local engine = require("farcall.engine")
local system = require("farcall.core.system")
local task = require("farcall.task")

local SCRIPTS, CALLS = 64, 100

-- Everybody waits in `ready` until all are there, so that start-up is not counted.
local SCRIPT = ([[
from farcall import echo, ready
ready()
answers = [echo(i)["n"] for i in range(%d)]
assert answers == list(range(%d))
]]):format(CALLS, CALLS)

task.run(function()
  local cfg = assert(config.load({ file = "bench/config.lua" }))
  local all_here, here, began = task.event(), 0, nil
  cfg.tools.ready = {
    summary = "Returns when every script is here.",
    parameters = { type = "object", properties = {} },
    handler = function()
      here = here + 1
      if here == SCRIPTS then
        began = task.now()
        all_here.set()
      end
      all_here.wait()
      return true
    end,
  }
  cfg.enabled_tools = { "echo", "ready" }
  cfg.policies = {}
  local one = engine.new(cfg)
  local runs, finished = {}, 0
  for i = 1, SCRIPTS do
    runs[i] = task.spawn(function()
      local result = assert(one:run({ script = SCRIPT, language = "python" }, {
        call = function(record)
          if record.tool == "echo" then
            finished = task.now()
          end
        end,
      }))
      assert(result.status == "success", result.stderr)
      return result.tool_calls_made
    end)
  end
  local made = 0
  for _, run in ipairs(runs) do
    local ok, calls = run:join()
    assert(ok, calls)
    made = made + calls - 1
  end
  print(("%d scripts x %d calls: %d answered, %.0f calls/s, engine %.1f MB resident"):format(
    SCRIPTS, CALLS, made, made / (finished - began), system.rss_bytes() / 1e6))
  one:close()
end)
