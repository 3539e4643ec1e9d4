-- SPDX-License-Identifier: MIT
-- `farcall run`, `exec` and `shell` with real scripts: output, exit codes, signals, slow readers.
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local sock = require("farcall.core.sock")
local task = require("farcall.task")

local function run(home, code, ...)
  return home:run({ "run", "-c", code, ... })
end

-- A script that starts a child and stays.
local STAY = [[
import time
import subprocess
subprocess.Popen(["sleep", "%s"])
print("ready", flush=True)
time.sleep(1000)
]]

-- Processes whose command line holds this word.
local function with_word(word)
  local pids = {}
  for _, name in ipairs(fs.list("/proc")) do
    local line = name:find("^%d+$") and helper.read("/proc/" .. name .. "/cmdline")
    if line and line:find(word, 1, true) then
      pids[#pids + 1] = name
    end
  end
  return pids
end

describe("farcall run", function()
  it("shows what an environment has said without what a terminal would obey", function()
    local home = cli.home()
    home:write("work/backends/rude.lua", [[
return {
  name = "rude", summary = "refuses", api = 1, options = {}, caps = {},
  open = function()
    return nil, require("farcall.errors").new("unavailable", "rude",
      "a\27]0;title\7b\27[2J\27[31mc\8\r\194\155Ad\nline", { hint = "do\27[5m it" })
  end,
}]])
    home:write("work/conf.lua", 'backend_path { "backends" }')
    for _, words in ipairs({ { "run", "-c", "pass" }, { "exec", "--", "true" }, { "doctor" } }) do
      table.insert(words, 2, "--config=conf.lua")
      table.insert(words, 3, "--backend=rude")
      local got = home:run(words)
      local told = got.out .. got.err
      assert.equal(125, got.code, told)
      assert.is_truthy(told:find("abcd\nline", 1, true), told)
      assert.is_nil(told:find("[%z\1-\8\11-\31\127]"))
    end
  end)

  it("takes a file, standard input or a text, and passes arguments on", function()
    local home = cli.home()
    home:write("work/a.py", "import sys\nprint(sys.argv[1:], repr(sys.stdin.read()))\n")
    local got = home:run({ "run", "a.py", "--", "--x", "y z", "--", "" })
    assert.same({ code = 0, out = "['--x', 'y z', '--', ''] ''\n", err = "" }, got)
    got = home:run({ "run", "-", "--", "b" }, { stdin = "import sys\nprint(sys.argv[1:])\n" })
    assert.same({ code = 0, out = "['b']\n", err = "" }, got)
    assert.same({ code = 0, out = "1\n", err = "" }, run(home, "print(1)"))
  end)

  it("serves the calls", function()
    local got = run(cli.home(),
      "from farcall import terminal\nprint(terminal('echo hi')['output'])")
    assert.same({ code = 0, out = "hi\n\n", err = "" }, got)
  end)

  it("exits as the script did", function()
    local home = cli.home()
    local got = run(home, "import sys\nprint('x', file=sys.stderr)\nsys.exit(7)")
    assert.equal(7, got.code)
    assert.equal("x\nfarcall: the script exited with code 7\n", got.err)
    assert.equal(137, run(home, "import os\nos.kill(os.getpid(), 9)").code)
    got = run(home, "import sys\nsys.exit(7)", "-q")
    assert.same({ code = 7, out = "", err = "" }, got)
  end)

  it("kills a script that takes too long, and exits with 124", function()
    local got = run(cli.home(), "print(1, flush=True)\nimport time\ntime.sleep(1000)", "--timeout",
      "0.5")
    assert.equal(124, got.code)
    assert.equal("1\n", got.out)
    assert.matches("longer than 0.5 s", got.err, 1, true)
  end)

  it("exits with 126 when a policy refuses the job", function()
    local home = cli.home()
    home:write("work/never.lua", [[
return { name = "never", summary = "s", place = function() return deny("not today") end }]])
    local got = run(home, "print(1)", "--policy", "./never.lua")
    assert.equal(126, got.code)
    assert.equal("", got.out)
    assert.matches("not today", got.err, 1, true)
  end)

  it("narrows tools, calls and variables by its flags", function()
    local home = cli.home()
    local got = run(home, "from farcall import terminal", "--allow", "read_file")
    assert.equal(1, got.code)
    assert.matches("the tool terminal is not among those that this run allows", got.err, 1, true)
    got = run(home, "from farcall import terminal\nterminal('true')\nterminal('true')",
      "--max-calls", "1")
    assert.equal(1, got.code)
    assert.matches("limit", got.err, 1, true)
    got = home:run({
      "run", "--env", "SHOWN=a=b", "--env", "GIVEN", "-c",
      "import os\nprint(os.environ['SHOWN'], os.environ['GIVEN'], os.environ.get('API_KEY'))",
    }, { env = { GIVEN = "here", API_KEY = "hidden" } })
    assert.equal("a=b here None\n", got.out)
    got = run(home, "import os\nprint(os.getcwd())", "-o", "cwd=/usr")
    assert.equal("/usr\n", got.out)
  end)

  it("says why a name is none of the tools that a script can import", function()
    local home = cli.home()
    home:write("work/tools/extra.lua",
      'return { name = "extra", summary = "s", handler = function() return 1 end }')
    home:write("work/conf.lua", 'tool_path { "tools" }')
    local got = run(home, "from farcall import extra", "-C", "conf.lua")
    assert.equal(1, got.code)
    assert.matches("hint: there is a tool extra, but it is not listed", got.err, 1, true)
    assert.matches("there is a tool extra, but it is not listed",
      run(home, "pass", "-C", "conf.lua", "--allow", "extra").err, 1, true)
    home:write("work/conf.lua", 'tool_path { "tools" }\ntools { "extra" }')
    assert.equal(0, run(home, "from farcall import extra", "-C", "conf.lua").code)
    assert.matches("hint: there is a tool terminal, but it is not listed[^\n]+conf.lua:2",
      run(home, "from farcall import terminal", "-C", "conf.lua").err)
    assert.matches("there is no tool extr: did you mean extra?",
      run(home, "from farcall import extr", "-C", "conf.lua").err, 1, true)
    assert.is_nil(run(home, "from os import extra").err:find("hint"))
  end)

  it("says with -v how the calls came, and why not by stream", function()
    local home = cli.home()
    assert.matches("^success in [^\n]+, 0 calls, by uds, run %S+\n$", run(home, "pass", "-v").err)
    local got = home:run({ "run", "-v", "-c", "print(1)", "--transport", "file" })
    assert.matches(", by file, run %S+\n$", got.err)
    got = home:run({ "run", "-v", "-c", "print(1)", "--transport", "stream" })
    assert.matches(", by stream, run %S+\n$", got.err)
    home:write("backends/far.lua", [[
      local far, caps = {}, {}
      for name, value in pairs(require("farcall.backends.local")) do far[name] = value end
      for name, value in pairs(far.caps) do caps[name] = value end
      caps.same_host, far.name, far.caps = nil, "far", caps
      local open = far.open
      function far.open(...)
        local env, err = open(...)
        if env then env.caps = caps end
        return env, err
      end
      return far]])
    home:write("work/far.lua", 'backend_path { "../backends" }')
    local words = { "run", "-C", "far.lua", "-b", "far", "-c", "print(1)" }
    local plain = { env = { FARCALL_RUNNERS = "/no/such" } }
    got = home:run(words, plain)
    assert.same({ code = 0, out = "1\n", err = "" }, got)
    words[#words + 1] = "-v"
    assert.matches("calls by files, because not by stream: its programs cannot be read: /no/such",
      home:run(words, plain).err, 1, true)
    words[#words + 1] = "--json"
    local result = json.decode(home:run(words, plain).out)
    assert.equal("file", result.transport)
    assert.matches("stream: its programs", result.transport_reason, 1, true)
    result = json.decode(home:run(words).out)
    assert.same({ "stream", "c" }, { result.transport, result.runner })
  end)

  it("prints one JSON line with --json, and nothing else", function()
    local home = cli.home()
    local code = "from farcall import terminal\nterminal('true')\nprint('a\\nb')\nexit(3)"
    local got = run(home, code, "--json")
    assert.equal(3, got.code)
    assert.equal("", got.err)
    assert.equal(1, select(2, got.out:gsub("\n", "")))
    local result = assert(json.decode(got.out))
    assert.equal("error", result.status)
    assert.equal(3, result.exit_code)
    assert.equal("a\nb\n", result.output)
    assert.equal(1, result.tool_calls_made)
    assert.equal("terminal", result.calls[1].tool)
    assert.equal("done", result.calls[1].outcome)
    local shown = home:run({ "runs", "show", result.run_id, "--json" })
    assert.equal(result.run_id, json.decode(shown.out).result.run_id)
    assert.matches(result.run_id, home:run({ "runs" }).out, 1, true)
    local listed = json.decode(home:run({ "runs", "ls", "--json" }).out).runs
    assert.equal(result.run_id, listed[1].run_id)
    assert.is_nil(listed[1].output)
    assert.matches("terminal +done", home:run({ "runs", "show", result.run_id }).out)
  end)

  it("shows output as it is written", helper.task(function()
    local home = cli.home()
    local running = home:start({
      "run", "-c", "import time\nprint('first', flush=True)\ntime.sleep(1000)",
    })
    assert.is_true(helper.eventually(function()
      return table.concat(running.out) == "first\n"
    end))
    running.child:kill("INT")
    assert.equal(130, cli.finish(running).code)
  end))

  for signal, exit in pairs({ INT = 130, TERM = 143, HUP = 129 }) do
    it("ends the script and what it started when it gets SIG" .. signal, helper.task(function()
      local home = cli.home()
      local word = ("1%d.%d"):format(os.time(), #signal)
      local running = home:start({ "run", "-c", STAY:format(word) })
      assert.is_true(helper.eventually(function()
        return table.concat(running.out) == "ready\n" and #with_word(word) > 0
      end))
      running.child:kill(signal)
      local got = cli.finish(running)
      assert.equal(exit, got.code)
      assert.matches("interrupted by SIG" .. signal, got.err, 1, true)
      assert.same({}, with_word(word))
      assert.same({}, fs.list(home.dir .. "/runtime/farcall"))
    end))
  end

  for language, script in pairs({
    python = "import farcall, time\nprint('a line')\ntime.sleep(1000)",
    lua = "print('a line')\nos.execute('sleep 1000')",
    sh = "echo a line\nsleep 1000",
  }) do
    it("shows a line when it is written, and loses none of a killed script in " .. language,
      helper.task(function()
        local running = cli.home():start({ "run", "--timeout", "60", "-l", language, "-c", script })
        assert.is_true(helper.eventually(function()
          return table.concat(running.out) == "a line\n"
        end, 30))
        running.child:kill("TERM")
        assert.equal(143, cli.finish(running).code)
      end))
  end

  it("shows the lines of a session when they are written", helper.task(function()
    local running = cli.home():start({
      "run", "--session", "s", "-c", "print('a line')\nimport time\ntime.sleep(1000)",
    })
    assert.is_true(helper.eventually(function()
      return table.concat(running.out) == "a line\n"
    end, 30))
    running.child:kill("TERM")
    assert.equal(143, cli.finish(running).code)
  end))

  for _, transport in ipairs({ "uds", "stream", "file" }) do
    it("lets a script that gets SIGINT say its last words, by " .. transport, helper.task(function()
      local home = cli.home()
      local running = home:start({ "run", "--transport", transport, "-c", [[
import time
try:
    print("begin", flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    print("last words")
]] })
      assert.is_true(helper.eventually(function()
        return table.concat(running.out) == "begin\n"
      end))
      running.child:kill("INT")
      local got = cli.finish(running)
      assert.equal("begin\nlast words\n", got.out)
      assert.equal(130, got.code)
    end))
  end

  it("ends the script when the reader of its output goes away", helper.task(function()
    local home = cli.home()
    local running = home:start({ "run", "-c", "while True: print('y' * 100)" }, { unread = true })
    local stdout = running.child:stdout()
    assert.is_true(helper.eventually(function()
      return stdout:read(100) ~= nil
    end))
    stdout:close()
    local got = cli.finish(running)
    assert.equal(141, got.code)
    assert.equal("", got.err)
  end))

  it("serves calls while nobody reads its output", helper.task(function()
    local home = cli.home()
    local running = home:start({ "run", "-c", [[
import sys, threading
from farcall import terminal
def noise():
    while True:
        print("x" * 1000)
thread = threading.Thread(target=noise, daemon=True)
thread.start()
import time
time.sleep(0.5)
for i in range(3):
    terminal("echo %d > served.txt" % i)
time.sleep(1000)
]] }, { unread = true })
    assert.is_true(helper.eventually(function()
      return helper.read(home.work .. "/served.txt") == "2\n"
    end))
    running.child:kill("INT")
    task.sleep(1)
    -- Whoever does not read is not waited for after the second one.
    running.child:kill("INT")
    assert.equal(130, cli.finish(running).code)
  end))

  it("passes large output on whole", function()
    local got = run(cli.home(), "for i in range(200000): print('%099d' % i)")
    assert.equal(0, got.code)
    assert.equal(200000 * 100, #got.out)
    assert.equal(("%099d\n"):format(199999), got.out:sub(-100))
  end)

  it("refuses what a policy would ask a human about when there is none", function()
    local home = cli.home()
    home:write("work/asks.lua", [[
return { name = "asks", summary = "s", before = function() return ask("really?") end }]])
    local got = run(home, "from farcall import terminal\nterminal('touch made')", "--policy",
      "./asks.lua")
    assert.equal(1, got.code)
    assert.is_nil(fs.stat(home.work .. "/made"))
  end)

  it("keeps going for others while a human thinks", helper.task(function()
    local home = cli.home()
    home:write("work/asks.lua", [[
return { name = "asks", summary = "s", before = function(call)
  return call.tool == "terminal" and ask("really?") or allow()
end }]])
    -- script(1) is a terminal with a human who answers after the other call has been served.
    home:write("work/asked.py", [[
import threading
from farcall import terminal, write_file
thread = threading.Thread(target=lambda: terminal("echo yes > answered.txt"))
thread.start()
write_file("meanwhile.txt", "done")
thread.join()
]])
    local farcall = assert(fs.realpath(require("spec.support.build").dir)) .. "/farcall"
    local human = ("(while [ ! -s meanwhile.txt ]; do sleep 0.05; done; echo y; sleep 5) | "
      .. "script -qec '%s run --policy ./asks.lua asked.py' /dev/null"):format(farcall)
    local running = home:start({ "-c", human }, { program = "/bin/sh" })
    assert.is_true(helper.eventually(function()
      return helper.read(home.work .. "/answered.txt") == "yes\n"
    end, 20))
    assert.matches("really? [y/N]", cli.finish(running).out, 1, true)
  end))
end)

describe("farcall exec", function()
  it("exits as the command did, and passes everything on", function()
    local home = cli.home()
    assert.same({ code = 3, out = "o\n", err = "e\n" },
      home:run({ "exec", "-c", "echo o; echo e >&2; exit 3" }))
    assert.same({ code = 0, out = "a b\n", err = "" }, home:run({ "exec", "--", "echo", "a b" }))
    assert.equal(143, home:run({ "exec", "-c", "kill -TERM $$" }).code)
    assert.same({ code = 0, out = "HI", err = "" },
      home:run({ "exec", "--stdin", "--", "tr", "a-z", "A-Z" }, { stdin = "hi" }))
    assert.equal("", home:run({ "exec", "--", "cat" }, { stdin = "not passed" }).out)
    assert.equal("/usr\n", home:run({ "exec", "--cwd", "/usr", "--", "pwd" }).out)
    local result = json.decode(home:run({ "exec", "--json", "--", "echo", "x" }).out)
    assert.equal("x\n", result.stdout)
    assert.equal(0, result.exit_code)
  end)

  it("shows output as it comes, all of it", helper.task(function()
    local home = cli.home()
    local running = home:start({ "exec", "-c", "echo first; echo e >&2; sleep 1000" })
    assert.is_true(helper.eventually(function()
      return table.concat(running.out) == "first\n" and table.concat(running.err) == "e\n"
    end))
    running.child:kill("INT")
    assert.equal(130, cli.finish(running).code)
    -- More than a result holds.
    local got = cli.finish(home:start({ "exec", "--", "head", "-c", "20000000", "/dev/zero" }))
    assert.equal(0, got.code)
    assert.equal(20000000, #got.out)
  end))

  it("ends the command when the reader of its output goes away", helper.task(function()
    local running = cli.home():start({ "exec", "--", "yes" }, { unread = true })
    local stdout = running.child:stdout()
    assert.is_true(helper.eventually(function()
      return stdout:read(100) ~= nil
    end))
    stdout:close()
    assert.equal(141, cli.finish(running).code)
  end))

  it("kills at its deadline and when interrupted", helper.task(function()
    local home = cli.home()
    local got = cli.finish(home:start({ "exec", "--timeout", "0.3", "--", "sleep", "1000" }))
    assert.equal(124, got.code)
    assert.matches("longer than 0.3 s", got.err, 1, true)
    local word = "2" .. os.time() .. ".5"
    local running = home:start({ "exec", "--", "sleep", word })
    assert.is_true(helper.eventually(function()
      return #with_word(word) > 1
    end))
    running.child:kill("TERM")
    assert.equal(143, cli.finish(running).code)
    assert.same({}, with_word(word))
  end))
end)

describe("farcall shell", function()
  it("keeps directory and variables from line to line", function()
    local home = cli.home()
    assert.same({ code = 1, out = "/usr\nv\n", err = "" },
      home:run({ "shell" }, { stdin = "cd /usr; V=v\npwd\necho $V\nfalse\n" }))
    assert.same({ code = 0, out = "", err = "" }, home:run({ "shell" }, { stdin = "" }))
  end)

  it("gets a new shell when one ends, and says so", function()
    local got = cli.home():run({ "shell" }, { stdin = "exit 3\necho on\n" })
    assert.equal("on\n", got.out)
    assert.matches("the next line gets a new one", got.err, 1, true)
    assert.equal(0, got.code)
    got = cli.home():run({ "shell", "--timeout", "0.3" }, { stdin = "sleep 1000\n" })
    assert.equal(124, got.code)
  end)

  it("ends when interrupted, at its prompt and in a command", helper.task(function()
    local home = cli.home()
    local word = "3" .. os.time() .. ".5"
    for _, line in ipairs({ "echo here", "echo here; sleep " .. word }) do
      local peer, fd = assert(sock.pair(task.loop()))
      local running = home:start({ "-c", ("exec %s shell <&7"):format(
        assert(fs.realpath(require("spec.support.build").dir)) .. "/farcall") },
        { program = "/bin/sh", fds = { [7] = fd } })
      require("farcall.core.proc").close_fd(fd)
      peer:write(line .. "\n")
      assert.is_true(helper.eventually(function()
        return line == "echo here" and table.concat(running.out) == "here\n" or #with_word(word) > 0
      end))
      running.child:kill("INT")
      assert.equal(130, cli.finish(running).code)
      peer:close()
    end
    assert.same({}, with_word(word))
  end))
end)
