-- SPDX-License-Identifier: MIT
-- What ~/.ssh/config says of a host, as ssh_config(5) of OpenSSH 9.2 has it: the first value
-- counts, only IdentityFile adds up. Words that change how to get there and that only OpenSSH
-- itself can serve are told apart, by name.

local errors = require("farcall.errors")
local fs = require("farcall.core.fs")

local ssh_config = {}

local MAX_FILE = 1024 * 1024
-- Of files that include files.
local MAX_DEPTH = 16

local SERVED = {
  hostname = true, port = true, user = true, identityfile = true, userknownhostsfile = true,
  hostkeyalias = true, connecttimeout = true, serveraliveinterval = true, identityagent = true,
  identitiesonly = true,
}

-- Of no importance here: how a terminal, a forwarded port or a shared connection is to be, and what
-- decides only among ways that we have anyway. StrictHostKeyChecking is the option accept_new: a
-- file does not loosen it.
local HARMLESS = {}
for word in
  ([[addkeystoagent batchmode canonicaldomains checkhostip compression connectionattempts
     controlmaster controlpath controlpersist dynamicforward
     exitonforwardfailure enableescapecommandline escapechar fingerprinthash forkafterauthentication
     forwardagent forwardx11 forwardx11timeout forwardx11trusted gssapiauthentication
     gssapidelegatecredentials hashknownhosts hostbasedauthentication ignoreunknown ipqos
     kbdinteractiveauthentication localcommand localforward loglevel
     nohostauthenticationforlocalhost numberofpasswordprompts passwordauthentication
     permitlocalcommand permitremoteopen preferredauthentications pubkeyauthentication
     remotecommand remoteforward requesttty sendenv serveralivecountmax sessiontype setenv
     stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility
     tcpkeepalive tunnel tunneldevice updatehostkeys
     verifyhostkeydns visualhostkey xauthlocation]]):gmatch("%S+")
do
  HARMLESS[word] = true
end

-- A pattern of the file as one of Lua's: * and ?. Letters count as they are.
local function matches(pattern, name)
  local lua = pattern:gsub("%p", function(char)
    return char == "*" and ".*" or char == "?" and "." or "%" .. char
  end)
  return name:find("^" .. lua .. "$") ~= nil
end

---Whether a list of patterns is for this name: one of them is, and none with a `!`.
---@param patterns string[]
---@param name string
---@return boolean
function ssh_config.is_for(patterns, name)
  local found = false
  for _, pattern in ipairs(patterns) do
    if pattern:sub(1, 1) == "!" then
      if matches(pattern:sub(2), name) then
        return false
      end
    else
      found = found or matches(pattern, name)
    end
  end
  return found
end

-- The words of a line: keyword, then values, which may be quoted; `keyword = value` is the same.
local function words_of(line)
  line = line:gsub("^%s+", ""):gsub("%s+$", "")
  if line == "" or line:sub(1, 1) == "#" then
    return nil
  end
  local keyword, rest = line:match("^(%w+)%s*=%s*(.*)$")
  if not keyword then
    keyword, rest = line:match("^(%w+)%s*(.*)$")
  end
  if not keyword then
    return nil, "not a word of ssh_config"
  end
  local words = { keyword:lower() }
  while rest ~= "" do
    local word, after
    if rest:sub(1, 1) == '"' then
      word, after = rest:match('^"([^"]*)"%s*(.*)$')
      if not word then
        return nil, "a quote is not closed"
      end
    elseif rest:sub(1, 1) == "#" then
      break
    else
      word, after = rest:match("^(%S+)%s*(.*)$")
    end
    words[#words + 1] = word
    rest = after
  end
  return words
end

-- The files that an Include names; nil for a pattern that is not in the last part of its path.
local function included(pattern, scope)
  if pattern:sub(1, 2) == "~/" then
    pattern = scope.home .. pattern:sub(2)
  elseif pattern:sub(1, 1) ~= "/" then
    pattern = scope.dir .. "/" .. pattern
  end
  local dir, name = pattern:match("^(.*)/([^/]*)$")
  if dir:find("[*?%[]") or name:find("[", 1, true) then
    return nil
  end
  local paths = {}
  for _, entry in ipairs(fs.list(dir == "" and "/" or dir) or {}) do
    if matches(name, entry) and (entry:sub(1, 1) ~= "." or name:sub(1, 1) == ".") then
      paths[#paths + 1] = dir .. "/" .. entry
    end
  end
  table.sort(paths)
  return paths
end

local read_file

---@return true?
---@return farcall.Error? err
local function include(words, host, settings, scope)
  for i = 2, #words do
    local paths = scope.depth < MAX_DEPTH and included(words[i], scope)
    settings.foreign.include = settings.foreign.include or not paths or nil
    for _, path in ipairs(paths or {}) do
      local ok, err = read_file(path, host, settings,
        { home = scope.home, dir = scope.dir, depth = scope.depth + 1 })
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

---Takes what one file says into settings that earlier files have begun.
---@param text string
---@param host string the name that was asked for
---@param settings table to be added to
---@param scope {path: string, home: string, dir: string, depth: integer} dir: of its Includes
---@return true?
---@return farcall.Error? err
local function take(text, host, settings, scope)
  local active, number = true, 0
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local words, problem = words_of((line:gsub("\r$", "")))
    if problem then
      return nil, errors.new("config", ("%s:%d"):format(scope.path, number), problem)
    end
    local keyword = words and words[1]
    if keyword == "host" then
      active = ssh_config.is_for({ unpack(words, 2) }, host)
    elseif keyword == "match" then
      -- Only OpenSSH can tell whether it is for us.
      active = words[2] == "all"
      if not active then
        settings.foreign.match = true
      end
    elseif keyword and active and words[2] then
      if keyword == "include" then
        local ok, err = include(words, host, settings, scope)
        if not ok then
          return nil, err
        end
      elseif keyword == "identityfile" then
        table.insert(settings.identityfile, words[2])
      elseif keyword == "userknownhostsfile" then
        settings[keyword] = settings[keyword] or { unpack(words, 2) }
      elseif SERVED[keyword] then
        settings[keyword] = settings[keyword] or words[2]
      elseif keyword == "canonicalizehostname" then
        -- Other names, which other blocks may be for.
        if settings.canonical == nil then
          settings.canonical = words[2]:lower() ~= "no"
          settings.foreign[keyword] = settings.canonical or nil
        end
      elseif keyword == "proxyjump" or keyword == "proxycommand" then
        -- `none` is a value too, the first one counts.
        if settings.proxy == nil then
          settings.proxy = words[2]:lower() ~= "none"
          settings.foreign[keyword] = settings.proxy or nil
        end
      elseif not HARMLESS[keyword] then
        settings.foreign[keyword] = true
      end
    end
  end
  return true
end

---@return true? also when there is no such file
---@return farcall.Error? err
function read_file(path, host, settings, scope)
  local text, message, code = fs.read(path, MAX_FILE)
  if text then
    scope.path = path
    return take(text, host, settings, scope)
  elseif code ~= "ENOENT" and code ~= "ENOTDIR" then
    return nil, errors.wrap("read " .. path, message, code)
  end
  return true
end

-- ~ and the tokens of a path. What we do not have makes the whole thing OpenSSH's business.
local function expand(text, tokens, settings)
  if text:find("${", 1, true) then
    settings.foreign["${}"] = true
  end
  if text:sub(1, 2) == "~/" then
    text = tokens.d .. text:sub(2)
  end
  return (text:gsub("%%(.)", function(char)
    if char == "%" then
      return "%"
    end
    if not tokens[char] then
      settings.foreign["%" .. char] = true
    end
    return tokens[char]
  end))
end

---@class farcall.SshConfig
---@field hostname string where to connect, in lower case
---@field port? integer
---@field user? string
---@field identity_files string[]
---@field known_hosts? string[]
---@field host_key_alias? string
---@field connect_timeout? number seconds
---@field keepalive? number seconds
---@field agent? string path of its socket, "none", or the name of a variable that has it, with $
---@field only_files boolean keys of the agent count only when a file has them too
---@field foreign string[] words in force for this host that only OpenSSH can serve, in lower case

local function number_of(text)
  return text and tonumber(text:match("^%d+$"))
end

---What the files say of a host.
---@param paths string[] that of the user before that of the system; a missing one says nothing
---@param host string as it was asked for
---@param who {home: string, user?: string}
---@return farcall.SshConfig?
---@return farcall.Error? err
---@nodiscard
function ssh_config.read(paths, host, who)
  local settings = { identityfile = {}, foreign = {} }
  for _, path in ipairs(paths) do
    -- As ssh has it: the user's Includes are below ~/.ssh, the system's below /etc/ssh.
    local dir = path:sub(1, 5) == "/etc/" and "/etc/ssh" or who.home .. "/.ssh"
    local ok, err = read_file(path, host, settings, { home = who.home, dir = dir, depth = 1 })
    if not ok then
      return nil, err
    end
  end
  local tokens = { h = host, d = who.home, u = who.user, ["%"] = "%" }
  local hostname = host
  if settings.hostname then
    hostname = expand(settings.hostname, { h = host, d = "~" }, settings)
  end
  hostname = hostname:lower()
  tokens.h, tokens.r = hostname, settings.user or who.user
  local found = {
    hostname = hostname, port = number_of(settings.port), user = settings.user,
    identity_files = {}, host_key_alias = settings.hostkeyalias,
    connect_timeout = number_of(settings.connecttimeout),
    keepalive = number_of(settings.serveraliveinterval),
    only_files = (settings.identitiesonly or "no"):lower() == "yes", foreign = {},
  }
  local seen = {}
  for _, path in ipairs(settings.identityfile) do
    if not seen[path] then
      seen[path] = true
      table.insert(found.identity_files, expand(path, tokens, settings))
    end
  end
  if settings.identityagent then
    found.agent = expand(settings.identityagent, tokens, settings)
  end
  if settings.userknownhostsfile then
    found.known_hosts = {}
    for _, path in ipairs(settings.userknownhostsfile) do
      table.insert(found.known_hosts, expand(path, tokens, settings))
    end
  end
  for word in pairs(settings.foreign) do
    table.insert(found.foreign, word)
  end
  table.sort(found.foreign)
  return found
end

return ssh_config
