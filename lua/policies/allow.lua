-- SPDX-License-Identifier: MIT
-- Lets through what is listed, refuses the rest:
--   policy "allow" { tools = { "read_file" }, paths = { "src" }, commands = { "ls [%w ]*" } }
-- Rules bind calls, not the script: what it does by itself, and where a symbolic link in its
-- environment leads, is a matter of how that environment is isolated.

local function listed(list, wanted)
  for _, entry in ipairs(list) do
    if entry == wanted then
      return true
    end
  end
  return false
end

-- Each pattern must fit the whole command, which must be a single one.
local function fits(command, patterns)
  for _, pattern in ipairs(patterns) do
    if command:find("^" .. pattern .. "$") then
      return not command:find("[;&|<>`$()\n\\]")
    end
  end
  return false
end

local function inside(path, directories)
  for _, dir in ipairs(directories) do
    local relative = dir == "." and path:sub(1, 1) ~= "/"
    if relative or path == dir or path:sub(1, #dir + 1) == dir .. "/" then
      return not ("/" .. path .. "/"):find("/../", 1, true)
    end
  end
  return false
end

return {
  name = "allow",
  summary = "lets only the listed tools be called, with commands and paths that fit",
  options = {
    tools = { type = "list", required = true, doc = "names of the tools that may be called" },
    commands = { type = "list", doc = "Lua patterns; a command must fit one of them as a whole" },
    paths = { type = "list", doc = "directories that a path must be in, as scripts write them" },
  },
  before = function(call, ctx)
    local options, arguments = ctx.options, call.arguments
    if not listed(options.tools, call.tool) then
      return deny(call.tool .. " is not among the tools that may be called")
    end
    if options.commands and arguments.command and not fits(arguments.command, options.commands) then
      return deny("no rule allows the command " .. arguments.command)
    end
    if options.paths and arguments.patch then
      return deny("a patch of several files names its paths in the text; use mode replace")
    end
    for _, path in pairs({ arguments.path, arguments.workdir }) do
      if options.paths and not inside(path, options.paths) then
        return deny("no rule allows the path " .. path)
      end
    end
    return allow()
  end,
}
