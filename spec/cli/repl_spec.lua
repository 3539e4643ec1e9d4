-- SPDX-License-Identifier: MIT
-- `farcall repl`: statements that are piped, and statements that are typed at a terminal.
local cli = require("spec.support.cli")
local json = require("farcall.core.json")
local statements = require("farcall.cli.statements")
local system = require("farcall.core.system")
local task = require("farcall.task")

local function piped(text, ...)
  return cli.home():run({ "repl", ... }, { stdin = text })
end

-- What a terminal shows while somebody waits for a text, types, waits for the next one...
local function typed(steps, ...)
  local argv = { system.cwd() .. "/spec/support/terminal.py" }
  for _, word in ipairs(steps) do
    argv[#argv + 1] = word
  end
  for _, word in ipairs({ "--", cli.program(), "repl", ... }) do
    argv[#argv + 1] = word
  end
  return cli.home():run(argv, { program = "/usr/bin/python3" })
end

describe("statements", function()
  local function split(text, blank_ends)
    local reader, all = statements.new(), {}
    for line in text:gmatch("([^\n]*)\n") do
      for _, one in ipairs(reader:feed(line, blank_ends)) do
        all[#all + 1] = one
      end
    end
    all[#all + 1] = reader:finish()
    return all
  end

  it("are whole before they are run", function()
    for _, case in ipairs({
      { "x = 1\ny\n", { "x = 1\n", "y\n" } },
      { "f(1,\n  2)\n3\n", { "f(1,\n  2)\n", "3\n" } },
      { "s = '''a\n\nb'''\n3\n", { "s = '''a\n\nb'''\n", "3\n" } },
      { "s = '(' # (\n3\n", { "s = '(' # (\n", "3\n" } },
      { "x = \\\n 2\n3\n", { "x = \\\n 2\n", "3\n" } },
      { "if x:\n  1\nelse:\n  2\n3\n", { "if x:\n  1\nelse:\n  2\n", "3\n" } },
      { "def f():\n  1\n\n  2\nf()\n", { "def f():\n  1\n\n  2\n", "f()\n" } },
      { "@d\ndef f():\n  1\nf()\n", { "@d\ndef f():\n  1\n", "f()\n" } },
      { "try:\n  1\nexcept E:\n  2\nfinally:\n  3\n4\n",
        { "try:\n  1\nexcept E:\n  2\nfinally:\n  3\n", "4\n" } },
      { "# only\n\n1\n", { "# only\n", "1\n" } },
      { "f(\n", { "f(\n" } },
      { "x = )\n1\n", { "x = )\n", "1\n" } },
    }) do
      assert.same(case[2], split(case[1], false))
    end
    assert.same({ "def f():\n  1\n\n", "2\n" }, split("def f():\n  1\n\n2\n", true))
  end)
end)

describe("farcall repl", function()
  it("runs what is piped in one interpreter, and prints values", function()
    local got = piped("import os\nx = 40\ndef f(n):\n  return x + n\n\nf(2)\nprint('p')\n'\\n'\n")
    assert.equal("", got.err)
    assert.equal("42\np\n'\\n'\n", got.out)
    assert.equal(0, got.code)
  end)

  it("goes on after an error, and ends with the exit code of the last statement", function()
    local got = piped("1/0\nx = = 2\n5\n")
    assert.equal("5\n", got.out)
    assert.matches("ZeroDivisionError", got.err)
    assert.matches("SyntaxError", got.err)
    assert.equal(0, got.code)
    assert.equal(1, piped("5\n1/0\n").code)
    local left = piped("import sys\nsys.exit(7)\nprint('never')\n")
    assert.equal(7, left.code)
    assert.equal("", left.out)
    assert.equal(0, piped("exit()\n1/0\n").code)
    assert.equal(0, piped("").code)
  end)

  it("gives each statement its deadline and its calls, and keeps what is known", function()
    local got = piped("import time\nx = 3\ntime.sleep(60)\nx\n", "--timeout", "1.5")
    assert.equal("3\n", got.out)
    assert.matches("took longer than 1.5 s and was interrupted", got.err, 1, true)
    assert.equal(124, piped("import time\ntime.sleep(60)\n", "--timeout", "1.5").code)
    got = piped("from farcall import terminal as t\nt('echo a')['output']\nt('echo b')['output']\n",
      "--max-calls", "1")
    assert.equal("'a\\n'\n'b\\n'\n", got.out)
  end)

  it("says when what was known is lost", function()
    local got = piped("x = 1\nimport os\nos._exit(3)\n'x' in globals()\n")
    assert.equal("False\n", got.out)
    assert.matches("what session repl knew is lost", got.err)
    assert.matches("began anew", got.err)
    assert.equal(0, got.code)
  end)

  it("tells each statement as one JSON object with --json", function()
    local got = piped("x = 2\nx\n1/0\n", "--json", "--session", "other")
    local all = {}
    for line in got.out:gmatch("[^\n]+") do
      all[#all + 1] = assert(json.decode(line))
    end
    assert.equal(3, #all)
    assert.equal("other", all[2].session)
    assert.equal("new", all[1].session_state)
    assert.equal("2\n", all[2].output)
    assert.equal("error", all[3].status)
    assert.equal(1, got.code)
    assert.equal("", got.err)
  end)

  it("refuses what it cannot do before anything runs", function()
    for _, case in ipairs({
      { { "--timeout", "0" }, 2, "above 0" }, { { "--max-calls", "1.5" }, 2, "whole number" },
      { { "--session", "a b" }, 2, "its name is" }, { { "-o", "x" }, 2, "NAME=VALUE" },
      { { "-b", "nosuch" }, 125, "nosuch" },
    }) do
      local got = piped("1\n", unpack(case[1]))
      assert.equal(case[2], got.code, got.err)
      assert.matches(case[3], got.err)
      assert.equal("", got.out)
    end
  end)

  it("ends with a signal when nobody types", function()
    for _, case in ipairs({ { "INT", 130 }, { "TERM", 143 } }) do
      local got = task.run(function()
        local running = cli.home():start({ "repl" }, {
          stdin = "import time\nprint('on', flush=True); time.sleep(60)\nprint('never')\n",
        })
        for _ = 1, 600 do
          if running.out[1] then
            break
          end
          task.sleep(0.05)
        end
        running.child:kill(case[1])
        return cli.finish(running)
      end)
      assert.equal("on\n", got.out)
      assert.equal(case[2], got.code, got.err)
    end
  end)

  it("ends at the first statement that could not be started when nobody types", function()
    local got = piped("1\n2\n", "-b", "ssh", "-o", "host=no-such-host.invalid")
    assert.equal(125, got.code)
    assert.equal("", got.out)
    assert.matches("no-such-host", got.err, 1, true)
    assert.equal(1, select(2, got.err:gsub("farcall: ", "")), got.err)
  end)

  it("has sessions of which a single run may be one", function()
    local home = cli.home()
    local got = home:run({ "run", "--json", "--session", "s", "-c", "print(1)" })
    local result = assert(json.decode(got.out))
    assert.same({ "s", "new", "1\n" }, { result.session, result.session_state, result.output })
    got = home:run({ "run", "--session", "s", "-l", "sh", "-c", "true" })
    assert.equal(125, got.code)
    assert.matches("sessions for Python only", got.err)
  end)

  it("asks at a terminal, with another sign in the middle of a statement", function()
    local got = typed({ ">>> ", "x = 2\n", ">>> ", "def f():\n", "... ", "  return x + 1\n", "... ",
      "\n", ">>> ", "f()\n", "\n3", "", ">>> ", "\\x04" })
    assert.matches(">>> def f%(%):\n%.%.%.   return x %+ 1\n%.%.%. \n>>> f%(%)\n3\n>>> \n", got.out)
    assert.equal(0, got.code)
  end)

  it("ends the statement at Ctrl-C, or what has been typed of it, and lives on", function()
    local got = typed({
      ">>> ", "import time; x = 5\n", ">>> ", "print('o' + 'n'); time.sleep(60)\n", "\non", "\\x03",
      "KeyboardInterrupt", "", ">>> ", "def f(:\\x03", "KeyboardInterrupt", "", ">>> ", "x + 1\n",
      "\n6", "", ">>> ", "import sys; sys.exit(9)\n",
    })
    assert.matches("time.sleep%(60%)\n.*\nKeyboardInterrupt\n", got.out)
    assert.matches(">>> x %+ 1\n6\n>>> import sys", got.out)
    assert.equal(9, got.code)
  end)
end)
