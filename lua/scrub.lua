-- SPDX-License-Identifier: MIT
-- Which of the operator's environment variables a script on this machine gets to see.

local scrub = {}

-- What passes: these names, and names that begin with one of the prefixes.
local NAMES = {}
for name in
  ([[PATH HOME USER LOGNAME SHELL LANG LANGUAGE TERM COLORTERM COLUMNS LINES TZ TMPDIR TMP TEMP
     PYTHONPATH VIRTUAL_ENV NO_COLOR]]):gmatch("%S+")
do
  NAMES[name] = true
end
local PREFIXES = { "LC_", "XDG_", "CONDA_" }

-- What does not, even so: a name that contains one of these, in upper or lower case.
local SECRET = {
  "KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDS", "AUTH",
  "DSN", "WEBHOOK", "BEARER", "COOKIE",
}

---@param name string
---@return boolean
function scrub.looks_secret(name)
  local upper = name:upper()
  for _, word in ipairs(SECRET) do
    if upper:find(word, 1, true) then
      return true
    end
  end
  return false
end

local function is_allowed(name)
  if NAMES[name] then
    return true
  end
  for _, prefix in ipairs(PREFIXES) do
    if name:sub(1, #prefix) == prefix then
      return true
    end
  end
  return false
end

---The variables that pass. A name that the operator lets through passes whatever it looks like.
---@param environ table<string, string>
---@param passthrough? string[] names
---@return table<string, string>
function scrub.environment(environ, passthrough)
  local passed = {}
  for name, value in pairs(environ) do
    if is_allowed(name) and not scrub.looks_secret(name) then
      passed[name] = value
    end
  end
  for _, name in ipairs(passthrough or {}) do
    passed[name] = environ[name]
  end
  return passed
end

---What of the operator's variables is let through to where none of them is otherwise, but for what
---is set there.
---@param ctx farcall.BackendContext
---@param set? table<string, string>
---@return table<string, string>
function scrub.passed(ctx, set)
  local passed = {}
  for _, name in ipairs(ctx.passthrough or {}) do
    if not (set and set[name]) then
      passed[name] = ctx.environ[name]
    end
  end
  return passed
end

return scrub
