-- SPDX-License-Identifier: MIT
-- How OpenSSH's ssh is called as the master of a control socket: what is asked of it, and that
-- nothing of what is asked becomes an option or a command.

local errors = require("farcall.errors")

local openssh_command = {}

---@class farcall.OpensshOptions
---@field host string as ssh is given it: a name, an address, an alias of ssh_config
---@field port? integer
---@field user? string
---@field identity_files? string[] those of ssh_config unless given
---@field agent? boolean false: no agent is asked
---@field known_hosts? string[] these files alone; those of ssh_config unless given
---@field accept_new? boolean
---@field connect_timeout? number seconds until it must be logged in (30)
---@field keepalive? number seconds of silence; three unanswered questions are death; 0: none
---@field config? string path of an ssh_config, "none": no file at all; the user's unless given
---@field program? string "ssh"
---@field environ table<string, string> the operator's variables
---@field runtime_dir string
---@field supervisor? string path of farcall-supervisor

---Whether host and user can be given to it, as OpenSSH 9.6 has it: what could mean something to the
---shell of a ProxyCommand is no name.
---@param options farcall.OpensshOptions
---@return true?
---@return farcall.Error? err
---@nodiscard
function openssh_command.check_names(options)
  local host, user = options.host, options.user
  if host == "" or host:find("^%-") or host:find("[%s%c'`\"$\\;&<>|(){}]") then
    return nil, errors.new("usage", "ssh", ("%q is no name of a host"):format(host))
  elseif user and (user == "" or user:find("^%-") or user:find("[%c'`\";&<>|(){}$]")
    or user:find("%s%-") or user:find("\\$")) then
    return nil, errors.new("usage", "ssh", ("%q is no name of a user"):format(user))
  end
  return true
end

-- A path as a word of an option of ssh, which knows quotes, %h and ${HOME}.
local function path_word(path)
  if path:find("%c") or path:find("${", 1, true) then
    return nil, errors.new("usage", "ssh", ("ssh cannot be given the path %q"):format(path))
  end
  return '"' .. path:gsub("%%", "%%%%"):gsub('[\\"]', "\\%0") .. '"'
end

local function path_words(paths)
  local list = {}
  for i, path in ipairs(paths) do
    local word, err = path_word(path)
    if not word then
      return nil, err
    end
    list[i] = word
  end
  return table.concat(list, " ")
end

---@param program string path of ssh
---@param options farcall.OpensshOptions
---@param socket string path of the control socket, which it makes
---@param seconds number for the connection
---@return string[]? argv
---@return farcall.Error? err
---@nodiscard
function openssh_command.master(program, options, socket, seconds)
  local argv = { program }
  local function add(...)
    for _, word in ipairs({ ... }) do
      argv[#argv + 1] = word
    end
  end
  local function set(name, value)
    add("-o", name .. "=" .. value)
  end
  if options.config then
    add("-F", options.config)
  end
  add("-M", "-N", "-S", (socket:gsub("%%", "%%%%")))
  for _, pair in ipairs({
    { "ControlPersist", "no" }, { "BatchMode", "yes" }, { "LogLevel", "INFO" },
    { "ClearAllForwardings", "yes" }, { "ForwardAgent", "no" }, { "ForwardX11", "no" },
    { "Tunnel", "no" }, { "PermitLocalCommand", "no" }, { "RemoteCommand", "none" },
    { "RequestTTY", "no" }, { "UpdateHostKeys", "no" }, { "VisualHostKey", "no" },
    { "StrictHostKeyChecking", options.accept_new and "accept-new" or "yes" },
    { "ConnectTimeout", ("%d"):format(math.ceil(seconds)) },
  }) do
    set(pair[1], pair[2])
  end
  if options.keepalive then
    set("ServerAliveInterval", ("%d"):format(math.ceil(options.keepalive)))
    set("ServerAliveCountMax", "3")
  end
  if options.known_hosts then
    local words, err = path_words(options.known_hosts)
    if not words then
      return nil, err
    end
    set("UserKnownHostsFile", words ~= "" and words or "/dev/null")
    set("GlobalKnownHostsFile", "/dev/null")
  end
  for _, path in ipairs(options.identity_files or {}) do
    local word, err = path_word(path)
    if not word then
      return nil, err
    end
    set("IdentityFile", word)
  end
  if options.agent == false then
    set("IdentityAgent", "none")
  end
  if options.port then
    add("-p", ("%d"):format(options.port))
  end
  if options.user then
    add("-l", options.user)
  end
  add("--", options.host)
  return argv
end

---Its variables. Nobody is there to be asked for anything.
---@param environ table<string, string> the operator's
---@return string[] "NAME=value"
function openssh_command.environment(environ)
  local list = { "SSH_ASKPASS_REQUIRE=never" }
  for name, value in pairs(environ) do
    if name ~= "DISPLAY" and name ~= "WAYLAND_DISPLAY" and not name:find("^SSH_ASKPASS") then
      list[#list + 1] = name .. "=" .. value
    end
  end
  return list
end

return openssh_command
