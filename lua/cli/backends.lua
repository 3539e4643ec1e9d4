-- SPDX-License-Identifier: MIT
local listing = require("farcall.cli.listing")

return listing.command("backend", "backends", {
  description = [[
Lists the backends: where scripts can run. With a name: its options, as -o KEY=VALUE or in the
configuration take them. A list is -o KEY=A,B, a map -o KEY=NAME=VALUE,OTHER=VALUE.]],
  epilog = [[
Examples:
  farcall backends
  farcall backends local
  farcall new backend mine && farcall backends mine]],
  configured = function(cfg)
    return cfg.backends
  end,
})
