-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local session = require("farcall.cli.session")

local exec = {}

local STDOUT, STDERR = 1, 2

-- As of a program that SIGPIPE ended.
local EXIT_PIPE = 141

exec.description = [[
Runs one command in the environment, beside whatever else runs there, and exits as it did.]]

exec.epilog = [[
Examples:
  farcall exec -- df -h
  farcall exec -c 'cd /srv && ls | wc -l'
  echo hello | farcall exec --stdin -- tr a-z A-Z]]

function exec.configure(command)
  command:usage("Usage: farcall exec [OPTION]... (-- COMMAND [ARG]... | -c TEXT)")
  command:option("-c --command", "A command line for sh, instead of words after --.")
    :argname("TEXT"):target("line")
  session.add_backend_flags(command)
  command:option("--timeout", "Seconds after which it is killed."):argname("S")
    :convert(session.number)
  command:option("--cwd", "Directory to run it in."):argname("DIR")
  command:flag("--stdin", "Pass standard input on; it is empty otherwise.")
end

---What to do about words that cannot be understood, when it can be told.
---@param words string[] without what follows --
---@param message string
---@return string? hint
function exec.advice(words, message)
  if not message:find("too many arguments", 1, true) then
    return nil
  end
  for i = 2, #words do
    if words[i]:sub(1, 1) ~= "-" then
      return "put -- before the command: farcall " .. table.concat(words, " ", 1, i - 1) .. " -- "
        .. table.concat(words, " ", i)
    end
  end
  return nil
end

-- What comes is shown as it comes, however much it is; nil where it all goes into one object.
local function make_taker(ui, seen)
  if ui.json then
    return nil
  end
  ---@async
  return function(stream, bytes)
    local _, _, code = ui:stream(stream == "out" and STDOUT or STDERR, bytes)
    seen.reader_gone = seen.reader_gone or stream == "out" and code == "EPIPE"
    return not seen.reader_gone
  end
end

function exec.run(args, ui)
  local words = args.rest
  if (args.line == nil) == (words == nil or #words == 0) then
    return session.fail(ui, errors.new("usage", "exec", "give a command after -- or with -c TEXT"))
  end
  local options, err = session.backend_options(args)
  if not options then
    return session.fail(ui, err)
  end
  -- Before signals go to the engine: at this read they are for the program as a whole.
  local stdin = args.stdin and io.read("*a") or nil
  return session.with_engine(args, ui, {}, function(engine)
    local result
    local seen = {}
    result, err = engine:exec({
      backend = args.backend, options = options, command = args.line,
      argv = not args.line and words or nil, cwd = args.cwd, timeout = args.timeout,
      stdin = stdin, take = make_taker(ui, seen),
    })
    if not result then
      return session.fail(ui, err)
    end
    if seen.reader_gone then
      return EXIT_PIPE
    end
    if ui.json then
      ui:out_json(result)
    end
    if result.timed_out then
      ui:say(("farcall: it took longer than %g s and was killed"):format(args.timeout))
      return 124
    end
    return session.code_of(result)
  end)
end

return exec
