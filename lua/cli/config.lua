-- SPDX-License-Identifier: MIT
local json = require("farcall.core.json")
local resolver = require("farcall.config")
local session = require("farcall.cli.session")

local config = {}

config.description = [[
Prints every setting with where it comes from. Later ones count over earlier ones: built-in
defaults, /etc/farcall/config.lua, ~/.config/farcall/config.lua, ./farcall.lua (see `farcall trust`)
or the file that -C names, variables, flags. Policies of all of them add up.]]

local function variables()
  local lines = {}
  for i, variable in ipairs(resolver.VARIABLES) do
    lines[i] = ("  %-20s  %s"):format(variable.name, variable.doc)
  end
  return table.concat(lines, "\n")
end

config.epilog = [[
Examples:
  farcall config
  farcall config -C ./farcall.lua --json

Variables:
]] .. variables() .. [[


Any other variable that begins with FARCALL_ is an error.]]

function config.configure() end

local SETTINGS = {
  "default_backend", "stub_module", "stub_errors", "journal_sync", "state_dir", "runtime_dir",
  "supervisor", "backend_path", "policy_path", "tool_path", "stub_path", "passthrough",
}

local function shown(value)
  if type(value) == "table" then
    return table.concat(value, ", ")
  end
  return value == nil and "-" or tostring(value)
end

-- Options in one line; what a backend calls secret stays so.
local function options_of(entry, secret)
  local words = {}
  for key, value in pairs(entry.options) do
    if secret and secret[key] then
      value = "(secret)"
    elseif type(value) == "table" then
      value = json.encode(value)
    end
    words[#words + 1] = ("%s=%s"):format(key, tostring(value))
  end
  table.sort(words)
  return table.concat(words, " ")
end

local function secrets(cfg, use)
  local backend = require("farcall.catalog").new(cfg):load_backend(use)
  local names = {}
  for name, decl in pairs(backend and backend.options or {}) do
    names[name] = decl.secret
  end
  return names
end

local function rows_of(cfg)
  local rows = {}
  local function add(name, value, origin)
    rows[#rows + 1] = { name, shown(value), origin or "default" }
  end
  for _, name in ipairs(SETTINGS) do
    add(name, cfg[name], cfg.origins[name])
  end
  add("tools", cfg.enabled_tools, cfg.origins.tools)
  local names = {}
  for name in pairs(cfg.limits) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    add("limits." .. name, cfg.limits[name], cfg.origins["limits." .. name])
  end
  for name, entry in pairs(cfg.backends) do
    add("backend " .. name, entry.use .. " " .. options_of(entry, secrets(cfg, entry.use)),
      entry.origin)
  end
  for _, entry in ipairs(cfg.policies) do
    add("policy " .. (entry.name or entry.path), options_of(entry), entry.origin)
  end
  for name, entry in pairs(cfg.tools) do
    add("tool " .. name, entry.summary, entry.origin)
  end
  return rows
end

function config.run(args, ui)
  local cfg, err = session.config(args)
  if not cfg then
    return session.fail(ui, err)
  end
  local rows = rows_of(cfg)
  if ui.json then
    local list = {}
    for i, row in ipairs(rows) do
      list[i] = { name = row[1], value = row[2], origin = row[3] }
    end
    ui:out_json({ settings = json.array(list), files = json.array(cfg.files) })
  else
    ui:columns(rows)
  end
  return 0
end

return config
