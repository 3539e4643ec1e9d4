-- SPDX-License-Identifier: MIT
-- What a human sees of a run besides the script's output: a line that counts while it runs, on a
-- terminal only, and one that sums up at its end.

local task = require("farcall.task")

local progress = {}

local INTERVAL = 0.1

---@param ui farcall.Ui
---@return {call: fun(record: table), clear: fun()}
function progress.new(ui)
  local shown = { calls = 0, next_time = 0, visible = false }
  local live = ui.terminal and not ui.quiet and not ui.json

  function shown.call(record)
    shown.calls = shown.calls + 1
    local now = task.now()
    if live and now >= shown.next_time then
      shown.next_time = now + INTERVAL
      shown.visible = true
      ui:err(("\r\27[K%s"):format(ui:paint("dim",
        ("%d calls, last %s"):format(shown.calls, record.tool))))
    end
  end

  function shown.clear()
    if shown.visible then
      shown.visible = false
      ui:err("\r\27[K")
    end
  end

  return shown
end

---@return string
local function in_units(seconds)
  if seconds < 0.001 then
    return ("%.0f us"):format(seconds * 1e6)
  elseif seconds < 1 then
    return ("%.1f ms"):format(seconds * 1e3)
  end
  return ("%.2f s"):format(seconds)
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)] or 0
end

---The last line, for a human: on a terminal or with -v; what went wrong always.
---@param ui farcall.Ui
---@param result table
function progress.report(ui, result)
  -- A script that exits with a code has its reasons, and has told them.
  local told = ui.quiet and result.status == "error" and result.exit_code
  if result.status ~= "success" and result.error and not told then
    ui:fail(result.error)
    -- An error that was told whole has it already.
    if result.hint and not result.error:find(result.hint, 1, true) then
      ui:say("hint: " .. result.hint)
    end
  end
  if not (ui.terminal or ui.verbose) or ui.quiet then
    return
  end
  local times, failed = {}, 0
  for _, record in ipairs(result.calls) do
    if record.outcome == "done" then
      times[#times + 1] = record.duration
    else
      failed = failed + 1
    end
  end
  local text = ("%s in %s, %d call%s"):format(result.status, in_units(result.duration_seconds),
    result.tool_calls_made, result.tool_calls_made == 1 and "" or "s")
  if #times > 0 then
    text = text .. (" (%s each at the median%s)"):format(in_units(median(times)),
      failed > 0 and (", %d not done"):format(failed) or "")
  end
  if result.transport then
    text = text .. ", by " .. result.transport
  end
  ui:say(text .. ", run " .. result.run_id, "dim")
  -- That files would do is no news where nothing was expected to be quicker.
  if ui.verbose and result.transport == "file" and result.transport_reason then
    ui:say("calls by files, because not by " .. result.transport_reason:gsub("^uds: [^;]*; ", ""),
      "dim")
  end
end

return progress
