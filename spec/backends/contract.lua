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
---@field runner? "c"|"python" everything goes through a runner of this form

-- What an environment can do beside its own while a runner lives in it.
local WITH_RUNNER = {
  argv = true, stdin = "stream", stdout = "stream", split = true, status = "exact",
  kill = "native",
}

local PARTS = { "streams", "trees", "shells", "scripts", "lives" }

---@class spec.Contracts
local contract = {}

---@param name string
---@param setup spec.Contract
local function describe(name, setup)
  busted.describe("contract: " .. name, function()
    for _, part in ipairs(PARTS) do
      require("spec.backends.contract." .. part)(setup)
    end
  end)
end

-- The same environment with a runner in it.
local function with_runner(setup, form)
  local changed = { caps = {} }
  for key, value in pairs(setup) do
    if key ~= "caps" then
      changed[key] = value
    end
  end
  for _, source in ipairs({ setup.caps, WITH_RUNNER }) do
    for cap, value in pairs(source) do
      changed.caps[cap] = value
    end
  end
  changed.runner, changed.transports, changed.outlives = form, { "stream" }, nil
  return changed
end

---Without a runner, and through one of each of these forms.
---@param name string
---@param setup spec.Contract
---@param forms? ("c"|"python")[]
function contract.all(name, setup, forms)
  describe(name, setup)
  for _, form in ipairs(forms or {}) do
    describe(("%s, by the runner in %s"):format(name, form == "c" and "C" or "Python"),
      with_runner(setup, form))
  end
end

return contract
