-- SPDX-License-Identifier: MIT
-- For spec/stress/embed.c.
backend_path { "backends" }
