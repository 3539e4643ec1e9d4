-- SPDX-License-Identifier: MIT
-- busted's helper: after each test of every file the process must be as it was before it.

local helper = require("spec.helper")

before_each(helper.note_state)
after_each(helper.check_leaks)
