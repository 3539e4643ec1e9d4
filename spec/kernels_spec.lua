-- SPDX-License-Identifier: MIT
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local task = require("farcall.task")

-- Runs body with a function that runs one script in the session "s"; more gives further fields.
local function with(over, body)
  return engines.with(over, function(one, cfg)
    return body(function(script, more, hooks)
      local job = { script = script, language = "python", session = "s" }
      for key, value in pairs(more or {}) do
        job[key] = value
      end
      return assert(one:run(job, hooks))
    end, one, cfg)
  end)
end

-- Waits for something that comes by itself.
local function eventually(condition)
  for _ = 1, 600 do
    if condition() then
      return true
    end
    task.sleep(0.05)
  end
  error("it never came", 2)
end

-- Processes of this engine's interpreters, seen from outside: their own numbers are of a namespace.
local function interpreters(cfg)
  local pids = {}
  for _, name in ipairs(assert(fs.list("/proc"))) do
    local file = name:find("^%d+$") and io.open("/proc/" .. name .. "/cmdline", "rb")
    local words = file and file:read("*a") or ""
    if file then
      file:close()
    end
    if words:find(cfg.runtime_dir, 1, true) and words:find("/_farcall_kernel.py", 1, true) then
      pids[#pids + 1] = name
    end
  end
  return pids
end

local function none_left(cfg)
  return function()
    return #interpreters(cfg) == 0
  end
end

-- A tool that holds its caller until the test lets go.
local function gate()
  local entered, open = task.event(), task.event()
  return {
    entered = entered, open = open,
    tools = {
      hold = {
        summary = "waits", handler = function()
          entered.set()
          open.wait()
          return { let = "go" }
        end,
        parameters = { type = "object", properties = {}, additionalProperties = true },
      },
    },
  }
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

  it("are apart by their names, and by what makes their environment", function()
    with({}, function(run)
      run("x = 1")
      for _, more in ipairs({ { session = "t" }, { options = { cwd = "/" } } }) do
        local other = run("print('x' in globals())", more)
        assert.equal("False\n", other.output)
        assert.equal("new", other.session_state)
      end
      assert.equal("1\n", run("print(x)").output)
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
      local third = run("import farcall\nprint(hasattr(farcall, 'read_file'))\nterminal('true')",
        { allow = { "read_file" } })
      assert.equal("True\n", third.output)
      assert.matches("terminal", third.stderr)
      assert.equal(0, third.tool_calls_made)
    end)
  end)

  it("tell exit codes, and live on", function()
    with({}, function(run)
      run("x = 0")
      for _, case in ipairs({
        { "import sys; x += 1; sys.exit(7)", 7 }, { "x += 1; raise SystemExit", 0 },
        { "x += 1; sys.exit('so')", 1 }, { "x += 1; 1/0", 1 }, { "x += 1; sys.exit(-1)", 255 },
        { "x += = 1", 1 },
      }) do
        local result = run(case[1])
        assert.equal(case[2], result.exit_code)
        assert.equal(case[2] == 0 and "success" or "error", result.status)
        assert.is_nil(result.session_lost)
      end
      assert.equal("5\n", run("print(x)").output)
      assert.equal("kept", run("pass").session_state)
    end)
  end)

  it("show where a script failed, with its lines, also those of an earlier one", function()
    with({}, function(run)
      local first = run("def f(n):\n  return 10 // n  # divides\n\nf(0)", { filename = "/div.py" })
      assert.matches('^Traceback %(most recent call last%):\n  File "[^"]*/div.py", line 4, in <mo',
        first.stderr)
      assert.matches("# divides", first.stderr)
      local second = run("f(0)", { filename = "two.py" })
      assert.matches('two.py", line 1.*div.py", line 2, in f\n    return 10 // n  # divides',
        second.stderr)
      assert.is_nil(second.stderr:find("_farcall_kernel", 1, true))
      assert.matches("^  File \"[^\"]*/three.py\", line 2\n",
        run("x = 1\ny = = 2\n", { filename = "three.py" }).stderr)
    end)
  end)

  it("give each run its own output, whatever was left running", function()
    with({}, function(run)
      local noisy = [[
import sys, threading, time, subprocess
def chatter():
  while True:
    print("late", flush=True)
    time.sleep(0.001)
print("one", end="")
print("err one", end="", file=sys.stderr)
child = subprocess.Popen(["sh", "-c", "sleep 0.2; echo child; exec sleep 1000"])
]]
      local first = run(noisy)
      assert.equal("one", first.output)
      assert.equal("err one", first.stderr)
      task.sleep(1.5) -- what the child says comes between two runs
      local second = run("print('two'); threading.Thread(target=chatter, daemon=True).start()")
      assert.matches("^two\n", second.output)
      task.sleep(0.2)
      local third = run("sys.stdout = sys.stderr = None\nimport os\nos.write(1, b'three')")
      assert.matches("three", third.output)
      assert.equal("", third.stderr)
      local fourth = run("os.close(1); sys.stdout.close(); os.close(2)")
      assert.equal(0, fourth.exit_code)
      assert.matches("five\n", run("print('five')").output)
    end)
  end)

  it("carry all bytes, and much of them", function()
    with({ limits = { stdout_bytes = 20000000, stderr_bytes = 100 } }, function(run)
      local result = run("import sys\nfor i in range(50000):\n  print(i, 'x' * 40)")
      local lines = {}
      for i = 0, 49999 do
        lines[i + 1] = ("%d %s\n"):format(i, ("x"):rep(40))
      end
      assert.is_true(table.concat(lines) == result.output)
      local script = "s = '''" .. ("é\\n"):rep(100000) .. "'''\nprint(len(s))"
      assert.equal("200000\n", run(script).output)
      assert.equal("é\n", run("# -*- coding: latin-1 -*-\nprint('\xE9')").output)
    end)
  end)

  it("have variables and input of their own for each run", function()
    with({}, function(run)
      local script = "import os, sys\nprint(os.environ.get('ONE'), sys.stdin.read(), sys.argv[1:])"
      assert.equal("a=b  []\n", run(script, { env = { ONE = "a=b" } }).output)
      assert.equal("None  ['z']\n", run(script, { args = { "z" } }).output)
      run("os.environ['ONE'] = 'own'")
      assert.equal("own  []\n", run(script).output)
    end)
  end)

  it("interrupt a script that takes too long, and keep what it knew", function()
    with({}, function(run)
      run("import time; x = 1")
      local late = run("x = 2\nprint('before', flush=True)\ntime.sleep(1000)", { timeout = 2 })
      assert.equal("timeout", late.status)
      assert.matches("was interrupted", late.error)
      assert.equal("before\n", late.output)
      assert.matches("KeyboardInterrupt", late.stderr)
      assert.is_nil(late.session_lost)
      -- Not `pass`: Python 3.11 is often outside of the `try` when it jumps back.
      local caught = run("try:\n  while True: time.sleep(0.01)\n"
        .. "except KeyboardInterrupt:\n  print('caught')", { timeout = 2 })
      assert.equal("timeout", caught.status)
      assert.equal("caught\n", caught.output)
      local after = run("print(x)")
      assert.equal("2\n", after.output)
      assert.equal("kept", after.session_state)
    end)
  end)

  it("are lost with a script that does not stop, and say so", function()
    with({}, function(run, _, cfg)
      run("import os, signal\nx = 1")
      assert.is_true(#interpreters(cfg) > 0)
      local stuck = run("signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        { timeout = 2 })
      assert.equal("timeout", stuck.status)
      assert.matches("did not stop", stuck.session_lost)
      assert.matches("what session s knew is lost", stuck.hint)
      assert.same({}, interpreters(cfg))
      local after = run("print('x' in globals())")
      assert.equal("False\n", after.output)
      assert.equal("lost", after.session_state)
      assert.matches("session s began anew.*did not stop", after.hint)
      assert.equal("kept", run("pass").session_state)
    end)
  end)

  it("are lost with an interpreter that ends, in a run or between two", function()
    with({}, function(run, _, cfg)
      local first = run("import os\nprint('last', flush=True)\nos._exit(9)")
      assert.equal(9, first.exit_code)
      assert.equal("last\n", first.output)
      assert.matches("exit code 9", first.session_lost)
      local second = run("import os, subprocess\nsubprocess.Popen(['sh', '-c', "
        .. "'sleep 0.2; kill -9 $0', str(os.getpid())])")
      assert.equal("lost", second.session_state)
      assert.is_nil(second.session_lost)
      eventually(none_left(cfg))
      -- A run may come before the engine has been told.
      local third
      eventually(function()
        third = run("print('x')")
        return third.session_state == "lost"
      end)
      assert.equal("x\n", third.output)
      assert.matches("signal KILL", third.hint)
      local fourth = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
      assert.equal("SEGV", fourth.signal)
    end)
  end)

  it("begin anew when that is asked for", function()
    with({}, function(run)
      run("x = 1")
      local second = run("print('x' in globals())", { reset = true })
      assert.equal("False\n", second.output)
      assert.equal("reset", second.session_state)
      assert.is_nil(second.hint)
      assert.equal("new", run("pass", { session = "t", reset = true }).session_state)
    end)
  end)

  it("do not let a thread of an earlier run call", function()
    with({}, function(run)
      run([[
import threading, farcall
go, result = threading.Event(), []
def leaked():
  def inner():
    try:
      result.append(farcall.terminal("echo leaked"))
    except farcall.ToolError as error:
      result.append(error)
  go.wait()
  inner()
  t = threading.Thread(target=inner)
  t.start(); t.join()
thread = threading.Thread(target=leaked)
thread.start()
]])
      local second = run([[
go.set()
thread.join()
print(*["%s %s" % (type(r).__name__, r.kind) for r in result])
own = []
t = threading.Thread(target=lambda: own.append(farcall.terminal("echo own")["output"]))
t.start(); t.join()
print(own, farcall.parallel([lambda: farcall.terminal("echo par")["output"] ]))
]])
      assert.equal("", second.stderr)
      assert.equal("ToolError refused ToolError refused\n['own\\n'] ['par\\n']\n", second.output)
      assert.equal(2, second.tool_calls_made)
    end)
  end)

  it("do not let a process of an earlier run call, nor one call go over into the next", function()
    local held = gate()
    with({ tools = held.tools, enabled_tools = { "hold", "terminal" } }, function(run, one)
      local dir = helper.scratch()
      local child = ([[
import farcall, time, os
farcall.terminal("true")
open("%s/ready", "w").close()
while not os.path.exists("%s/go"): time.sleep(0.01)
try:
  farcall.terminal("touch %s/called")
  said = "called"
except farcall.ToolError as error:
  said = error.kind
open("%s/said.new", "w").write(said)
os.rename("%s/said.new", "%s/said")
]]):gsub("%%s", dir)
      helper.write(dir .. "/child.py", child)
      -- The run ends when its thread's call is under way.
      local telling = task.spawn(function()
        held.entered.wait()
        helper.write(dir .. "/entered", "")
      end)
      local first = run((([[
import subprocess, sys, os, time, threading, farcall
child = subprocess.Popen([sys.executable, "%s/child.py"])
while not os.path.exists("%s/ready"): time.sleep(0.01)
forked = os.fork()
if forked == 0:
  own = open("%s/child.py").read().replace("/said", "/forked")
  exec(own.replace('farcall.terminal("true")', ""))
  os._exit(0)
seen = []
def hold():
  try: seen.append(farcall.hold())
  except farcall.ToolError as error: seen.append(error.kind)
thread = threading.Thread(target=hold); thread.start()
while not os.path.exists("%s/entered"): time.sleep(0.01)
print("ready")
]]):gsub("%%s", dir)))
      assert.equal("", first.stderr)
      assert.is_true((telling:join()))
      local second = run((([[
thread.join()
open("%s/go", "w").close()
child.wait(); os.waitpid(forked, 0)
print(seen, open("%s/said").read(), open("%s/forked").read())
]]):gsub("%%s", dir)))
      assert.equal("", second.stderr)
      assert.equal("['unknown'] denied denied\n", second.output)
      assert.equal(0, second.tool_calls_made)
      assert.is_nil(fs.stat(dir .. "/called"))
      assert.is_truthy(one)
    end)
  end)

  it("have a forked child end where the script ends", function()
    with({}, function(run)
      local first = run("import os, sys\npid = os.fork()\nif pid == 0: sys.exit(4)\n"
        .. "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))")
      assert.equal("4\n", first.output)
      local second = run("import multiprocessing as m\ndef sq(n): return n * n\n"
        .. "with m.get_context('fork').Pool(2) as p: print(p.map(sq, range(4)))")
      assert.equal("[0, 1, 4, 9]\n", second.output)
      -- Such a child reads the script itself, as everywhere in Python.
      local third = run("import multiprocessing as m\ndef size(t): return len(t)\n"
        .. "if __name__ == '__main__':\n"
        .. "  with m.get_context('spawn').Pool(1) as p: print(p.map(size, ['ab']))")
      assert.equal("", third.stderr)
      assert.equal("[2]\n", third.output)
    end)
  end)

  it("run one script after the other, in the order of asking", function()
    with({}, function(run)
      run("order = []")
      local all = {}
      for i = 1, 10 do
        all[i] = task.spawn(run, ("import time\norder.append(%d)\ntime.sleep(0.02)"):format(i))
      end
      for _, one in ipairs(all) do
        assert.is_true((one:join()))
      end
      assert.equal("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n", run("print(order)").output)
    end)
  end)

  it("go on when one that waits or runs is cancelled", function()
    local held = gate()
    with({ tools = held.tools, enabled_tools = { "hold" } }, function(run)
      run("x = 1")
      local first = task.spawn(run, "import farcall\nfarcall.hold()")
      held.entered.wait()
      local second = task.spawn(run, "x = 2")
      local third = task.spawn(run, "print(x)")
      second:cancel()
      assert.is_false((second:join()))
      first:cancel()
      assert.is_false((first:join()))
      local ok, result = third:join()
      assert.is_true(ok)
      assert.equal("1\n", result.output)
      assert.equal("kept", result.session_state)
    end)
  end)

  it("end when nobody has used them for a while", function()
    with({ limits = { session_idle = 0.2 } }, function(run, _, cfg)
      assert.equal("success", run("import os").status)
      eventually(none_left(cfg))
      local after = run("print('os' in globals())")
      assert.equal("False\n", after.output)
      assert.equal("lost", after.session_state)
      assert.matches("not used for 0.2 s", after.hint)
    end)
  end)

  it("are at most so many: the one that was not used for longest makes room", function()
    local held = gate()
    local over = { limits = { sessions = 2 }, tools = held.tools, enabled_tools = { "hold" } }
    with(over, function(run, one)
      run("x = 1", { session = "a" })
      run("x = 1", { session = "b" })
      run("x += 1", { session = "a" })
      run("x = 1", { session = "c" })
      assert.equal("kept", run("x += 1", { session = "a" }).session_state)
      local b = run("pass", { session = "b" })
      assert.equal("lost", b.session_state)
      assert.matches("made room", b.hint)
      local runs = {}
      for i, name in ipairs({ "a", "b" }) do
        runs[i] = task.spawn(run, "import farcall\nfarcall.hold()", { session = name })
      end
      held.entered.wait()
      local refused = assert(one:run({ script = "1", language = "python", session = "d" }))
      assert.equal("error", refused.status)
      assert.equal("limit", refused.error_kind)
      held.open.set()
      for i in ipairs(runs) do
        assert.is_true((runs[i]:join()))
      end
      assert.equal("new", run("pass", { session = "d" }).session_state)
    end)
  end)

  it("do not forget the one that makes room when who wanted room has gone", function()
    with({ limits = { sessions = 1 } }, function(run, _, cfg)
      run("import atexit, time; atexit.register(time.sleep, 1000)", { session = "a" })
      local second = task.spawn(run, "pass", { session = "b" })
      task.sleep(0.1)
      second:cancel()
      assert.is_false((second:join()))
      eventually(none_left(cfg))
    end)
  end)

  it("take a hundred runs, and leave nothing", function()
    with({}, function(run, _, cfg)
      run("n = 0\nfrom farcall import read_file")
      for i = 1, 100 do
        local result = run(("n += 1\nprint(n)\nassert n == %d"):format(i))
        assert.equal(("%d\n"):format(i), result.output)
      end
      local fds = run("import os\nprint(len(os.listdir('/proc/self/fd')), os.listdir("
        .. "os.path.dirname(os.environ['FARCALL_RUN_DIR'])))")
      assert.is_true(tonumber(fds.output:match("%d+")) < 15)
      assert.is_nil(fds.output:find("'r1'", 1, true))
      assert.is_truthy(cfg)
    end)
  end)

  it("end with the engine", function()
    local own, dir, said
    with({}, function(run, _, cfg)
      own, said = cfg, helper.scratch() .. "/said"
      local script = "import os, atexit\natexit.register(lambda: open(%q, 'w').close())\n"
        .. "print(os.path.dirname(os.environ['FARCALL_RUN_DIR']))"
      dir = run(script:format(said)).output:match("(%S+)")
      assert.is_true(#interpreters(cfg) > 0)
    end)
    assert.same({}, interpreters(own))
    assert.is_nil(fs.stat(dir))
    assert.is_truthy(fs.stat(said))
  end)

  it("print values of expressions when asked to", function()
    with({}, function(run)
      local echo = { echo = true }
      assert.equal("3\n'a'\n", run("1 + 2\nNone\nx = 5\n'a'", echo).output)
      assert.equal("'a'\n", run("_", echo).output)
      assert.equal("", run("1 + 2").output)
      run("from __future__ import annotations", echo)
      assert.equal("{'a': 'Nowhere'}\n",
        run("def f(a: Nowhere): pass\nf.__annotations__", echo).output)
    end)
  end)

  it("are refused where they cannot be", function()
    engines.with({}, function(one)
      for _, case in ipairs({
        { { session = "a b" }, "usage", "its name is" }, { { session = "" }, "usage", "its name" },
        { { language = "sh" }, "unsupported", "Python only" },
        { { transport = "file" }, "unsupported", "by files" },
        { { pool = 2 }, "usage", "not in a pool" },
      }) do
        local job = { script = "true", language = "python", session = "s" }
        for key, value in pairs(case[1]) do
          job[key] = value
        end
        local result, err = one:run(job)
        assert.is_nil(result)
        assert.equal(case[2], err.kind)
        assert.matches(case[3], err.msg)
      end
    end)
  end)
end)
