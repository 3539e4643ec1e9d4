-- SPDX-License-Identifier: MIT
-- What every environment must do, seen through the engine, against the real thing. The specs in
-- contract/ each name one kind of environment and call this; the other files there hold the items.

local busted = require("busted")

---@class spec.Contract one kind of environment
---@field use string the backend
---@field options? table of it
---@field backend_path? string[]
---@field environ? table<string, string> of the operator, over what engines.config has
---@field caps table<string, any> what the environment must say of itself; true: anything but no
---@field python? boolean there is a Python inside (yes unless false)
---@field transports? ("uds"|"file")[] for Python; file unless given
---@field huge? boolean payloads of 64 MiB (yes unless false)
---@field die? fun(env: farcall.Env) makes the environment dead; without it, it cannot die
---@field outlives? boolean commands without a deadline outlive their link
---@field shared? {key: string} options of an environment that the items share
---@field left? fun(engine: string): string[] what the service still holds for this engine, but for
---what is shared
---@field wrong? table[] options that cannot work: {what, options, kind, code?}

local PARTS = { "streams", "trees", "shells", "scripts", "lives" }

---@param name string
---@param setup spec.Contract
local function contract(name, setup)
  busted.describe("contract: " .. name, function()
    for _, part in ipairs(PARTS) do
      require("spec.backends.contract." .. part)(setup)
    end
  end)
end

return contract
