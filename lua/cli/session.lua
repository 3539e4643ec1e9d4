-- SPDX-License-Identifier: MIT
-- What most commands begin with: the configuration, an engine, signals; and how an error becomes an
-- exit code.

local config = require("farcall.config")
local errors = require("farcall.errors")
local log = require("farcall.log")
local proc = require("farcall.core.proc")
local task = require("farcall.task")

local session = {}

local EXIT_USAGE, EXIT_ENGINE, EXIT_SIGNAL = 2, 125, 128

---2 when the words of the command line were wrong, 125 otherwise.
---@param err farcall.Error
function session.exit_code(err)
  return err.kind == "usage" and EXIT_USAGE or EXIT_ENGINE
end

---Tells the error, as JSON too when that was asked for, and returns the exit code.
function session.fail(ui, err)
  if ui.json then
    ui:out_json({
      status = "error", error = err.op ~= "" and err.op .. ": " .. err.msg or err.msg,
      error_kind = err.kind, hint = err.hint,
    })
  end
  ui:fail(err)
  return session.exit_code(err)
end

---The configuration that the common flags ask for.
---@return farcall.Config?
---@return farcall.Error? err
function session.config(args, flags)
  return config.load({ file = args.config, flags = flags })
end

---The exit code of a command or script that ended by itself or by a signal.
---@param result {exit_code?: integer, signal?: string}
---@return integer
function session.code_of(result)
  if result.exit_code then
    return result.exit_code
  end
  return result.signal and EXIT_SIGNAL + proc.signal_number(result.signal) or EXIT_ENGINE
end

---The exit code of a command that a signal has interrupted: as if the signal had ended it.
---@param name string of the signal, without SIG
---@return integer
function session.interrupted(name)
  return EXIT_SIGNAL + proc.signal_number(name)
end

---Runs body(engine, caught) as a task with an engine that is closed whatever happens. SIGINT,
---SIGTERM and SIGHUP interrupt the engine's runs, so that body sees them end; without a run, or the
---second time, body itself is cancelled where it waits. The first that came is caught.name.
---@param body async fun(engine: farcall.Engine, caught: {name?: string}): integer
---@param interrupt? fun(engine: farcall.Engine, name: string): boolean|"handled" instead of the
---engine's own; "handled" when body goes on, as if no signal had come
---@return integer exit code
function session.with_engine(args, ui, flags, body, interrupt)
  local cfg, err = session.config(args, flags)
  if not cfg then
    return session.fail(ui, err)
  end
  cfg.log = log.new(ui.quiet and "error" or ui.verbose and "debug" or "info", function(text)
    ui:err("farcall: " .. ui.plain(text) .. "\n")
  end)
  return task.run(function()
    local engine = require("farcall.engine").new(cfg)
    local caught, own = {}, nil
    local signals = assert(task.loop():signals({ "INT", "TERM", "HUP" }, function(name)
      local answer = (interrupt or engine.interrupt)(engine, name)
      if answer == "handled" then
        return
      end
      local again = caught.name ~= nil
      caught.name = caught.name or name
      if not answer or again then
        ui:abandon()
        own:cancel()
      end
    end))
    own = task.spawn(body, engine, caught)
    local ok, code = own:join()
    task.shield(engine.close, engine)
    signals:close()
    if not ok and caught.name and errors.is(code) and code.kind == "cancelled" then
      return session.interrupted(caught.name)
    elseif not ok then
      error(code, 0)
    end
    return code
  end)
end

---For options that take a number: what argparse calls with the word.
---@return number?
---@return string? message
function session.number(word)
  local value = tonumber(word)
  if not value or value ~= value or value < 0 or value == math.huge then
    return nil, ("'%s' is not a number from 0 up"):format(word)
  end
  return value
end

---key=value words as a table.
---@return table<string, string>?
---@return farcall.Error? err
function session.pairs(list, flag)
  local values = {}
  for _, word in ipairs(list or {}) do
    local key, value = word:match("^([^=]+)=(.*)$")
    if not key then
      return nil, errors.new("usage", flag .. " " .. word, "expected NAME=VALUE")
    elseif values[key] then
      return nil, errors.new("usage", flag .. " " .. word, "it was given already",
        { hint = ("a list is one word: %s %s=A,B"):format(flag, key) })
    end
    values[key] = value
  end
  return values
end

---The options of the backend that -o and --key ask for.
---@return table<string, string>?
---@return farcall.Error? err
function session.backend_options(args)
  local options, err = session.pairs(args.options, "-o")
  if options and args.key then
    options.key = args.key
  end
  return options, err
end

---The flags -b, -o and --key, which several commands have.
function session.add_backend_flags(command)
  command:option("-b --backend", "Where: a backend of the configuration, or any by its name.")
    :argname("NAME")
  command:option("-o --option", "An option of the backend; a list is A,B."):argname("KEY=VALUE")
    :count("*"):target("options")
  command:option("--key", "Share the environment of this name, and leave it there.")
    :argname("NAME")
end

return session
