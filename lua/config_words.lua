-- SPDX-License-Identifier: MIT
-- The words of a configuration file: functions that note what the file declares, with file and
-- line. They check the shape of it; what the values mean is for those who use them.

local fs = require("farcall.core.fs")
local places = require("farcall.places")
local suggest = require("farcall.suggest")

local config_words = {}

-- Plain settings: name -> type; "path" and "paths" are relative to the file.
config_words.SETTINGS = {
  default_backend = "string", stub_module = "string", stub_errors = "string",
  journal_sync = "string", state_dir = "path", runtime_dir = "path",
  backend_path = "paths", policy_path = "paths", tool_path = "paths", stub_path = "paths",
  passthrough = "list",
}

local LONGEST = 1e9 -- seconds; timers have an end, too

-- Limits, what they count, the least that each can be and the most.
config_words.LIMITS = {
  timeout = { "seconds of a script", 0.001, LONGEST },
  max_calls = { "tool calls of a script", 0 },
  parallel_calls = { "tool calls at once", 1 },
  stdout_bytes = { "bytes of output in a result", 1 },
  stderr_bytes = { "bytes of errors in a result", 1 },
  spill_bytes = { "bytes of output kept in a file", 0 },
  sessions = { "interpreters that wait for their session's next run", 1 },
  session_idle = { "seconds after which one that waits is ended", 1, LONGEST },
  idle_environments = { "environments kept open for the next run", 0 },
  journal_days = { "days after which the journal of a run is removed; 0: never", 0 },
}

local TOOL_FIELDS = {
  summary = true, description = true, parameters = true, order = true, returns = true,
  idempotent = true, handler = true, command = true, timeout = true,
}

-- What the words below are called with, to name it when it is not there.
local USAGE = {
  backend = 'backend "name" { use = "...", option = value }',
  policy = 'policy "name" { option = value }',
  tool = 'tool "name" { summary = "...", parameters = { ... }, handler = function(args, ctx) }',
}

-- What means something without a table: a policy with its defaults.
local OPTIONAL = { policy = true }

function config_words.sorted_keys(map)
  local list = {}
  for key in pairs(map) do
    list[#list + 1] = tostring(key)
  end
  table.sort(list)
  return list
end

---@param what string kind of thing
---@param name any
---@param candidates string[]
---@return string message with the nearest candidate
function config_words.unknown(what, name, candidates)
  local near = suggest.nearest(tostring(name), candidates)
  return ("unknown %s '%s'%s"):format(what, tostring(name),
    near and (": did you mean '%s'?"):format(near) or "")
end

---What is wrong with the value of a limit; nil when nothing is.
---@param name string
---@param value any
---@return string? problem
function config_words.limit_problem(name, value)
  local about = config_words.LIMITS[name]
  local whole, most = name ~= "timeout", about[3]
  if type(value) ~= "number" or value ~= value or value == math.huge or value < about[2]
    or whole and value % 1 ~= 0 then
    return ("%s must be a %s, %s or more (%s)"):format(name, whole and "whole number" or "number",
      tostring(about[2]), about[1])
  elseif most and value > most then
    return ("%s must be at most %d (%s)"):format(name, most, about[1])
  end
  return nil
end

local function is_list_of_strings(value)
  if type(value) ~= "table" then
    return false
  end
  local count = 0
  for key, item in pairs(value) do
    if type(key) ~= "number" or type(item) ~= "string" then
      return false
    end
    count = count + 1
  end
  return count == #value
end

-- Raises from the line of the configuration; level as for error(), seen from the caller.
local function refuse(message, level)
  error(message, level + 1)
end

local function origin(level)
  local info = debug.getinfo(level + 1, "Sl")
  return ("%s:%d"):format(info.source:gsub("^@", ""), info.currentline)
end

local function joined(first, second)
  local list = {}
  for _, items in ipairs({ first, second }) do
    for _, item in ipairs(items) do
      list[#list + 1] = item
    end
  end
  return list
end

local function add_settings(words, layer, dir)
  -- The directories of a search path, which must be there: a typo is an error.
  local function directories(paths, level)
    local list = {}
    for i, path in ipairs(paths) do
      list[i] = places.beside(dir, path)
      local stat = fs.stat(list[i])
      if not stat or stat.type ~= "directory" then
        refuse(list[i] .. ": no such directory", level + 1)
      end
      table.insert(layer.loads, list[i])
    end
    return list
  end

  for name, expected in pairs(config_words.SETTINGS) do
    words[name] = function(value)
      if expected == "paths" or expected == "list" then
        if not is_list_of_strings(value) then
          refuse(name .. ": expected a list of strings, { \"...\" }", 2)
        end
      elseif type(value) ~= "string" or value == "" then
        refuse(("%s: expected a string, got %s"):format(name,
          value == "" and "an empty one" or "a " .. type(value)), 2)
      end
      if expected == "path" then
        value = places.beside(dir, value)
      elseif expected == "paths" then
        value = directories(value, 2)
      end
      local earlier = layer.values[name]
      if earlier and type(value) == "table" then
        value = joined(earlier.value, value)
      end
      layer.values[name] = { value = value, origin = origin(2) }
    end
  end
end

local function add_limits(words, layer)
  function words.limits(values)
    if type(values) ~= "table" then
      refuse("expected limits { name = number }", 2)
    end
    for name, value in pairs(values) do
      if not config_words.LIMITS[name] then
        refuse(config_words.unknown("limit", name,
          config_words.sorted_keys(config_words.LIMITS)), 2)
      end
      local problem = config_words.limit_problem(name, value)
      if problem then
        refuse("limit " .. problem, 2)
      end
      layer.limits[name] = { value = value, origin = origin(2) }
    end
  end

  function words.tools(names)
    if not is_list_of_strings(names) then
      refuse("expected tools { \"name\", ... }, the whole list of what scripts may call", 2)
    end
    layer.tool_list = { names = names, origin = origin(2) }
  end
end

---A word with a name and then a table: `word "name" { fields }`. begin(name, where) is called at
---the name and returns what is called with the table. Until then layer.unfinished has it.
local function named(words, layer, word, begin)
  words[word] = function(name)
    if type(name) ~= "string" or name == "" then
      refuse("expected " .. USAGE[word], 2)
    end
    local where = origin(2)
    local complete, problem = begin(name, where)
    if not complete then
      refuse(problem, 2)
    end
    local entry = { where = where, usage = USAGE[word] }
    layer.unfinished[entry] = not OPTIONAL[word] or nil
    return function(fields)
      if type(fields) ~= "table" then
        refuse("expected " .. USAGE[word], 2)
      end
      layer.unfinished[entry] = nil
      problem = complete(fields)
      if problem then
        refuse(problem, 2)
      end
    end
  end
end

local function twice(what, name, earlier)
  return nil, ("%s '%s' is there already, at %s"):format(what, name, earlier.origin)
end

-- What is said of a backend and is no option of it; labels and cost are for policies.
local ABOUT_BACKEND = { use = true, labels = true, cost = true }

local PLAIN = { string = true, number = true, boolean = true }

local function are_labels(value)
  if type(value) ~= "table" then
    return false
  end
  for name, item in pairs(value) do
    if type(name) ~= "string" or not PLAIN[type(item)] then
      return false
    end
  end
  return true
end

local function add_backend(words, layer, dir)
  named(words, layer, "backend", function(name, where)
    if layer.backends[name] then
      return twice("backend", name, layer.backends[name])
    end
    return function(fields)
      local options = {}
      for key, value in pairs(fields) do
        if not ABOUT_BACKEND[key] then
          options[key] = value
        end
      end
      if fields.use ~= nil and type(fields.use) ~= "string" then
        return "use: expected the name of a backend, got a " .. type(fields.use)
      elseif fields.labels ~= nil and not are_labels(fields.labels) then
        return 'labels: expected { name = "text", a number or a boolean }'
      elseif fields.cost ~= nil and type(fields.cost) ~= "number" then
        return "cost: expected a number, got a " .. type(fields.cost)
      end
      layer.backends[name] = {
        use = fields.use or name, options = options, origin = where, dir = dir,
        labels = fields.labels, cost = fields.cost,
      }
      return nil
    end
  end)
end

local function add_policy(words, layer, dir)
  named(words, layer, "policy", function(name, where)
    local entry = { options = {}, origin = where }
    if name:find("/", 1, true) then
      entry.path = places.beside(dir, name)
      table.insert(layer.loads, entry.path)
    else
      entry.name = name
    end
    table.insert(layer.policies, entry)
    return function(fields)
      entry.options = fields
    end
  end)
end

-- The words of a command that begin with ./ or ../ are files beside the configuration: they are
-- part of what is trusted.
local function placed_command(layer, dir, command)
  if not is_list_of_strings(command) then
    return command
  end
  local placed = {}
  for i, word in ipairs(command) do
    placed[i] = word
    if word:find("^%.%.?/") then
      placed[i] = places.beside(dir, word)
      table.insert(layer.loads, placed[i])
    end
  end
  return placed
end

local function add_tool(words, layer, dir)
  named(words, layer, "tool", function(name, where)
    if layer.tools[name] then
      return twice("tool", name, layer.tools[name])
    end
    return function(fields)
      local spec = { origin = where }
      for key, value in pairs(fields) do
        if not TOOL_FIELDS[key] then
          return config_words.unknown("field of a tool", key,
            config_words.sorted_keys(TOOL_FIELDS))
        end
        spec[key] = value
      end
      spec.command = placed_command(layer, dir, spec.command)
      layer.tools[name] = spec
      return nil
    end
  end)
end

---The words for a file in dir, writing into layer.
---@param layer farcall.ConfigLayer
---@param dir string
---@param environ table<string, string> what `env "NAME"` reads
---@return table<string, function>
function config_words.new(layer, dir, environ)
  local words = {}
  add_settings(words, layer, dir)
  add_limits(words, layer)
  add_backend(words, layer, dir)
  add_policy(words, layer, dir)
  add_tool(words, layer, dir)

  ---A variable of the environment; without a default it must be there.
  function words.env(name, default)
    local value = environ[name]
    if value == nil then
      value = default
    end
    if value == nil then
      refuse(("env \"%s\": there is no such environment variable"):format(tostring(name)), 2)
    end
    return value
  end
  return words
end

return config_words
