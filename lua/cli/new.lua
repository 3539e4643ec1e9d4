-- SPDX-License-Identifier: MIT
local atomicfile = require("farcall.core.atomicfile")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local session = require("farcall.cli.session")
local skeletons = require("farcall.cli.skeletons")
local system = require("farcall.core.system")

local new = {}

local MODE = 420 -- 0644: a text like any other

new.description = [[
Writes a commented file that works as it is: a backend, a policy, a tool or a stub template. Nothing
is compiled; the configuration that uses it is printed.]]

new.epilog = [[
Examples:
  farcall new tool greet -d ~/.config/farcall/tools
  farcall new policy hours && farcall run --policy policies/hours.lua script.py]]

local FOLDERS = { backend = "backends", policy = "policies", tool = "tools", stub = "stubs" }

function new.configure(command)
  command:argument("kind", "backend, policy, tool or stub.")
    :choices({ "backend", "policy", "tool", "stub" })
  command:argument("name", "Letters, digits and _."):argname("NAME")
  command:option("-d --dir", "Where to write it; tools/, policies/ or the like.")
    :argname("DIR")
end

---The path of the file to be, absolute, in a directory that is there.
---@return string? path
---@return string|farcall.Error dir or err
local function target(args)
  if not args.name:find("^%a[%w_]*$") then
    return nil, errors.new("usage", "new " .. args.name,
      "a name has letters, digits and _, a letter first")
  end
  -- Not the current directory: a configuration in it is no tool or policy.
  local wanted = args.dir or FOLDERS[args.kind]
  local made, message, code = fs.mkdir(wanted, 493, true)
  local dir = fs.realpath(wanted)
  if not dir then
    return nil, errors.wrap("directory " .. wanted, made and "?" or message, code)
  end
  local path = ("%s/%s.lua"):format(dir, args.name)
  if fs.stat(path, true) then
    return nil, errors.new("usage", path, "is there already; nothing was written")
  end
  return path, dir
end

function new.run(args, ui)
  local path, dir = target(args)
  if not path then
    return session.fail(ui, dir)
  end
  local values = { NAME = args.name, PATH = path, DIR = dir }
  local function filled(text)
    return (text:gsub("%f[%w_](%u+)%f[^%w_]", values))
  end
  local skeleton = skeletons[args.kind]
  local ok, message, code = atomicfile.write(path, filled(skeleton.text), { mode = MODE })
  if not ok then
    return session.fail(ui, errors.wrap("write " .. path, message, code))
  end
  local use, try = filled(skeleton.use), filled(skeleton.try)
  if ui.json then
    ui:out_json({ path = path, config = use, try = try })
    return 0
  end
  ui:out(path .. "\n")
  ui:say(("in a configuration (%s/farcall.lua, then `farcall trust`):\n\n  %s\n\ntry: %s")
    :format(system.cwd(), (use:gsub("\n", "\n  ")), try))
  return 0
end

return new
