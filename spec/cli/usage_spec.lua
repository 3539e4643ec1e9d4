-- SPDX-License-Identifier: MIT
-- What is typed wrongly or asked for: words -> exit code, stdout, stderr.
local cli = require("spec.support.cli")
local helper = require("spec.helper")
local json = require("farcall.core.json")

-- argv, exit code, pattern of stdout ("" = nothing), pattern of stderr.
local CASES = {
  { {}, 2, "", "Usage: farcall" },
  { { "--help" }, 0, "Usage: farcall.*completion", "" },
  { { "help" }, 0, "Usage: farcall.*completion", "" },
  { { "help", "run" }, 0, "Usage: farcall run", "" },
  { { "run", "--help" }, 0, "Exit code: the script's own", "" },
  { { "--version" }, 0, "^farcall %d", "" },
  { { "version" }, 0, "^farcall %d.*LuaJIT", "" },
  { { "rnu" }, 2, "", "unknown command 'rnu'.*did you mean 'run'" },
  { { "zzzzzz" }, 2, "", "unknown command 'zzzzzz'.*farcall help" },
  { { "help", "rnu" }, 2, "", "did you mean 'run'" },
  { { "-q", "run" }, 2, "", "options come after the command.*farcall COMMAND %-q" },
  { { "run", "--timout", "3", "a.py" }, 2, "", "'%-%-timout'.*did you mean '%-%-timeout'" },
  { { "run" }, 2, "", "script file or %-c TEXT" },
  { { "run", "a.py", "-c", "x" }, 2, "", "script file or %-c TEXT" },
  { { "run", "a.py", "b.py" }, 2, "", "too many arguments.*farcall run %-%-help" },
  { { "run", "." }, 2, "", "is a directory" },
  { { "run", "empty.py" }, 2, "", "the script is empty" },
  { { "run", "nul.py" }, 2, "", "NUL byte" },
  { { "run", "-" }, 2, "", "the script is empty" },
  { { "run", "missing.py" }, 2, "", "missing.py: No such file" },
  { { "run", "a.py", "--timeout", "abc" }, 2, "", "%-%-timeout: 'abc' is not a number" },
  { { "run", "a.py", "--timeout", "-1" }, 2, "", "%-%-timeout: '%-1' is not a number from 0 up" },
  { { "exec", "--timeout=x", "--", "y" }, 2, "", "%-%-timeout: 'x' is not a number" },
  { { "exec", "df", "-h" }, 2, "", "put %-%- before the command: farcall exec %-%- df %-h" },
  { { "exec", "-q", "df" }, 2, "", "farcall exec %-q %-%- df" },
  { { "run", "a.py", "--timeout", "inf" }, 2, "", "'inf' is not a number" },
  { { "run", "a.py", "--timeout", "0" }, 2, "", "%-%-timeout must be above 0" },
  { { "run", "a.py", "--max-calls", "1.5" }, 2, "", "%-%-max%-calls is a whole number" },
  { { "run", "a.py", "--max-calls=-1" }, 2, "", "%-%-max%-calls: '%-1' is not a number from 0 up" },
  { { "run", "a.py", "--allow", "terminl" }, 2, "", "did you mean terminal" },
  { { "run", "a.py", "--env", "NOT_SET_HERE" }, 2, "", "no such variable" },
  { { "run", "a.py", "--env", "1=2" }, 2, "", "expected NAME or NAME=VALUE" },
  { { "run", "a.py", "-o", "cwd" }, 2, "", "expected NAME=VALUE" },
  { { "run", "a.py", "-o", "cwdd=/" }, 125, "", "did you mean cwd" },
  { { "run", "a.py", "-o", "env=A=1", "-o", "env=B=2" }, 2, "", "given already.*%-o env=A,B" },
  { { "run", "a.py", "-b", "lokal" }, 125, "", "backend lokal.*did you mean local" },
  { { "run", "a.py", "-l", "cobol" }, 125, "", "stub cobol" },
  { { "run", "a.cob" }, 2, "", "no stub template is for .cob.*farcall stubs" },
  { { "run", "a.py", "--policy", "nosuch" }, 125, "", "policy nosuch" },
  { { "run", "a.py", "--policy", "budget:max_cals=3" }, 125, "", "did you mean max_calls" },
  { { "run", "a.py", "--policy", "budget:max_calls=x" }, 125, "", "must be a whole number" },
  { { "run", "a.py", "--policy", "budget:oops" }, 2, "", "expected KEY=VALUE" },
  { { "run", "a.py", "--policy", "allow:tools=a,b" }, 2, "", "not b .*into a configuration" },
  { { "run", "a.py", "-C", "nosuch.lua" }, 125, "", "nosuch.lua: no such configuration" },
  { { "run", "a.py", "--transport", "pigeon" }, 125, "", "transport pigeon" },
  { { "exec" }, 2, "", "give a command after %-%-" },
  { { "exec", "-c", "x", "--", "y" }, 2, "", "give a command after %-%-" },
  { { "exec", "--", "no-such-program" }, 125, "", "exec no%-such%-program: No such file" },
  { { "check", "-C", "uses.lua" }, 125, "", "backend nic.*there are: .*local" },
  { { "check", "-C", "nouse.lua" }, 125, "", "backend box: .*did you mean use instead of ues" },
  { { "check", "-C", "word.lua" }, 125, "", "word.lua:1: .*did you mean 'stub_module'" },
  { { "check", "-C", "set.lua" }, 125, "", "set.lua:1: .*'stub_module'.*without =" },
  { { "check", "-C", "tool.lua" }, 125, "",
    "^[^\n]*/tool.lua:1: tool ticket: a tool has[^\n]*\n1 to mend\n$" },
  { { "runs", "show" }, 2, "", "farcall runs ls" },
  { { "runs", "show", "../../etc" }, 2, "", "not a run id" },
  { { "runs", "show", "20260101-000000-000-0000000000" }, 125, "", "no such run" },
  { { "trust" }, 125, "", "there is no farcall.lua in" },
  { { "tools", "terminl" }, 125, "", "did you mean terminal" },
  { { "policies", "bugdet" }, 125, "", "did you mean budget" },
  { { "completion", "tcsh" }, 2, "", "bash.*zsh.*fish" },
  { { "new", "tol", "x" }, 2, "", "backend.*policy.*tool.*stub" },
  { { "new", "tool", "a-b" }, 2, "", "letters, digits and _" },
  { { "new", "tool", "../x" }, 2, "", "letters, digits and _" },
}

describe("the command line", function()
  it("answers each of these words with its exit code, and says what to do", function()
    local home = cli.home()
    home:write("work/a.py", "print(1)\n")
    home:write("work/a.cob", "DISPLAY 1.\n")
    home:write("work/empty.py", " \n")
    home:write("work/nul.py", "print(1)\0\n")
    home:write("work/uses.lua", 'backend "box" { use = "nic" }\n')
    home:write("work/nouse.lua", 'backend "box" { ues = "local" }\n')
    home:write("work/word.lua", 'stub_modul "x"\n')
    home:write("work/set.lua", 'stub_modul = "x"\n')
    home:write("work/tool.lua", 'tool "ticket" { summary = "x" }\n')
    for _, case in ipairs(CASES) do
      local argv, code, out, err = unpack(case)
      local got = home:run(argv)
      local told = ("farcall %s: %d\n%s%s"):format(table.concat(argv, " "), got.code, got.out,
        got.err)
      assert.equal(code, got.code, told)
      assert.is_truthy(out == "" and got.out == "" or out ~= "" and got.out:find(out), told)
      assert.is_truthy(err == "" and got.err == "" or err ~= "" and got.err:find(err), told)
      assert.is_nil(got.err:find("traceback", 1, true), told)
    end
  end)

  it("tells errors as one JSON line with --json, whoever found them", function()
    local home = cli.home()
    for _, argv in ipairs({
      { "run", "--json", "missing.py" }, { "run", "--json", "--nope", "x" }, { "rnu", "--json" },
      { "run", "--json", "-b", "nosuch", "-c", "print(1)" }, { "exec", "--json" },
      { "check", "-C", "nosuch.lua", "--json" }, { "tools", "nosuch", "--json" },
    }) do
      local got = home:run(argv)
      local told = table.concat(argv, " ") .. ": " .. got.out .. got.err
      assert.equal(1, select(2, got.out:gsub("\n", "")), told)
      local value = assert(json.decode(got.out), told)
      assert.equal("error", value.status, told)
      assert.is_string(value.error_kind, told)
      assert.is_string(value.error, told)
      assert.is_true(got.code == 2 or got.code == 125, told)
    end
  end)

  it("fails when its data cannot be written", function()
    local home = cli.home()
    local farcall = require("farcall.core.fs").realpath(
      require("spec.support.build").dir) .. "/farcall "
    for _, line in ipairs({
      "version >/dev/full", "tools --json >/dev/full", "run -c 'print(1)' >/dev/full",
      "exec -- echo x >/dev/full", "version >&-",
    }) do
      local got = home:run({ "-c", farcall .. line }, { program = "/bin/sh" })
      assert.equal(125, got.code, line)
      assert.matches("farcall: standard output: ", got.err, 1, true)
    end
    local got = home:run({ "-c", farcall .. "run -c 'print(1)' <&- 2>&-" }, { program = "/bin/sh" })
    assert.same({ code = 0, out = "1\n", err = "" }, got)
  end)

  it("runs no Lua file of the current directory", function()
    local home = cli.home()
    for _, name in ipairs({ "argparse", "farcall", "jit/opt" }) do
      home:write("work/" .. name .. ".lua", "io.open('pwned', 'w'):close()")
    end
    -- A configuration that nobody has trusted is refused, not run.
    assert.equal(0, home:run({ "version" }).code)
    local got = home:run({ "run", "-c", "print(1)" })
    assert.equal(125, got.code)
    assert.matches("it is not trusted.*farcall trust", got.err)
    assert.is_nil(helper.read(home.work .. "/pwned"))
  end)

  it("lists every command in its help, each with a description and an example", function()
    local home = cli.home()
    local help = home:run({ "help" }).out
    for _, row in ipairs(require("farcall.cli").COMMANDS) do
      assert.is_truthy(help:find("\n   " .. row[1], 1, true), row[1])
      local own = home:run({ row[1], "--help" })
      assert.equal(0, own.code)
      assert.matches("Example", own.out, 1, true)
      assert.matches("--json", own.out, 1, true)
    end
  end)
end)
