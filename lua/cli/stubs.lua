-- SPDX-License-Identifier: MIT
local listing = require("farcall.cli.listing")

return listing.command("stub", "stubs", {
  description = [[
Lists the languages that scripts can be written in: one stub template each, which makes the module
that a script imports. With a name: file extensions and interpreters.]],
  epilog = [[
Examples:
  farcall stubs
  farcall stubs python]],
})
