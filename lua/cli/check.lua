-- SPDX-License-Identifier: MIT
local session = require("farcall.cli.session")

local check = {}

check.description = [[
Looks for mistakes in the configuration, its policies, tools and backends. Starts nothing.]]

check.epilog = [[
Examples:
  farcall check
  farcall check -C ./farcall.lua --json

Exit code: 0 when nothing is wrong, 125 otherwise.]]

function check.configure() end

function check.run(args, ui)
  local cfg, err = session.config(args)
  if not cfg then
    return session.fail(ui, err)
  end
  local problems = require("farcall.catalog").new(cfg):check()
  if ui.json then
    local json = require("farcall.core.json")
    ui:out_json({ ok = #problems == 0, problems = json.array(problems) })
  else
    for _, problem in ipairs(problems) do
      ui:err(("%s: %s\n"):format(problem.where, problem.message))
    end
    ui:say(#problems == 0 and "nothing is wrong" or ("%d to mend"):format(#problems))
  end
  return #problems == 0 and 0 or 125
end

return check
