-- SPDX-License-Identifier: MIT
-- Where the build under test is; spec/run.lua sets `dir`.
return { dir = "build" }
