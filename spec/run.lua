-- SPDX-License-Identifier: MIT
-- Runs the specs with busted inside the spec host: host spec/run.lua [busted's options] FILE...
-- The Lua tree is looked for beside the host, the specs' own helpers under spec/support.
local build = arg[-1]:match("^(.*)/[^/]*$") or "."
package.path = build .. "/lua/?.lua;" .. build .. "/lua/?/init.lua;" .. "./?.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath
require("spec.support.build").dir = build
require("busted.runner")({ standalone = false })
