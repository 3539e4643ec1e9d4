-- SPDX-License-Identifier: MIT
-- busted output: a line per spec file, every failure in full, and the counts in the file that the
-- environment names, for spec/run.sh to add up. A pending test counts as failed.

return function()
  local handler = require("busted.outputHandlers.base")()
  local busted = require("busted")

  local function name_of(element)
    return handler.getFullName(element)
  end

  function handler.fileEnd(file)
    io.stdout:write(("%s: %d passed\n"):format(file.name, handler.passed_in_file or 0))
    handler.passed_in_file = 0
    return nil, true
  end

  function handler.testEnd(_, _, status)
    if status == "success" then
      handler.passed_in_file = (handler.passed_in_file or 0) + 1
    end
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
    local failed = handler.failuresCount + handler.errorsCount + handler.pendingsCount
    local counts = os.getenv("SPEC_COUNTS")
    if counts then
      local file = assert(io.open(counts, "a"))
      file:write(("%d %d\n"):format(handler.successesCount, failed))
      file:close()
    end
    return nil, true
  end

  busted.subscribe({ "file", "end" }, handler.fileEnd)
  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end
