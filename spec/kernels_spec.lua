-- SPDX-License-Identifier: MIT
local engines = require("spec.support.engines")

-- Runs body with a function that runs one script in the session "s"; more gives further fields.
local function with(over, body)
  return engines.with(over, function(one, cfg)
    return body(function(script, more)
      local job = { script = script, language = "python", session = "s" }
      for key, value in pairs(more or {}) do
        job[key] = value
      end
      return assert(one:run(job))
    end, one, cfg)
  end)
end

describe("sessions", function()
  it("keep what a script has defined for the next one", function()
    with({}, function(run)
      local first = run("import os\nx = 41\ndef f():\n  return x + 1\nprint('one')")
      assert.equal("", first.stderr)
      assert.equal("success", first.status)
      assert.equal("one\n", first.output)
      assert.equal("new", first.session_state)
      assert.equal("s", first.session)
      local second = run("print(f(), __name__, os.getpid() == os.getpid())")
      assert.equal("42 __main__ True\n", second.output)
      assert.equal("kept", second.session_state)
      assert.is_nil(second.hint)
      assert.not_equal(first.run_id, second.run_id)
    end)
  end)

  it("are apart by their names", function()
    with({}, function(run)
      run("x = 1")
      local other = run("print('x' in globals())", { session = "t" })
      assert.equal("False\n", other.output)
      assert.equal("new", other.session_state)
    end)
  end)

  it("serve tools to each run, with its own budget, list and arguments", function()
    with({}, function(run)
      local first = run("from farcall import terminal\nprint(terminal('echo hi')['output'])",
        { max_calls = 1 })
      assert.matches("hi", first.output)
      assert.equal(1, first.tool_calls_made)
      local second = run("import sys\nprint(terminal('echo again')['output'], sys.argv[1:])",
        { max_calls = 1, args = { "a", "b c\n" } })
      assert.equal("", second.stderr)
      assert.matches("again", second.output)
      assert.matches("%['a', 'b c\\n'%]", second.output)
      assert.equal(1, second.tool_calls_made)
      assert.equal(1, #second.calls)
      local third = run("import farcall\nprint(hasattr(farcall, 'terminal'))\nterminal('true')",
        { allow = { "read_file" } })
      assert.matches("terminal", third.stderr)
      assert.equal(0, third.tool_calls_made)
    end)
  end)
end)
