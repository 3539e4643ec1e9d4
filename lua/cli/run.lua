-- SPDX-License-Identifier: MIT
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local job_flags = require("farcall.cli.job_flags")
local progress = require("farcall.cli.progress")
local session = require("farcall.cli.session")

local run = {}

local MAX_SCRIPT = 16 * 1024 * 1024
local STDOUT, STDERR = 1, 2
local EXIT_BY_STATUS = { timeout = 124, refused = 126 }
-- As if SIGPIPE had ended the script, which it would have without farcall in between.
local EXIT_PIPE = 141

run.description = [[
Runs a script and serves the tools that it calls. The script's output appears as it is written; with
--json one object with everything comes at the end.]]

run.epilog = [[
Examples:
  farcall run script.py
  farcall run script.py -- --verbose input.txt       # these are the script's
  python3 make_script.py | farcall run -
  farcall run -c 'from farcall import terminal; print(terminal("uptime")["output"])'
  farcall run --allow read_file,search_files --timeout 60 --json script.py
  farcall run -o cwd=/srv/data --policy budget:max_calls=10 script.py
  farcall run -b box --key dev script.py             # in an environment that stays

Exit code: the script's own; 2 usage; 124 timeout; 125 engine, backend or configuration; 126 refused
by a policy; 128 + its number when a signal interrupted it: 130 for Ctrl-C, 143 for TERM.]]

function run.configure(command)
  command:usage("Usage: farcall run [OPTION]... (FILE | - | -c TEXT) [-- ARG...]")
  command:argument("file", "The script; - reads it from standard input."):args("?")
    :argname("FILE")
  command:option("-c --code", "The script itself, instead of a file."):argname("TEXT")
  session.add_backend_flags(command)
  command:option("-l --language", "The script's language; its name tells, else Python.")
    :argname("NAME")
  command:option("--transport", "How calls travel; chosen by itself unless given.")
    :argname("NAME")
  command:option("--session", "In a Python session; it ends with this command.")
    :argname("NAME")
  command:option("--timeout", "Seconds after which the script is killed."):argname("S")
    :convert(session.number)
  command:option("--max-calls", "Tool calls that the script may make."):argname("N")
    :convert(session.number)
  job_flags.add(command)
end

local function usage(op, message, hint)
  return nil, errors.new("usage", op, message, { hint = hint })
end

---@return string? script
---@return string|farcall.Error? filename or err
local function read_script(args)
  if (args.file == nil) == (args.code == nil) then
    return usage("run", "give either a script file or -c TEXT",
      "`farcall run --help` tells more")
  end
  if args.code then
    return args.code
  end
  if args.file == "-" then
    return io.read("*a")
  end
  local stat, message = fs.stat(args.file)
  if not stat then
    return usage(args.file, (message:gsub("^.-: ", "")))
  elseif stat.type == "directory" then
    return usage(args.file, "is a directory, not a script")
  end
  local text
  text, message = fs.read(args.file, MAX_SCRIPT)
  if not text then
    return usage(args.file, message)
  end
  return text, args.file
end

---@return farcall.Job?
---@return farcall.Error? err
local function make_job(args, environ)
  if args.timeout == 0 then
    return usage("run", "--timeout must be above 0")
  elseif args.max_calls and args.max_calls % 1 ~= 0 then
    return usage("run", "--max-calls is a whole number")
  end
  local script, filename = read_script(args)
  if not script then
    return nil, filename
  end
  local job = {
    script = script, filename = filename, language = args.language, args = args.rest or {},
    backend = args.backend, allow = job_flags.allowed(args.allow), transport = args.transport,
    session = args.session,
  }
  local err
  job.options, err = session.backend_options(args)
  if job.options then
    job.env, err = job_flags.variables(args.env, environ)
  end
  if job.env then
    job.policies, err = job_flags.policies(args.policies)
  end
  if err then
    return nil, err
  end
  return job
end

---What the engine tells while the script runs. The hooks of the streams wait for slow readers; when
---the reader of stdout goes away the script ends, as it would by SIGPIPE.
local function make_hooks(engine, shown, ui)
  local hooks = { call = shown.call }
  ---@async
  function hooks.ask(question)
    shown.clear()
    return ui:ask(question)
  end
  if ui.json then
    return hooks
  end
  ---@async
  function hooks.stdout(bytes)
    shown.clear()
    local _, _, code = ui:stream(STDOUT, bytes)
    if code == "EPIPE" and not hooks.reader_gone then
      hooks.reader_gone = true
      engine:interrupt("PIPE")
    end
  end
  ---@async
  function hooks.stderr(bytes)
    shown.clear()
    ui:stream(STDERR, bytes)
  end
  return hooks
end

function run.run(args, ui)
  local environ = require("farcall.config").environ()
  local job, err = make_job(args, environ)
  if not job then
    return session.fail(ui, err)
  end
  local flags = { timeout = args.timeout, max_calls = args.max_calls }
  return session.with_engine(args, ui, flags, function(engine, caught)
    local shown = progress.new(ui)
    local hooks = make_hooks(engine, shown, ui)
    local result
    result, err = engine:run(job, hooks)
    shown.clear()
    if not result then
      return session.fail(ui, err)
    end
    if hooks.reader_gone then
      return EXIT_PIPE
    end
    if ui.json then
      ui:out_json(result)
    else
      progress.report(ui, result)
    end
    if result.status == "interrupted" and caught.name then
      return session.interrupted(caught.name)
    end
    return EXIT_BY_STATUS[result.status] or session.code_of(result)
  end)
end

return run
