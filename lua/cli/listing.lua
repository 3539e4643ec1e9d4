-- SPDX-License-Identifier: MIT
-- What `farcall backends`, `policies`, `tools` and `stubs` share: a list of all of a kind, or one
-- described with its options or parameters.

local catalog = require("farcall.catalog")
local json = require("farcall.core.json")
local session = require("farcall.cli.session")

local listing = {}

local EXIT_OK, EXIT_ENGINE = 0, 125

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map or {}) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function as_text(value)
  if type(value) == "string" then
    return value
  end
  return (json.encode(value)) or tostring(value)
end

---A backend's or policy's option in words: type, required, default, choices.
local function option_row(name, decl)
  local facts = { decl.type or "any" }
  if decl.one_of then
    local choices = {}
    for i, choice in ipairs(decl.one_of) do
      choices[i] = as_text(choice)
    end
    facts[1] = table.concat(choices, "|")
  end
  if decl.required then
    facts[#facts + 1] = "required"
  elseif decl.default ~= nil then
    facts[#facts + 1] = "default " .. as_text(decl.default)
  end
  if decl.secret then
    facts[#facts + 1] = "secret"
  end
  return { "  " .. name, table.concat(facts, ", "), decl.doc or "" }
end

---A tool's parameter, from its JSON Schema.
local function parameter_row(name, property, required)
  local kind = property.enum and as_text(json.array(property.enum)) or property.type or "any"
  if type(kind) == "table" then
    kind = table.concat(kind, "|")
  end
  local facts = { kind }
  if required then
    facts[#facts + 1] = "required"
  elseif property.default ~= nil then
    facts[#facts + 1] = "default " .. as_text(property.default)
  end
  return { "  " .. name, table.concat(facts, ", "), property.description or "" }
end

local function fields_of(row)
  local rows = {}
  for _, name in ipairs(sorted_keys(row.options)) do
    rows[#rows + 1] = option_row(name, row.options[name])
  end
  local parameters = row.parameters or {}
  local required = {}
  for _, name in ipairs(parameters.required or {}) do
    required[name] = true
  end
  for _, name in ipairs(sorted_keys(parameters.properties)) do
    rows[#rows + 1] = parameter_row(name, parameters.properties[name], required[name])
  end
  return rows
end

local function place_of(row)
  return row.built_in and "built in" or row.origin or row.path or "?"
end

local function describe(ui, row)
  ui:out(("%s: %s\n"):format(row.name, row.summary))
  ui:out(("  from %s\n"):format(row.path or row.origin or "?"))
  for _, name in ipairs({ "extensions", "interpreter" }) do
    if row[name] then
      ui:out(("  %s: %s\n"):format(name, table.concat(row[name], ", ")))
    end
  end
  local rows = fields_of(row)
  if #rows > 0 then
    ui:out(row.parameters and "parameters:\n" or "options:\n")
    ui:columns(rows)
  end
end

---What of a row is data for others: no functions, marked lists and objects.
local function plain(row)
  return {
    name = row.name, summary = row.summary, error = row.error, path = row.path,
    origin = row.origin, built_in = row.built_in,
    options = row.options and json.object(row.options), parameters = row.parameters,
    idempotent = row.idempotent, caps = row.caps and json.object(row.caps),
    extensions = row.extensions and json.array(row.extensions),
    interpreter = row.interpreter and json.array(row.interpreter),
  }
end

local function show_one(kind, name, all, configured, ui)
  local entry = configured[name]
  local row, err = all:describe(kind, entry and entry.use or name)
  if not row then
    return session.fail(ui, err)
  end
  if entry then
    ui:say(("%s is %s as configured in %s; `farcall config` shows how"):format(name, entry.use,
      entry.origin))
  end
  if ui.json then
    ui:out_json(plain(row))
  elseif not row.error then
    describe(ui, row)
  end
  if row.error then
    ui:fail(row.error)
    return EXIT_ENGINE
  end
  return EXIT_OK
end

local function show_all(kind, plural, all, configured, ui)
  local rows, list, broken = {}, {}, 0
  for _, name in ipairs(sorted_keys(configured)) do
    local entry = configured[name]
    rows[#rows + 1] = { name, entry.origin, entry.use .. ", configured" }
  end
  for i, row in ipairs(all:list(kind)) do
    list[i] = plain(row)
    if row.error then
      broken = broken + 1
      ui:fail(row.error)
    else
      rows[#rows + 1] = { row.name, place_of(row), row.summary }
    end
  end
  if ui.json then
    ui:out_json({
      [plural] = json.array(list), configured = json.array(sorted_keys(configured)),
    })
  else
    ui:columns(rows)
  end
  return broken > 0 and EXIT_ENGINE or EXIT_OK
end

---@class farcall.cli.About
---@field description string
---@field epilog string
---@field configured? fun(cfg: farcall.Config): table<string, {use: string, origin: string}> names
---that the configuration gives to some of this kind

---The command that lists one kind.
---@param kind farcall.PluginKind
---@param plural string the command's name
---@param about farcall.cli.About
---@return table command
function listing.command(kind, plural, about)
  local command = { description = about.description, epilog = about.epilog }

  function command.configure(parser)
    parser:argument("name", "The one to describe."):args("?"):argname("NAME")
  end

  function command.run(args, ui)
    local cfg, err = session.config(args)
    if not cfg then
      return session.fail(ui, err)
    end
    local all = catalog.new(cfg)
    local configured = about.configured and about.configured(cfg) or {}
    if args.name then
      return show_one(kind, args.name, all, configured, ui)
    end
    return show_all(kind, plural, all, configured, ui)
  end

  return command
end

return listing
