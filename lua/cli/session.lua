-- SPDX-License-Identifier: MIT
-- What most commands begin with: the configuration, an engine, signals; and how an error becomes an
-- exit code.

local config = require("farcall.config")
local task = require("farcall.task")

local session = {}

local EXIT_USAGE, EXIT_ENGINE = 2, 125

---2 when the words of the command line were wrong, 125 otherwise.
---@param err farcall.Error
function session.exit_code(err)
  return err.kind == "usage" and EXIT_USAGE or EXIT_ENGINE
end

---Tells the error, as JSON too when that was asked for, and returns the exit code.
function session.fail(ui, err)
  if ui.json then
    ui:out_json({
      status = "error", error = tostring(err), error_kind = err.kind, hint = err.hint,
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

---Runs body(engine, cfg) as a task with an engine that is closed whatever happens. SIGINT, SIGTERM
---and SIGHUP interrupt its runs; a second one ends the waiting.
---@param body async fun(engine: farcall.Engine, cfg: farcall.Config): integer
---@return integer exit code
function session.with_engine(args, ui, flags, body)
  local cfg, err = session.config(args, flags)
  if not cfg then
    return session.fail(ui, err)
  end
  function cfg.log(level, text)
    if level ~= "debug" or ui.verbose then
      ui:say("farcall: " .. text)
    end
  end
  return task.run(function()
    local engine = require("farcall.engine").new(cfg)
    local interrupted
    local signals = assert(task.loop():signals({ "INT", "TERM", "HUP" }, function(name)
      interrupted = interrupted or name
      engine:interrupt(name)
    end))
    local ok, code = pcall(body, engine, cfg, function()
      return interrupted
    end)
    task.shield(engine.close, engine)
    signals:close()
    if not ok then
      error(code, 0)
    end
    return code
  end)
end

---key=value words as a table.
---@return table<string, string>?
---@return farcall.Error? err
function session.pairs(list, flag)
  local errors = require("farcall.errors")
  local values = {}
  for _, word in ipairs(list or {}) do
    local key, value = word:match("^([^=]+)=(.*)$")
    if not key then
      return nil, errors.new("usage", flag .. " " .. word, "expected NAME=VALUE")
    end
    values[key] = value
  end
  return values
end

---The flags -b and -o, which several commands have.
function session.add_backend_flags(command)
  command:option("-b --backend", "Where: a backend of the configuration, or any by its name.")
    :argname("NAME")
  command:option("-o --option", "An option of the backend."):argname("KEY=VALUE"):count("*")
    :target("options")
end

return session
