-- SPDX-License-Identifier: MIT
-- What is there to choose from: backends, policies, tools and stub templates, built in or the
-- operator's, loaded when first asked for, with the configuration's options.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local plugin = require("farcall.plugin")
local policy = require("farcall.policy")
local schema = require("farcall.schema")
local stub = require("farcall.stub")
local toolset = require("farcall.toolset")

local MAX_TEMPLATE = 16 * 1024 * 1024

---@class farcall.Catalog
---@field private cfg farcall.Config
---@field private backends table<string, farcall.Backend>
---@field private templates table<string, {text: string, template: farcall.StubTemplate}> by path
---@field private toolsets table<string, {toolset: farcall.Toolset, from: table[]}>
---@field private stubs table the files of stubs, by toolset and template
local catalog = {}
catalog.__index = catalog

---@param cfg farcall.Config
---@return farcall.Catalog
function catalog.new(cfg)
  return setmetatable({
    cfg = cfg, backends = {}, templates = {}, toolsets = {},
    stubs = setmetatable({}, { __mode = "k" }),
  }, catalog)
end

local function names_of(map)
  local names = {}
  for name in pairs(map) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- What every backend takes that makes environments which can outlive an engine.
local LASTING = {
  key = {
    type = "string",
    doc = "a name under which the environment is shared and stays; private without it",
  },
  idle = {
    type = "seconds", doc = "with key: `farcall env gc` may remove it when unused for so long",
  },
}

-- The backend's own options and, when it can remove what it made, those of LASTING.
local function with_lasting(backend)
  local declared = {}
  for name, declaration in pairs(backend.options or {}) do
    declared[name] = declaration
  end
  for name, declaration in pairs(backend.reap and LASTING or {}) do
    declared[name] = declared[name] or declaration
  end
  return declared
end

---The backend file of this name, loaded once.
---@param kind string
---@return farcall.Backend?
---@return farcall.Error? err
---@nodiscard
function catalog:load_backend(kind)
  local backend = self.backends[kind]
  if backend then
    return backend
  end
  local path, err = plugin.find("backend", kind, self.cfg.backend_path)
  if path then
    backend, err = plugin.load("backend", path)
  end
  if not backend then
    return nil, err
  end
  backend.path, backend.options = path, with_lasting(backend)
  self.backends[kind] = backend
  return backend
end

local function backend_names(self)
  local names = {}
  for i, entry in ipairs(plugin.all("backend", self.cfg.backend_path)) do
    names[i] = entry.name
  end
  return names
end

-- What was probably meant by the name of a backend that is not there.
local function hint_for_missing(self, name, configured)
  local near
  if not configured then
    near = schema.suggest(name, names_of(self.cfg.backends))
  elseif configured.use == name then
    for _, field in ipairs(names_of(configured.options)) do
      near = near or schema.suggest(field, { "use" }) and "use instead of " .. field
    end
  end
  near = near or schema.suggest(configured and configured.use or name, backend_names(self))
  return near and ("did you mean %s?"):format(near)
    or (configured and configured.use == name and 'write use = "..."; ' or "")
    .. "there are: " .. table.concat(backend_names(self), ", ")
end

-- A path in a configuration is relative to its file, where the backend is on this machine.
local function placed(options, backend, dir)
  local values = {}
  for name, value in pairs(options) do
    local declared = (backend.options or {})[name]
    local relative = dir and declared and declared.type == "path" and backend.caps
      and backend.caps.same_host and type(value) == "string" and value:find("^[^/]")
    values[name] = relative and dir .. "/" .. value:gsub("^%./", "") or value
  end
  return values
end

-- The same options, none of them required.
local function not_required(declared)
  local relaxed = {}
  for name, declaration in pairs(declared) do
    relaxed[name] = {}
    for field, value in pairs(declaration) do
      relaxed[name][field] = field ~= "required" and value or nil
    end
  end
  return relaxed
end

local MAX_KEY = 200

-- What is wrong with a key; nil when nothing is.
local function key_problem(backend, values)
  local key = values.key
  if key == nil or (backend.options.key and not backend.reap) then
    return nil
  elseif not backend.reap then
    return "there is no option key: its environments do not last, so none can be shared"
  elseif key == "" or type(key) == "string" and (#key > MAX_KEY or key:find("%c")) then
    return ("option key must be a name of at most %d letters"):format(MAX_KEY)
  end
  return values.attach ~= nil and "options key and attach exclude each other" or nil
end

---The backend of this name with the options that count: the configuration's, then the job's.
---@param name? string of a configured backend, or of a backend file; the default one when absent
---@param overrides? table<string, any>
---@param bare? boolean only to ask or remove, not to open: what is required may be missing
---@return farcall.Place?
---@return farcall.Error? err
---@nodiscard
function catalog:backend(name, overrides, bare)
  name = name or self.cfg.default_backend or "local"
  local configured = self.cfg.backends[name]
  local backend, err = self:load_backend(configured and configured.use or name)
  if not backend then
    err.hint = err.kind == "not_found" and hint_for_missing(self, name, configured) or err.hint
    return nil, err
  end
  local values = {}
  local own = configured and placed(configured.options, backend, configured.dir)
  for _, source in ipairs({ own or {}, overrides or {} }) do
    for key, value in pairs(source) do
      values[key] = value
    end
  end
  local unfit = key_problem(backend, values)
  if unfit then
    return nil, errors.new("config", "backend " .. name, unfit)
  end
  local options
  options, err = schema.options(bare and not_required(backend.options) or backend.options, values,
    "backend " .. name)
  if not options then
    return nil, err
  end
  local fine, problem = true, nil
  if backend.check and not bare then
    fine, problem = backend.check(options)
  end
  if not fine then
    return nil, errors.is(problem) and problem
      or errors.new("config", "backend " .. name, tostring(problem))
  end
  return { name = name, backend = backend, options = options }
end

-- The program of a script's first line, without directory and version: "#!/usr/bin/env python3" is
-- python.
local function shebang(script)
  local line = (script or ""):match("^#!([^\n]*)")
  if not line then
    return nil
  end
  local words = {}
  for word in line:gmatch("%S+") do
    words[#words + 1] = word
  end
  local program = words[1] or ""
  if program:find("/env$") then
    local i = 2
    while words[i] and words[i]:find("^%-") or (words[i] or ""):find("=", 1, true) do
      i = i + 1
    end
    program = words[i] or ""
  end
  return program:match("[^/]*$")
end

local function without_version(program)
  return (program:match("[^/]*$"):gsub("[%d.]+$", ""))
end

-- The template of a file, which is run again when it has changed.
local function load_template(self, path)
  local kept, text = self.templates[path], fs.read(path, MAX_TEMPLATE)
  if kept and kept.text == text then
    return kept.template
  end
  local template, err = plugin.load("stub", path)
  self.templates[path] = template and { text = text, template = template }
  return template, err
end

-- The first template of which fits(template) is true.
local function find_template(self, fits)
  for _, entry in ipairs(plugin.all("stub", self.cfg.stub_path)) do
    local template, err = load_template(self, entry.path)
    if not template then
      return nil, err
    end
    if fits(template) then
      return template
    end
  end
  return nil
end

local function by_extension(self, extension)
  return find_template(self, function(template)
    for _, known in ipairs(template.extensions) do
      if known == extension then
        return true
      end
    end
    return false
  end)
end

local function by_program(self, program)
  local wanted = without_version(program)
  return find_template(self, function(template)
    for _, known in ipairs(template.interpreter) do
      if without_version(known) == wanted then
        return true
      end
    end
    return false
  end)
end

---The stub template for a job: by language, else by the file's extension, else by the script's
---first line, else Python.
---@param job farcall.Job
---@return farcall.StubTemplate?
---@return farcall.Error? err
---@nodiscard
function catalog:template(job)
  local extension = not job.language and job.filename and job.filename:match("%.(%w+)$")
  local program = not job.language and extension ~= "py" and shebang(job.script)
  if extension and extension ~= "py" or program then
    local template, err
    if extension then
      template, err = by_extension(self, extension)
    end
    if not template and not err and program then
      template, err = by_program(self, program)
    end
    if template or err then
      return template, err
    end
    return nil, errors.new("usage", job.filename or "script", "no stub template is for "
      .. (extension and "." .. extension or program),
      { hint = "name the script's language with -l, or see `farcall stubs`" })
  end
  local path, err = plugin.find("stub", job.language or "python", self.cfg.stub_path)
  if not path then
    err.hint = err.hint or "`farcall stubs` lists what there is"
    return nil, err
  end
  return load_template(self, path)
end

local MAX_TOOLSETS = 64

-- Whether the tools of a set are what they were when it was made.
local function is_current(self, known, names)
  for i, name in ipairs(names) do
    if self.cfg.tools[name] ~= known.from[i] then
      return false
    end
  end
  return true
end

---The tools of these names. One set serves many runs, unless its tools may come out of files, which
---may change.
---@param names string[]
---@return farcall.Toolset?
---@return farcall.Error? err
---@nodiscard
function catalog:toolset(names)
  if #(self.cfg.tool_path or {}) > 0 then
    return toolset.new({ cfg = self.cfg, names = names })
  end
  local key = table.concat(names, "\0")
  local known = self.toolsets[key]
  if known and is_current(self, known, names) then
    return known.toolset
  end
  local made, err = toolset.new({ cfg = self.cfg, names = names })
  if made then
    known = { toolset = made, from = {} }
    for i, name in ipairs(names) do
      known.from[i] = self.cfg.tools[name] or nil
    end
    -- Jobs that narrow their tools each in their own way would fill the memory.
    if self.kept == MAX_TOOLSETS then
      self.toolsets, self.kept = {}, 0
    end
    self.toolsets[key], self.kept = known, (self.kept or 0) + 1
  end
  return made, err
end

---The files of the stub through which a script calls these tools.
---@param template farcall.StubTemplate
---@param tools farcall.Toolset
---@return {name: string, text: string}[]? files which nobody changes
---@return farcall.Error? err
---@nodiscard
function catalog:stub(template, tools)
  local kept = self.stubs[tools] or setmetatable({}, { __mode = "k" })
  self.stubs[tools] = kept
  local files, err = kept[template], nil
  if not files then
    files, err = stub.render(template, tools, self.cfg.stub_options)
    kept[template] = files
  end
  return files, err
end

-- kind -> what a file of it says of itself.
local DESCRIBE = {
  backend = function(self, name)
    local backend, err = self:load_backend(name)
    return backend and {
      name = name, summary = backend.summary, options = backend.options, caps = backend.caps,
    }, err
  end,
  policy = function(_, _, path)
    local description, err = policy.describe(path)
    return description and {
      name = description.name, summary = description.summary, options = description.options,
    }, err
  end,
  tool = function(self, name)
    local tools, err = self:toolset({ name })
    local tool = tools and tools:get(name)
    return tool and {
      name = name, summary = tool.summary, parameters = tool.parameters,
      idempotent = tool.idempotent,
    }, err
  end,
  stub = function(self, name, path)
    local template, err = load_template(self, path)
    return template and {
      name = name, summary = template.summary or ("scripts in " .. template.language),
      extensions = template.extensions, interpreter = template.interpreter,
    }, err
  end,
}

local SEARCH = {
  backend = "backend_path", policy = "policy_path", tool = "tool_path", stub = "stub_path",
}

---Every one of a kind by name, with what it says of itself or why it cannot be used.
---@param kind farcall.PluginKind
---@return table[] {name, path?, origin?, built_in, summary or error, ...}
function catalog:list(kind)
  local entries, seen = plugin.all(kind, self.cfg[SEARCH[kind]]), {}
  for _, entry in ipairs(entries) do
    seen[entry.name] = true
  end
  if kind == "tool" then
    for name, spec in pairs(self.cfg.tools) do
      if not seen[name] then
        entries[#entries + 1] = { name = name, origin = spec.origin, built_in = false }
      end
    end
    table.sort(entries, function(a, b)
      return a.name < b.name
    end)
  end
  local list = {}
  for i, entry in ipairs(entries) do
    local described, err = DESCRIBE[kind](self, entry.name, entry.path)
    local row = described or { name = entry.name, error = tostring(err) }
    row.path, row.origin, row.built_in = entry.path, entry.origin, entry.built_in
    list[i] = row
  end
  return list
end

---@param kind farcall.PluginKind
---@param name string
---@return table? row as catalog:list gives it
---@return farcall.Error? err
---@nodiscard
function catalog:describe(kind, name)
  local names = {}
  for i, row in ipairs(self:list(kind)) do
    if row.name == name then
      return row
    end
    names[i] = row.name
  end
  local near = schema.suggest(name, names)
  return nil, errors.new("not_found", kind .. " " .. name, "there is none of this name",
    { hint = near and ("did you mean %s?"):format(near) or nil })
end

---Everything that is wrong with the configuration, as far as can be told offline.
---@return {where: string, message: string}[]
function catalog:check()
  local problems, seen = {}, {}
  -- One mistake can be met on two ways; a message may say where itself.
  local function note(where, err)
    local message = err and tostring(err)
    if message and not seen[message] then
      seen[message] = true
      local first, last = message:find(where .. ": ", 1, true)
      problems[#problems + 1] = {
        where = where,
        message = first and message:sub(1, first - 1) .. message:sub(last + 1) or message,
      }
    end
  end
  for kind, field in pairs(SEARCH) do
    for _, row in ipairs(self:list(kind)) do
      if row.error then
        note(row.path or row.origin or field, row.error)
      end
    end
  end
  for name, entry in pairs(self.cfg.backends) do
    note(entry.origin, select(2, self:backend(name)))
  end
  if self.cfg.default_backend then
    note(self.cfg.origins.default_backend or "default_backend", select(2, self:backend()))
  end
  note(self.cfg.origins.tools or "tools", select(2, self:toolset(self.cfg.enabled_tools)))
  for _, entry in ipairs(self.cfg.policies) do
    local chain, err = policy.chain({
      policies = { entry }, policy_path = self.cfg.policy_path, run_id = "check", job = {},
      now = os.time, random = math.random,
    })
    if chain then
      chain:close()
    end
    note(entry.origin, err)
  end
  table.sort(problems, function(a, b)
    return a.where < b.where
  end)
  return problems
end

return catalog
