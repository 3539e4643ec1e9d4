-- SPDX-License-Identifier: MIT
local diagnosis = require("farcall.cli.diagnosis")
local json = require("farcall.core.json")
local task = require("farcall.task")

local doctor = {}

local EXIT_OK, EXIT_ENGINE = 0, 125
local COLORS = { ok = "green", warn = "bold", fail = "red" }

doctor.description = [[
Tells what works here and how to mend what does not: configuration, directories, how process trees
are held, the Python interpreter, a script with one call, and what dead engines have left.]]

doctor.epilog = [[
Examples:
  farcall doctor
  farcall doctor --json

Exit code: 0 when nothing fails, 125 otherwise.]]

function doctor.configure() end

function doctor.run(args, ui)
  local findings = task.run(diagnosis.all, { file = args.config })
  local fails = 0
  for _, found in ipairs(findings) do
    fails = fails + (found.status == "fail" and 1 or 0)
  end
  if ui.json then
    ui:out_json({ ok = fails == 0, findings = json.array(findings) })
  else
    for _, found in ipairs(findings) do
      local status = ui:paint(COLORS[found.status], ("%-4s"):format(found.status))
      ui:out(("%s  %-14s %s\n"):format(status, found.name, found.message))
      if found.hint then
        ui:out((" "):rep(21) .. found.hint .. "\n")
      end
    end
  end
  return fails == 0 and EXIT_OK or EXIT_ENGINE
end

return doctor
