-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local session = require("farcall.cli.session")
local statements = require("farcall.cli.statements")
local system = require("farcall.core.system")

local repl = {}

local STDOUT, STDERR = 1, 2
local EXIT_BY_STATUS = { timeout = 124, refused = 126, interrupted = 130 }
local EXIT_PIPE = 141

repl.description = [[
Runs the Python statements of standard input in the environment, one after the other in one
interpreter; each is a run of its own, with its own deadline and number of calls. Ctrl-C interrupts
the statement, Ctrl-D or exit() ends.]]

repl.epilog = [[
Examples:
  farcall repl                      # statements from the terminal
  farcall repl -b box --timeout 20
  printf 'x = 41\nx + 1\n' | farcall repl

Exit code: that of the last statement, as `farcall run` has it, or what exit() was given. At a
terminal Ctrl-C ends the statement only; elsewhere a signal ends all: 128 + its number.]]

function repl.configure(command)
  session.add_backend_flags(command)
  command:option("--session", "Name of the session."):argname("NAME"):default("repl")
  command:option("--timeout", "Seconds for each statement."):argname("S"):convert(session.number)
  command:option("--max-calls", "Tool calls of each statement."):argname("N")
    :convert(session.number)
end

local function make_hooks(engine, state, ui)
  local hooks = {}
  ---@async
  function hooks.ask(question)
    return ui:ask(question)
  end
  if ui.json then
    return hooks
  end
  ---@async
  function hooks.stdout(bytes)
    local _, _, code = ui:stream(STDOUT, bytes)
    if code == "EPIPE" and not state.reader_gone then
      state.reader_gone = true
      engine:interrupt("PIPE")
    end
  end
  ---@async
  function hooks.stderr(bytes)
    ui:stream(STDERR, bytes)
  end
  return hooks
end

-- What the statement has not said itself.
local function show(ui, result)
  if ui.json then
    ui:out_json(result)
  elseif result.status == "timeout" or result.status == "refused" or not result.exit_code then
    ui:fail(result.error)
  end
  if not ui.json and result.hint and (result.session_lost or result.session_state == "lost") then
    ui:say("farcall: " .. result.hint)
  end
end

local function prompt(state, ui)
  if state.prompting then
    ui:err(state.reader:pending() and "... " or ">>> ")
  end
end

---Runs one statement. Returns an exit code when it was the last.
---@async
local function perform(engine, state, ui, text)
  state.busy, state.interrupted = true, false
  local job = { language = "python", script = text, echo = true }
  for name, value in pairs(state.job) do
    job[name] = value
  end
  local result, err = engine:run(job, state.hooks)
  state.busy = false
  if not result then
    return session.fail(ui, err)
  end
  show(ui, result)
  if result.status == "interrupted" and (state.caught.name or not state.prompting) then
    return session.interrupted(state.caught.name or "INT")
  end
  if not result.started and not state.prompting then
    -- Nor would the next one be, and it may rely on this one.
    return EXIT_BY_STATUS[result.status] or session.code_of(result)
  end
  state.code = EXIT_BY_STATUS[result.status] or session.code_of(result)
  return state.reader_gone and EXIT_PIPE or result.exit_called and state.code or nil
end

---@async
local function converse(engine, state, ui)
  local line
  repeat
    prompt(state, ui)
    line = ui:read_line()
    local complete = line and state.reader:feed(line, state.prompting)
      or { state.reader:finish() }
    if not line and state.prompting then
      ui:err("\n")
    end
    for _, text in ipairs(complete) do
      local code = perform(engine, state, ui, text)
      if code then
        return code
      end
    end
  until not line
  return state.code
end

function repl.run(args, ui)
  local options, err
  if args.timeout == 0 then
    err = errors.new("usage", "repl", "--timeout must be above 0")
  elseif args.max_calls and args.max_calls % 1 ~= 0 then
    err = errors.new("usage", "repl", "--max-calls is a whole number")
  else
    options, err = session.backend_options(args)
  end
  if not options then
    return session.fail(ui, err)
  end
  local state = {
    reader = statements.new(), code = 0,
    prompting = system.isatty(0) and ui.terminal and not ui.quiet,
    job = { session = args.session, backend = args.backend, options = options },
  }
  -- At a terminal Ctrl-C ends the statement, or what has been typed of it; the second one, while
  -- the statement still runs, ends farcall. Without a terminal any signal ends all.
  local function interrupt(engine, name)
    if name ~= "INT" or not state.prompting then
      return engine:interrupt(name)
    elseif state.busy then
      local first = not state.interrupted
      state.interrupted = true
      return first and engine:interrupt(name) and "handled"
    end
    state.reader:reset()
    ui:err("\nKeyboardInterrupt\n")
    prompt(state, ui)
    return "handled"
  end
  local flags = { timeout = args.timeout, max_calls = args.max_calls }
  return session.with_engine(args, ui, flags, function(engine, caught)
    state.caught = caught
    state.hooks = make_hooks(engine, state, ui)
    return converse(engine, state, ui)
  end, interrupt)
end

return repl
