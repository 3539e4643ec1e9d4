-- SPDX-License-Identifier: MIT
-- How layers of configuration come together: the later over the earlier, but policies add up, and
-- neither a list of tools nor an operator's budget can grow.

local config_words = require("farcall.config_words")

local config_merge = {}

local BUILT_IN_TOOLS = { "patch", "read_file", "search_files", "terminal", "write_file" }

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then
      return true
    end
  end
  return false
end

-- An operator's budget, by limits or by the policy of that name; a later one only lowers it.
local function set_budget(cfg, value, origin)
  if not cfg.max_calls_fixed or value < cfg.limits.max_calls then
    cfg.limits.max_calls = value
    cfg.origins["limits.max_calls"] = origin
  end
  cfg.max_calls_fixed = true
end

local function apply_limits(cfg, layer)
  for name, entry in pairs(layer.limits) do
    if name == "max_calls" then
      set_budget(cfg, entry.value, entry.origin)
    else
      cfg.limits[name] = entry.value
      cfg.origins["limits." .. name] = entry.origin
    end
  end
  for _, entry in ipairs(layer.policies) do
    local most = entry.name == "budget" and tonumber(entry.options.max_calls)
    if most and not config_words.limit_problem("max_calls", most) then
      set_budget(cfg, most, entry.origin)
    end
  end
end

---Puts everything that a layer says over what is there so far.
---@param cfg farcall.Config
---@param layer farcall.ConfigLayer
function config_merge.apply(cfg, layer)
  table.insert(cfg.files, layer.path)
  for name, entry in pairs(layer.values) do
    if type(entry.value) == "table" then
      for _, item in ipairs(entry.value) do
        table.insert(cfg[name], item)
      end
    else
      cfg[name] = entry.value
    end
    cfg.origins[name] = entry.origin
  end
  apply_limits(cfg, layer)
  for name, entry in pairs(layer.backends) do
    cfg.backends[name] = entry
  end
  for _, entry in ipairs(layer.policies) do
    table.insert(cfg.policies, entry)
  end
  for name, tool in pairs(layer.tools) do
    cfg.tools[name] = tool
  end
end

local function only_those_in(names, kept)
  local list = {}
  for _, name in ipairs(names) do
    if contains(kept, name) then
      list[#list + 1] = name
    end
  end
  return list
end

---The first list of tools counts, later ones narrow it; without any, the built-in tools and those
---that the configuration itself defines.
---@param cfg farcall.Config
---@param layers farcall.ConfigLayer[]
function config_merge.list_tools(cfg, layers)
  local names
  for _, layer in ipairs(layers) do
    local list = layer.tool_list
    if list then
      names = names and only_those_in(names, list.names) or list.names
      cfg.origins.tools = list.origin
    end
  end
  if not names then
    names = {}
    for _, name in ipairs(BUILT_IN_TOOLS) do
      names[#names + 1] = name
    end
    for _, name in ipairs(config_words.sorted_keys(cfg.tools)) do
      if not contains(BUILT_IN_TOOLS, name) then
        names[#names + 1] = name
      end
    end
  end
  cfg.enabled_tools = names
end

---Sets a limit that a variable or a flag asks for; the budget only as far as it may.
---@param cfg farcall.Config
---@param name string
---@param value number
---@param origin string
function config_merge.set_limit(cfg, name, value, origin)
  if name == "max_calls" and cfg.max_calls_fixed and value > cfg.limits.max_calls then
    return
  end
  cfg.limits[name] = value
  cfg.origins["limits." .. name] = origin
end

return config_merge
