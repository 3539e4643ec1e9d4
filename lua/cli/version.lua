-- SPDX-License-Identifier: MIT
local base64 = require("farcall.core.base64")
local cli = require("farcall.cli")
local jit = require("jit")

local version = {}

version.description = "Prints the versions of farcall and of what it is made of."
version.epilog = "Example:\n  farcall version --json"

function version.configure() end

function version.run(_, ui)
  if ui.json then
    ui:out_json({ farcall = cli.VERSION, luajit = jit.version, base64 = base64.level() })
  else
    ui:out(("farcall %s\n%s\nbase64 %s\n"):format(cli.VERSION, jit.version, base64.level()))
  end
  return 0
end

return version
