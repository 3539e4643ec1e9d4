-- SPDX-License-Identifier: MIT
-- Renders a stub template: from the tools of a run to the files through which its script calls
-- them. Whatever a template puts into a file must be digits, base64, an identifier that
-- literal.identifier() has passed, or a text that literal.escape() has made.

local errors = require("farcall.errors")
local literal = require("farcall.literal")

local stub = {}

---@class farcall.stub.Tool what a template is told of a tool
---@field name string matches [A-Za-z_][A-Za-z0-9_.-]*
---@field summary string any text
---@field description string any text
---@field parameters farcall.stub.Parameter[] in the order of the function's arguments
---@field ordered boolean the optional ones have an order of their own too
---@field open boolean more arguments than the parameters may be given
---@field returns? string

---@class farcall.stub.Parameter
---@field name string any text
---@field required boolean
---@field schema table

local OPTIONS = { module = true, errors = true }

---Files of the run's directory that are not the stub's: what transports may put there.
---@type table<string, true>
stub.RESERVED = {
  token = true, socket = true, connect = true, ask = true, all = true, c = true, turn = true,
  ["bell.0"] = true, ["bell.1"] = true,
}

---A tool's parameters: first as its `order` says, then the required ones, then the rest by name.
---@return farcall.stub.Parameter[] parameters
---@return boolean ordered
local function parameters_of(tool)
  local properties, list, seen = tool.parameters.properties or {}, {}, {}
  local required = {}
  for _, name in ipairs(tool.parameters.required or {}) do
    required[name] = true
  end
  local function add(name)
    if properties[name] and not seen[name] then
      seen[name] = true
      list[#list + 1] = {
        name = name, required = required[name] or false, schema = properties[name],
      }
    end
  end
  for _, name in ipairs(tool.order or {}) do
    add(name)
  end
  for _, name in ipairs(tool.parameters.required or {}) do
    add(name)
  end
  local rest = {}
  for name in pairs(properties) do
    rest[#rest + 1] = name
  end
  table.sort(rest)
  for _, name in ipairs(rest) do
    add(name)
  end
  return list, tool.order ~= nil
end

---@return farcall.stub.Tool?
---@return string? problem
local function describe(tool)
  if type(tool.name) ~= "string" or #tool.name > 64
    or not tool.name:find("^[%a_][%w_.%-]*$") then
    return nil, ("%q is no name for a tool"):format(tostring(tool.name))
  end
  local parameters, ordered = parameters_of(tool)
  return {
    name = tool.name, summary = tool.summary or "", description = tool.description or "",
    parameters = parameters, ordered = ordered,
    open = tool.parameters.additionalProperties and true or tool.parameters.properties == nil,
    returns = tool.returns,
  }
end

-- A toolset, or a plain list of tools.
local function list_of(tools)
  if not tools.names then
    return tools
  end
  local list = {}
  for i, name in ipairs(tools:names()) do
    list[i] = tools:get(name)
  end
  return list
end

local function check_files(files)
  if type(files) ~= "table" then
    return "render returned no list of files"
  end
  local seen = {}
  for _, file in ipairs(files) do
    local name = type(file) == "table" and file.name
    if type(name) ~= "string" or #name > 100 or not name:find("^[%w_][%w_.%-]*$") then
      return ("%q is no name for a file of a stub"):format(tostring(name))
    elseif stub.RESERVED[name] or seen[name] then
      return ("the file name %s is taken"):format(name)
    elseif type(file.text) ~= "string" then
      return ("the file %s has no text"):format(name)
    end
    seen[name] = true
  end
  return nil
end

local function failure(message)
  return nil, errors.new("config", "stub", message)
end

---@param options table
---@return table? checked
---@return farcall.Error? err
local function check_options(options)
  for key in pairs(options) do
    if not OPTIONS[key] then
      return failure("unknown option of a stub: " .. tostring(key))
    end
  end
  local module = options.module or "farcall"
  if not literal.identifier(module) then
    return failure(("%q is no name for a module"):format(tostring(module)))
  end
  local how = options.errors or (module == "hermes_tools" and "return" or "raise")
  if how ~= "raise" and how ~= "return" then
    return failure("errors is \"raise\" or \"return\"")
  end
  return { module = module, errors = how }
end

---The files of a stub.
---@param template farcall.StubTemplate
---@param tools farcall.Toolset|farcall.Tool[]
---@param options? {module?: string, errors?: "raise"|"return"}
---@return {name: string, text: string}[]?
---@return farcall.Error? err
---@nodiscard
function stub.render(template, tools, options)
  local checked, err = check_options(options or {})
  if not checked then
    return nil, err
  end
  local list = {}
  for _, tool in ipairs(list_of(tools)) do
    local told, problem = describe(tool)
    if not told then
      return failure(problem)
    end
    list[#list + 1] = told
  end
  table.sort(list, function(a, b)
    return a.name < b.name
  end)
  local ok, files, problem = xpcall(template.render, debug.traceback, list, checked)
  if not ok then
    return failure("template " .. tostring(template.language) .. ": " .. tostring(files))
  elseif files == nil then
    return failure(tostring(problem or "render returned no list of files"))
  end
  problem = check_files(files)
  if problem then
    return failure("template " .. tostring(template.language) .. ": " .. problem)
  end
  return files
end

return stub
