-- SPDX-License-Identifier: MIT
-- Bounds how many calls a run makes, and how fast:
--   policy "budget" { max_calls = 50, per_tool = { terminal = 10 }, per_minute = 120 }
-- A call that comes too early waits for its turn; turns are spaced evenly over all runs.

return {
  name = "budget",
  summary = "bounds the number of calls, in all and of each tool, and their rate",
  options = {
    max_calls = { type = "integer", doc = "calls that a run may make" },
    per_tool = { type = "map", doc = "calls that a run may make of a tool, by its name" },
    per_second = { type = "number", doc = "calls in a second" },
    per_minute = { type = "number", doc = "calls in a minute" },
  },
  before = function(call, ctx)
    local options, run = ctx.options, ctx.run
    run.made = run.made or {}
    -- A call whose arguments a later policy replaces comes by once more.
    if run.latest ~= call.id then
      run.latest = call.id
      run.calls = (run.calls or 0) + 1
      run.made[call.tool] = (run.made[call.tool] or 0) + 1
    end
    local most = options.per_tool and options.per_tool[call.tool]
    -- From the command line it is a text.
    local number = tonumber(most)
    if most and not number then
      return deny(("per_tool: %s is no number of calls"):format(tostring(most)))
    end
    if options.max_calls and run.calls > options.max_calls then
      return deny(("this run has made all of its %d calls"):format(options.max_calls))
    elseif number and run.made[call.tool] > number then
      return deny(("this run has made all of its %d calls of %s"):format(number, call.tool))
    end
    local spacing = math.max(options.per_second and 1 / options.per_second or 0,
      options.per_minute and 60 / options.per_minute or 0)
    if spacing == 0 then
      return allow()
    end
    local now = ctx.now()
    local turn = math.max(ctx.operator.get("next") or 0, now)
    ctx.operator.set("next", turn + spacing)
    return turn > now and wait((turn - now) * 1000) or allow()
  end,
}
