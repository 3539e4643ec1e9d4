-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local kept_runs = require("farcall.runs")
local json = require("farcall.core.json")
local session = require("farcall.cli.session")

local runs = {}

runs.description = [[
Lists what ran, or shows one run with its calls. Runs that ended more than 90 days ago are
forgotten, unless limits { journal_days = N } in a configuration says otherwise.]]

runs.epilog = [[
Examples:
  farcall runs ls
  farcall runs show 20260117-101500-123-0a1b2c3d4e]]

function runs.configure(command)
  command:argument("action", "What to do: ls or show."):choices({ "ls", "show" })
    :args("?")
  command:argument("id", "The run to show."):args("?")
end

-- What is worth a line of a run; `farcall runs show` has the rest.
local function summary(entry)
  local job, result = entry.job or {}, entry.result or {}
  return {
    run_id = entry.run_id, status = entry.status, started = entry.started, backend = job.backend,
    filename = job.filename, exit_code = result.exit_code, signal = result.signal,
    tool_calls_made = result.tool_calls_made, duration_seconds = result.duration_seconds,
  }
end

local function list(cfg, ui)
  local all, err = kept_runs.list(cfg.state_dir)
  if not all then
    return session.fail(ui, err)
  end
  local summaries, rows = {}, {}
  for i, entry in ipairs(all) do
    local run = summary(entry)
    summaries[i] = run
    rows[i] = {
      run.run_id, run.status, tostring(run.backend or "-"),
      run.tool_calls_made and ("%d calls"):format(run.tool_calls_made) or "-",
      run.duration_seconds and ("%.2f s"):format(run.duration_seconds) or "-",
      (tostring(run.filename or "-c"):gsub("%c", "?")),
    }
  end
  if ui.json then
    ui:out_json({ runs = json.array(summaries) })
  else
    ui:columns(rows)
  end
  return 0
end

local function show(cfg, id, ui)
  local kept, err = kept_runs.read(cfg.state_dir, id)
  if not kept then
    return session.fail(ui, err)
  end
  if ui.json then
    ui:out_json(kept)
    return 0
  end
  local result = kept.result or {}
  ui:out(("run %s: %s\n"):format(id, tostring(result.status or "unfinished")))
  if result.error then
    ui:out(ui.plain(result.error) .. "\n")
  end
  local rows = {}
  for _, call in ipairs(result.calls or {}) do
    rows[#rows + 1] = { tostring(call.id), call.tool, call.outcome,
      ("%.1f ms"):format(call.duration * 1e3), call.arguments }
  end
  ui:columns(rows)
  ui:out(result.output or "")
  return 0
end

function runs.run(args, ui)
  local cfg, err = session.config(args)
  if not cfg then
    return session.fail(ui, err)
  end
  if (args.action or "ls") == "ls" then
    return list(cfg, ui)
  end
  if not args.id then
    return session.fail(ui, errors.new("usage", "runs show", "which run? `farcall runs ls` lists"))
  end
  return show(cfg, args.id, ui)
end

return runs
