-- SPDX-License-Identifier: MIT
local config = require("farcall.config")
local json = require("farcall.core.json")
local session = require("farcall.cli.session")
local trust = require("farcall.trust")

local command = {}

command.description = [[
Records ./farcall.lua and every file that it names as they are now. A configuration is code: farcall
uses the one of the current directory only when it is trusted, and no longer when one of the files
has changed.]]

command.epilog = [[
Example:
  less farcall.lua && farcall trust]]

function command.configure() end

function command.run(_, ui)
  local layer, state_dir = config.here()
  if not layer then
    return session.fail(ui, state_dir)
  end
  local granted, err = trust.grant(state_dir, layer)
  if not granted then
    return session.fail(ui, err)
  end
  local paths = {}
  for path in pairs(trust.hashes(layer)) do
    paths[#paths + 1] = path
  end
  table.sort(paths)
  if ui.json then
    ui:out_json({ trusted = json.array(paths) })
  else
    for _, path in ipairs(paths) do
      ui:say("trusted: " .. path)
    end
  end
  return 0
end

return command
