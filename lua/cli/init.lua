-- SPDX-License-Identifier: MIT
-- The command line: which command, with which flags. Each command is a file of its own, loaded when
-- it is asked for.

local errors = require("farcall.errors")
local help = require("farcall.cli.help")

local cli = {}

local EXIT_OK, EXIT_USAGE, EXIT_ENGINE = 0, 2, 125

cli.VERSION = "0.1.0"

-- In the order of the help.
cli.COMMANDS = {
  { "run", "run a script and serve its tool calls" },
  { "batch", "run many jobs, and go on where they were left" },
  { "exec", "run one command in the environment" },
  { "shell", "use the environment's persistent shell" },
  { "repl", "run Python statements in the environment, as they are typed" },
  { "check", "look for mistakes in configuration, policies and backends, offline" },
  { "doctor", "tell what works here and how to mend what does not" },
  { "config", "print every setting with where it comes from" },
  { "trust", "allow ./farcall.lua to be used as it is now" },
  { "backends", "list the backends, or describe one" },
  { "policies", "list the policies, or describe one" },
  { "tools", "list the tools, or describe one" },
  { "stubs", "list the script languages, or show what a script imports" },
  { "new", "write a commented skeleton of a backend, policy, tool or stub" },
  { "env", "list environments, remove them, collect what was left behind" },
  { "runs", "list the runs, or show one" },
  { "completion", "print a completion script for bash, zsh or fish" },
  { "version", "print the versions of farcall and what it is made of" },
}

local DESCRIPTION = [[
A script runs far away; its function calls come home.

farcall runs a script and serves the tools that it calls on your side, under your policies.]]

local EPILOG = [[
Examples:
  farcall run script.py
  farcall run -c 'from farcall import terminal; print(terminal("uptime")["output"])'
  farcall exec -- df -h
  farcall doctor

`farcall COMMAND --help` tells more. Exit codes: 0 success, 2 wrong usage, 125 configuration,
backend or engine failed; `run` and `exec` otherwise exit as the script or command did.]]

local function require_argparse()
  local ok, argparse = pcall(require, "argparse")
  if not ok then
    return nil, errors.new("not_found", "argparse", "the Lua module argparse is not installed",
      { hint = "apt-get install lua-argparse" })
  end
  return argparse
end

---Flags that every command has.
local function add_common_flags(parser)
  parser:option("-C --config", "Use this configuration file instead of ./farcall.lua.")
    :argname("FILE")
  parser:flag("-q --quiet", "Say nothing but data and errors.")
  parser:flag("-v --verbose", "Say more.")
  parser:flag("--json", "Print one JSON object on one line.")
  parser:option("--color", "When to use colours: auto, always or never.")
    :choices({ "auto", "always", "never" })
end

---The parser, with the flags of the commands in `only` (all when nil): loading all of them takes
---longer than a short run.
---@param argparse table the module
---@param only? string
function cli.parser(argparse, only)
  local parser = argparse("farcall", help.flow(DESCRIPTION), help.flow(EPILOG))
    :require_command(false):command_target("command"):usage_max_width(help.WIDTH)
  parser:flag("--version", "Print the version."):target("show_version")
  for _, row in ipairs(cli.COMMANDS) do
    local name, summary = row[1], row[2]
    local command = parser:command(name, summary):summary(summary)
    if only == nil or only == name then
      local module = require("farcall.cli." .. name)
      command:description(help.flow(module.description))
      command:epilog(help.flow(module.epilog))
      module.configure(command)
      add_common_flags(command)
    end
  end
  return parser
end

---Splits the words at the first lone --: what follows is the script's or the command's.
local function split(argv)
  local own, rest
  own = {}
  for i = 1, #argv do
    if argv[i] == "--" and not rest then
      rest = {}
    elseif rest then
      rest[#rest + 1] = argv[i]
    else
      own[#own + 1] = argv[i]
    end
  end
  return own, rest
end

local function contains(words, wanted)
  for _, word in ipairs(words) do
    if word == wanted then
      return true
    end
  end
  return false
end

---Wrong words: told as other errors are, although their flags are not known yet.
local function usage_error(words, message, hint)
  local session, ui = require("farcall.cli.session"), require("farcall.cli.ui")
  local shown = ui.new({ json = contains(words, "--json") }, require("farcall.config").environ())
  return session.fail(shown, errors.new("usage", "", message, { hint = hint }))
end

-- Options belong behind the command; only these stand alone.
local ALONE = { ["--version"] = true, ["-h"] = true, ["--help"] = true }

-- What to say about a first word that is no command; nil when it is one.
local function wrong_command(word)
  local names = {}
  for i, row in ipairs(cli.COMMANDS) do
    names[i] = row[1]
    if row[1] == word then
      return nil
    end
  end
  if word:sub(1, 1) == "-" then
    return "options come after the command", "farcall COMMAND " .. word
  end
  local near = require("farcall.schema").suggest(word, names)
  return ("unknown command '%s'"):format(word), near and ("did you mean '%s'?"):format(near)
    or "`farcall help` lists them"
end

-- What the parser says, in one line. A negative number looks like a flag to it; and it does not say
-- which flag a word belongs to.
local function plain_message(words, message)
  message = message:gsub("\nDid you mean", ": did you mean")
  local word = message:match("^unknown option '(%-[%d.]+)'")
  if word then
    message = ("'%s' is not a number from 0 up"):format(word)
  end
  word = message:match("^'(.-)' is not a number")
  for i = 2, word and #words or 0 do
    local flag = words[i] == word and words[i - 1] or words[i]:match("^(%-%-[%w-]+)=(.*)$")
    if flag and flag:sub(1, 1) == "-" and (words[i] == word or words[i] == flag .. "=" .. word) then
      return flag .. ": " .. message
    end
  end
  return message
end

-- Output comes in large strings: with LuaJIT's own pace some 256 MB of it leave twice the memory.
local GC_PAUSE, GC_STEP = 150, 1000

---@param argv string[] [0] is the program
---@return integer exit code
function cli.main(argv)
  collectgarbage("setpause", GC_PAUSE)
  collectgarbage("setstepmul", GC_STEP)
  local system = require("farcall.core.system")
  local argparse, missing = require_argparse()
  if not argparse then
    system.write(2, "farcall: " .. tostring(missing) .. "\n")
    return EXIT_ENGINE
  end
  local words, rest = split(argv)
  if words[1] == "help" then
    words = { words[2] or "--help", words[2] and "--help" }
  end
  local name = words[1]
  local parser = cli.parser(argparse, name or "")
  if not name then
    system.write(2, parser:get_help() .. "\n")
    return EXIT_USAGE
  end
  if not ALONE[name] then
    local message, hint = wrong_command(name)
    if message then
      return usage_error(words, message, hint)
    end
  end
  local ok, args = parser:pparse(words)
  if not ok then
    local message = plain_message(words, tostring(args))
    local advice = require("farcall.cli." .. name).advice
    return usage_error(words, message, advice and advice(words, message)
      or ("`farcall %s --help` tells more"):format(name))
  end
  if args.show_version then
    system.write(1, "farcall " .. cli.VERSION .. "\n")
    return EXIT_OK
  end
  args.rest = rest
  local ui = require("farcall.cli.ui").new(args, require("farcall.config").environ())
  return ui:exit_code(require("farcall.cli." .. args.command).run(args, ui))
end

return cli
