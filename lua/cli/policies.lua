-- SPDX-License-Identifier: MIT
local listing = require("farcall.cli.listing")

return listing.command("policy", "policies", {
  description = [[
Lists the policies: rules that are asked about each tool call. With a name: its options. Which ones
are in force here, `farcall config` tells.]],
  epilog = [[
Examples:
  farcall policies
  farcall policies budget
  farcall run --policy budget:max_calls=10 script.py]],
})
