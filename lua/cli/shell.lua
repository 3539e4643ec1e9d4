-- SPDX-License-Identifier: MIT
local session = require("farcall.cli.session")
local system = require("farcall.core.system")

local shell = {}

local EXIT_TIMEOUT = 124

shell.description = [[
Runs the lines of standard input in the environment's persistent shell, one after the other; the
working directory, variables and functions stay.]]

shell.epilog = [[
Examples:
  farcall shell                     # lines from the terminal, until Ctrl-D
  printf 'cd /usr\npwd\n' | farcall shell

Exit code: that of the last command.]]

function shell.configure(command)
  session.add_backend_flags(command)
  command:option("--timeout", "Seconds for each command."):argname("S"):convert(session.number)
end

local function show(ui, result)
  if ui.json then
    ui:out_json(result)
    return
  end
  ui:out(result.stdout)
  ui:err(result.stderr)
  if result.restarted then
    ui:say(("farcall: the shell %s; the next line gets a new one"):format(
      result.timed_out and "took too long and was killed" or "ended"))
  end
end

function shell.run(args, ui)
  local options, err = session.backend_options(args)
  if not options then
    return session.fail(ui, err)
  end
  return session.with_engine(args, ui, {}, function(engine)
    local opened
    opened, err = engine:shell({ backend = args.backend, options = options })
    if not opened then
      return session.fail(ui, err)
    end
    local code = 0
    local prompt = system.isatty(0) and ui.terminal and not ui.quiet
    while true do
      if prompt then
        ui:err("$ ")
      end
      local line = ui:read_line()
      if not line then
        break
      end
      local result
      result, err = opened:run({ command = line, timeout = args.timeout })
      if not result then
        opened:close()
        return session.fail(ui, err)
      end
      show(ui, result)
      code = result.timed_out and EXIT_TIMEOUT or session.code_of(result)
    end
    opened:close()
    return code
  end)
end

return shell
