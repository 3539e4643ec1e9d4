-- SPDX-License-Identifier: MIT
-- The option `binds` of backends whose engines take HERE:THERE. What names no place over there they
-- take as well: as an empty volume that nobody asked for.

local errors = require("farcall.errors")

local binds = {}

---Whether each of them says what is to be seen, and where.
---@param list? string[]
---@return boolean
---@return farcall.Error? err
function binds.check(list)
  for _, text in ipairs(list or {}) do
    local here, there = text:match("^([^:]+):([^:]+)")
    if not here or there:sub(1, 1) ~= "/" then
      local path = here or text
      return false, errors.new("config", "option binds", ("%q does not say where in the container")
        :format(text), { hint = path:sub(1, 1) == "/"
          and ("write %s:%s, or %s:%s:ro to have it read only"):format(path, path, path, path)
          or "write /HERE:/THERE or /HERE:/THERE:ro" })
    end
  end
  return true
end

return binds
