-- SPDX-License-Identifier: MIT
local listing = require("farcall.cli.listing")

return listing.command("tool", "tools", {
  description = [[
Lists the tools that there are. With a name: its parameters. Which ones scripts may call,
`farcall config` tells.]],
  epilog = [[
Examples:
  farcall tools
  farcall tools terminal
  farcall tools terminal --json]],
})
