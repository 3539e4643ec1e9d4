-- SPDX-License-Identifier: MIT
-- busted output: a line per spec file, every failure in full, and the counts of each spec file in
-- the file that the environment names, for spec/run.sh. A pending test counts as failed.

return function()
  local handler = require("busted.outputHandlers.base")()
  local busted = require("busted")

  local function name_of(element)
    return handler.getFullName(element)
  end

  local function counts()
    return handler.successesCount,
      handler.failuresCount + handler.errorsCount + handler.pendingsCount
  end

  local passed_before, failed_before
  local told = 0 -- failures of some file
  local lines = {}

  function handler.fileStart()
    passed_before, failed_before = counts()
    return nil, true
  end

  function handler.fileEnd(file)
    local passed, failed = counts()
    passed, failed = passed - passed_before, failed - failed_before
    told = told + failed
    io.stdout:write(("%s: %d passed\n"):format(file.name, passed))
    lines[#lines + 1] = ("%s %d %d\n"):format(file.name, passed, failed)
    return nil, true
  end

  function handler.suiteEnd()
    for _, list in ipairs({ handler.failures, handler.errors }) do
      for _, failed in ipairs(list) do
        local text = failed.message
        io.stdout:write(("\nFAILED %s\n  %s\n"):format(failed.name or name_of(failed.element),
          type(text) == "string" and text or require("pl.pretty").write(text)))
        if failed.trace and failed.trace.traceback then
          io.stdout:write(failed.trace.traceback, "\n")
        end
      end
    end
    for _, pending in ipairs(handler.pendings) do
      io.stdout:write(("\nFAILED %s\n  left out: every test must run\n"):format(pending.name))
    end
    local path = os.getenv("SPEC_COUNTS")
    if path then
      local _, failed = counts()
      -- A file that could not even be loaded is none of those that were run.
      if failed > told then
        lines[#lines + 1] = ("not-loaded 0 %d\n"):format(failed - told)
      end
      local file = assert(io.open(path, "a"))
      file:write(table.concat(lines))
      file:close()
    end
    return nil, true
  end

  busted.subscribe({ "file", "start" }, handler.fileStart)
  busted.subscribe({ "file", "end" }, handler.fileEnd)
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end
