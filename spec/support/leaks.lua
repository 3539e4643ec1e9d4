-- SPDX-License-Identifier: MIT
-- busted's helper: after each test of every file the process must be as it was before it.

local busted = require("busted")
local helper = require("spec.helper")

busted.before_each(helper.note_state)
busted.after_each(helper.check_leaks)
