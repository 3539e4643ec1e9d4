-- SPDX-License-Identifier: MIT
-- Flags of the commands that run scripts, and what they mean for a job.

local errors = require("farcall.errors")

local job_flags = {}

local function usage(op, message, hint)
  return nil, errors.new("usage", op, message, { hint = hint })
end

---The flags --allow, --policy and --env.
function job_flags.add(command)
  command:option("--allow", "Only these tools."):argname("TOOL,TOOL"):count("*")
  command:option("--policy", "One more policy."):argname("NAME[:KEY=VALUE,...]"):count("*")
    :target("policies")
  command:option("--env", "A variable for the script, from here unless given."):count("*")
    :argname("NAME[=VALUE]")
end

---NAME or NAME=VALUE; a bare name takes the value from here.
---@return table<string, string>?
---@return farcall.Error? err
function job_flags.variables(list, environ)
  local values = {}
  for _, word in ipairs(list) do
    local name, value = word:match("^([%a_][%w_]*)=(.*)$")
    name = name or word:match("^[%a_][%w_]*$")
    if not name then
      return usage("--env " .. word, "expected NAME or NAME=VALUE")
    end
    values[name] = value or environ[name]
    if values[name] == nil then
      return usage("--env " .. name, "there is no such variable here")
    end
  end
  return values
end

---NAME[:key=value,...]; a name with a slash is a file.
---@return table[]? entries
---@return farcall.Error? err
function job_flags.policies(list)
  local entries = {}
  for _, word in ipairs(list) do
    local name, text = word:match("^([^:]+):?(.*)$")
    if not name then
      return usage("--policy " .. word, "expected NAME[:KEY=VALUE,...]")
    end
    local options = {}
    for item in text:gmatch("[^,]+") do
      local key, value = item:match("^([^=]+)=(.*)$")
      if not key then
        return usage("--policy " .. word, "expected KEY=VALUE, not " .. item,
          next(options) and "a list of several words goes into a configuration" or nil)
      end
      options[key] = value
    end
    if name:find("/", 1, true) then
      entries[#entries + 1] = { path = name, options = options, origin = "--policy" }
    else
      entries[#entries + 1] = { name = name, options = options, origin = "--policy" }
    end
  end
  return entries
end

---The tools of all --allow together; nil without any.
---@return string[]?
function job_flags.allowed(list)
  if #list == 0 then
    return nil
  end
  local names = {}
  for _, word in ipairs(list) do
    for name in word:gmatch("[^,]+") do
      names[#names + 1] = name
    end
  end
  return names
end

return job_flags
