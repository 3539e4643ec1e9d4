-- SPDX-License-Identifier: MIT
local diagnosis = require("farcall.cli.diagnosis")
local json = require("farcall.core.json")
local session = require("farcall.cli.session")
local task = require("farcall.task")

local doctor = {}

local EXIT_OK, EXIT_ENGINE = 0, 125
local NAME_WIDTH = 14
local COLORS = { ok = "green", warn = "bold", fail = "red" }

doctor.description = [[
Tells what works here and how to mend what does not: configuration, directories, how process trees
are held, the Python interpreter, a script with one call, what dead engines have left, and each
backend of the configuration, or the one that is named, by opening an environment.]]

doctor.epilog = [[
Examples:
  farcall doctor
  farcall doctor -b docker -o image=python:3.12-slim
  farcall doctor --json

Exit code: 0 when nothing fails, 125 otherwise.]]

function doctor.configure(command)
  session.add_backend_flags(command)
end

function doctor.run(args, ui)
  local options, err = session.backend_options(args)
  if not options then
    return session.fail(ui, err)
  end
  local findings = task.run(diagnosis.all, { file = args.config }, args.backend, options)
  local fails = 0
  for _, found in ipairs(findings) do
    fails = fails + (found.status == "fail" and 1 or 0)
  end
  if ui.json then
    ui:out_json({ ok = fails == 0, findings = json.array(findings) })
  else
    local width = NAME_WIDTH
    for _, found in ipairs(findings) do
      width = math.max(width, #found.name)
    end
    for _, found in ipairs(findings) do
      local status = ui:paint(COLORS[found.status], ("%-4s"):format(found.status))
      ui:out(("%s  %s %s\n"):format(status,
        found.name .. (" "):rep(width - #found.name), ui.plain(found.message)))
      if found.hint then
        ui:out((" "):rep(width + 7) .. ui.plain(found.hint) .. "\n")
      end
    end
  end
  return fails == 0 and EXIT_OK or EXIT_ENGINE
end

return doctor
