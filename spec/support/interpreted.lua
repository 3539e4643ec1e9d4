-- SPDX-License-Identifier: MIT
-- spec/run.lua with the compiler off: valgrind then sees every access of the core as it is written,
-- and none of machine code that was made a moment ago.
jit.off()
dofile("spec/run.lua")
