-- SPDX-License-Identifier: MIT
-- Services that have less than an exec needs, by an adapter that hides it.
local contract = require("spec.backends.contract")

local WORSE = {
  { "without a living standard input", { stdin = "bytes" } },
  { "without standard input, for command lines only", { stdin = "none", words = false } },
}

for _, case in ipairs(WORSE) do
  local options = case[2]
  contract.all("a service " .. case[1], {
    use = "bare", backend_path = { "spec/fixtures/backends" }, options = options, huge = false,
    caps = {
      argv = options.words ~= false, stdin = options.stdin, stdout = "stream", split = true,
      status = "exact", kill = "none", same_host = false,
    },
  })
end
