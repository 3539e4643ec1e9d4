-- SPDX-License-Identifier: MIT
-- For spec/stress/embed.c.
-- luacheck: globals backend_path
backend_path { "backends" }
