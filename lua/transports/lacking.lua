-- SPDX-License-Identifier: MIT
-- What an environment can lack for a run, said in the same words whichever way calls take.

local errors = require("farcall.errors")

local lacking = {}

---@param places string[] where the run's directory could have been
---@param bytes integer that its files need
---@return farcall.Error
function lacking.place(places, bytes)
  return errors.new("denied", "directory of the run", "none of " .. table.concat(places, ", ")
    .. " can be written to", { hint = ("the script's files need %d bytes"):format(bytes) })
end

---@param names string[] of the interpreters that would do
---@return farcall.Error
function lacking.interpreter(names)
  return errors.new("not_found", "interpreter",
    ("the environment has no %s"):format(table.concat(names, ", no ")),
    { code = "ENOENT", hint = "choose an environment that has it, or another language" })
end

return lacking
