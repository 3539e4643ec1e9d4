-- SPDX-License-Identifier: MIT
-- What a human sees of a batch: on a terminal one line that is kept up to date, elsewhere a line
-- every now and then; and the sum at the end.

local task = require("farcall.task")

local batch_progress = {}

-- Seconds from one look to the next: of a terminal, and where lines stay.
local TERMINAL, ELSEWHERE = 0.25, 10

local function duration(seconds)
  if seconds < 60 then
    return ("%.0fs"):format(seconds)
  elseif seconds < 3600 then
    return ("%dm%02ds"):format(seconds / 60, seconds % 60)
  end
  return ("%dh%02dm"):format(seconds / 3600, seconds % 3600 / 60)
end

---How far a batch is, in one line.
---@param one farcall.Batch
---@param now number
---@return string
function batch_progress.line(one, now)
  local counts, ended = one.counts, one:ended()
  local bad = counts.failed + counts.not_run + counts.refused + counts.interrupted
  local elapsed = now - (one.began or now)
  local rate = elapsed > 0 and (ended - one.earlier) / elapsed or 0
  local parts = {
    one.total and ("%d/%d done"):format(ended, one.total) or ("%d done"):format(ended),
    ("%d running"):format(one.running),
  }
  parts[#parts + 1] = bad > 0 and ("%d failed"):format(bad) or nil
  parts[#parts + 1] = counts.unknown > 0 and ("%d unknown"):format(counts.unknown) or nil
  parts[#parts + 1] = one.retried > 0 and ("%d retried"):format(one.retried) or nil
  parts[#parts + 1] = rate > 0 and ("%.3g/s"):format(rate) or nil
  if one.total and rate > 0 and ended < one.total then
    parts[#parts + 1] = duration((one.total - ended) / rate) .. " left"
  end
  return table.concat(parts, ", ")
end

---Shows it until the function that is returned is called.
---@param ui farcall.Ui
---@param one farcall.Batch
---@return fun() stop
function batch_progress.show(ui, one)
  if ui.quiet or ui.json and not ui.terminal then
    return function() end
  end
  local shown = false
  local watcher = task.spawn(function()
    while true do
      task.sleep(ui.terminal and TERMINAL or ELSEWHERE)
      local line = batch_progress.line(one, task.now())
      if ui.terminal then
        shown = true
        ui:err("\r\27[K" .. ui:paint("dim", line))
      else
        ui:say(line)
      end
    end
  end)
  return function()
    watcher:cancel()
    if shown then
      ui:err("\r\27[K")
    end
  end
end

-- How the states are told, in this order.
local WORDS = {
  { "succeeded", "succeeded" }, { "failed", "failed" }, { "interrupted", "interrupted" },
  { "unknown", "of unknown end" }, { "not_run", "could not be started" },
  { "refused", "refused" },
}

---The last words.
---@param ui farcall.Ui
---@param one farcall.Batch
---@param path string of the results
function batch_progress.report(ui, one, path)
  local parts = {}
  for _, word in ipairs(WORDS) do
    local count = one.counts[word[1]]
    parts[#parts + 1] = count > 0 and ("%d %s"):format(count, word[2]) or nil
  end
  parts[#parts + 1] = one.missing > 0 and ("%d not begun"):format(one.missing) or nil
  local fresh = one:ended() - one.earlier
  ui:say(("%s in %s (%.3g/s%s); results in %s"):format(
    #parts > 0 and table.concat(parts, ", ") or "no jobs", duration(one.seconds),
    one.seconds > 0 and fresh / one.seconds or 0,
    one.earlier > 0 and (", %d of them earlier"):format(one.earlier) or "", path))
  if one.obstacle then
    ui:say(("could not be started: %s"):format(tostring(one.obstacle)))
  end
  if one.counts.unknown > 0 then
    ui:say("of unknown end are jobs that were started when a batch was killed: look what they have"
      .. " done; `--again unknown` runs them once more")
  end
  if one.stopping or one.missing > 0 then
    ui:say("the same command goes on where this one has stopped")
  end
end

return batch_progress
