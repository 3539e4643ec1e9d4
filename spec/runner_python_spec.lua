-- SPDX-License-Identifier: MIT
-- What only the Python form of the runner does (the rest is in runner_spec.lua): scripts in its own
-- interpreter, trees without prctl's help, and a decoder of its own, which is fed with nonsense.
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local marked = require("spec.support.marked")
local proc = require("farcall.core.proc")
local runner_link = require("spec.support.runner_link")
local task = require("farcall.task")

local PYTHON = "/usr/bin/python3"
local LAUNCHER = assert(fs.realpath("spec/support/runner_python.py"))
local RUNNER = { PYTHON, "-B", LAUNCHER }

local TREE = "trap '' TERM; (trap '' TERM; setsid sleep 1000 & sleep 1000 & wait) & "
  .. "setsid sh -c \"trap '' TERM; while :; do sleep 0.1; done\" & while :; do sleep 0.1; done"

local function alive(run, count)
  assert(helper.eventually(function()
    return #marked(run.mark) >= count
  end, 30), "not all came up")
end

local function all_gone(run)
  assert(helper.eventually(function()
    return #marked(run.mark) == 0
  end, 20), "something is left")
end

local function kill_keeper(link)
  os.execute("kill -KILL " .. helper.children(link.runner:pid())[1])
end

-- What a script may look at or do. Each must come out as under an interpreter of its own.
local SCRIPTS = {
  ["names"] = [[
import sys
print(sys.argv, __name__, __file__, sys.path, sorted(globals()), __spec__, __doc__, __cached__)
print(type(__loader__), sys.modules["__main__"].__dict__ is globals(), sys.exc_info())
print(getattr(sys, "orig_argv", ["python3"])[1:], hasattr(sys, "last_value"))]],
  ["streams"] = [[
import os, sys
print(sys.stdin, sys.stdout, sys.stderr, sys.__stdout__ is sys.stdout)
print(sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.buffer, sys.stderr.buffer)
print(sys.stdin.read(), sorted(os.listdir("/proc/self/fd")))
sys.stderr.write("half a line")
os._exit(0)]],
  ["signals"] = [[
import signal
print([(n, signal.getsignal(n)) for n in range(1, 32)], signal.pthread_sigmask(0, []))
print(signal.set_wakeup_fd(-1), open("/proc/self/environ").read() != "")]],
  ["flags"] = "import gc, sys; print(sys.flags, sys.warnoptions, gc.isenabled())",
  ["the locale"] = "import locale, os, sys\n"
    .. "print(locale.setlocale(0), os.environ.get('LC_CTYPE'))\n"
    .. "print(sys.getfilesystemencoding(), locale.getpreferredencoding())",
  ["an exception"] = "def f():\n    1 / 0\n\n\nf()",
  ["exceptions in a chain"] = "try:\n    1 / 0\nexcept Exception:\n    raise KeyError('x')",
  ["an exception from nothing"] = "raise ValueError('x') from None",
  ["what cannot be compiled"] = "x = = 3",
  ["an exit code"] = "import sys; sys.exit(3)",
  ["an exit with words"] = "raise SystemExit('bye')",
  ["an exit with nothing"] = "raise SystemExit",
  ["an interrupt"] = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
  ["an interrupt of its own kind"] = "class K(KeyboardInterrupt):\n    pass\n\n\nraise K",
  ["death by a signal"] = "import os\nos.kill(os.getpid(), 15)",
  ["what comes last"] = [[
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
print("main")
1 / 0]],
  ["a hook for exceptions"] = [[
import sys
sys.excepthook = lambda kind, e, tb: print(kind, e, tb.tb_frame.f_code.co_filename, tb.tb_next)
1 / 0]],
  ["a hook that fails"] = [[
import sys
def hook(*_): raise ValueError("hook")
sys.excepthook = hook
1 / 0]],
  ["a hook that exits"] = "import sys\nsys.excepthook = lambda *_: sys.exit(9)\n1 / 0",
  ["names that others use"] = "type = len = isinstance = sys = os = None\nraise ValueError('v')",
  ["pickles"] = "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
  ["processes of multiprocessing"] = [[
import multiprocessing
def twice(x): return 2 * x
if __name__ == "__main__":
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(1) as pool:
            print(pool.map(twice, [1, 2]))]],
  ["threads"] = [[
import asyncio, threading
print(threading.current_thread() is threading.main_thread(), threading.active_count())
print(asyncio.run(asyncio.sleep(0, 3)))]],
  ["a child"] = [[
import subprocess, sys
code = "import os; print(os.environ['V'], os.environ['MARK'])"
print(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout[:4])]],
  ["another encoding"] = "# coding: latin-1\nprint('\233')",
  ["a closed output"] = "import os\nos.close(1)\nprint('x')",
  ["modules"] = [[
import sys
print(sorted(set(sys.modules) - set(sys.builtin_module_names)))
import select, socket, resource, ctypes
print(select.poll(), socket.socket(), resource.getrlimit(7), ctypes.CDLL(None).getpid() > 1)]],
  ["the process"] = [[
import os
print(oct(os.umask(0)), os.getcwd(), os.getpid() == os.getpgrp() == os.getsid(0), os.nice(0))
print(sorted(set(os.environ) - {"_"}), os.sched_getaffinity(0))
marks = ("SigB", "SigI", "SigC", "Cap", "NoNew")
print([line for line in open("/proc/self/status") if line.startswith(marks)])]],
  ["words about a line"] = "'''Doc.'''\nprint(__doc__)\nimport warnings\nwarnings.warn('w')",
}

describe("the Python runner", function()
  local function finish(run)
    local told = run:finish()
    -- Whatever is random is not what matters.
    local function plain(text)
      return (text:gsub("0x%x+", "0x"):gsub(run.mark, "MARK"))
    end
    return { told, plain(run.out.text()), plain(run.err.text()) }
  end

  local SHOW = "import os; print(open('/proc/self/cmdline').read().split(chr(0)).count('serve'), "
    .. "os.environ.get('V'), os.getcwd())"
  local UNWRITTEN = "PYTHONDONTWRITEBYTECODE=1"

  -- Whether a script went on in the interpreter of the runner.
  local function shown(link, words, env)
    local run = link:exec(words, { env = { UNWRITTEN, unpack(env or {}) },
      options = { "--python" } })
    assert.equal("exited 0;gone;", run:finish(), run.err.text())
    return run.out.text():match("^%d+")
  end

  describe("runs a script in its own interpreter as in one of its own:", function()
    for name, script in pairs(SCRIPTS) do
      it(name, helper.task(function()
        local dir = helper.scratch()
        local path = helper.write(dir .. "/script.py", script)
        local link = runner_link.start(RUNNER)
        local env = { "V=1", "PYTHONPATH=" .. dir .. "/lib:" .. dir, "PYTHONDONTWRITEBYTECODE=1" }
        local expected = finish(link:exec({ PYTHON, path, "a", "", "b c" },
          { env = env, stdin = "input" }))
        local got = finish(link:exec({ PYTHON, path, "a", "", "b c" },
          { env = env, stdin = "input", options = { "--python" } }))
        assert.same(expected, got)
        -- And it was its own.
        assert.equal("1", shown(link, { PYTHON, helper.write(dir .. "/show.py", SHOW) }, env))
        link:close()
      end))
    end
  end)

  it("starts no new interpreter", helper.task(function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/script.py", SHOW)
    local link = runner_link.start(RUNNER)
    for _, name in ipairs({ PYTHON, "python3" }) do
      local got = finish(link:exec({ name, path }, { env = { "V=1", UNWRITTEN },
        options = { "--python", "--cwd", dir } }))
      assert.same({ "exited 0;gone;", "1 1 " .. dir .. "\n", "" }, got)
    end
    link:close()
  end))

  it("starts a new one where that makes a difference", helper.task(function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/script.py", SHOW)
    local link = runner_link.start(RUNNER)
    local words = { PYTHON, path }
    assert.equal("1", shown(link, words))
    for _, variable in ipairs({ "PYTHONHASHSEED=0", "PYTHONUTF8=1", "LC_ALL=C.UTF-8", "TZ=UTC+3",
      "LD_LIBRARY_PATH=/lib", "HOME=/nonexistent", "PYTHONDONTWRITEBYTECODE=" })
    do
      assert.equal("0", shown(link, words, { variable }))
    end
    assert.equal("0", shown(link, { PYTHON, "-c", SHOW }))
    assert.equal("0", shown(link, { PYTHON, "-u", path }))
    assert(fs.mkdir(dir .. "/folder", 448))
    helper.write(dir .. "/folder/__main__.py", SHOW)
    assert.equal("0", shown(link, { PYTHON, dir .. "/folder" }))
    local run = link:exec({ PYTHON, dir .. "/none.py" }, { options = { "--python" } })
    assert.equal("exited 2;gone;", run:finish())
    assert.matches("can't open file", run.err.text())
    link:close()
  end))

  it("starts a new one where modules would come before loaded ones", helper.task(function()
    local link = runner_link.start(RUNNER)
    for _, name in ipairs({ "sitecustomize.py", "usercustomize/__init__.py", "os.py",
      "encodings/__init__.py" })
    do
      local dir = helper.scratch()
      local path = helper.write(dir .. "/script.py", SHOW)
      local env = { UNWRITTEN, "PYTHONPATH=/nonexistent:" .. dir }
      assert.equal("1", shown(link, { PYTHON, path }, env))
      assert(fs.mkdir(dir .. "/" .. (name:match("^(.*)/") or "folder"), 448))
      helper.write(dir .. "/" .. name, "")
      -- With some of them no interpreter starts.
      local run = link:exec({ PYTHON, path }, { env = env, options = { "--python" } })
      run:finish()
      assert.is_nil(run.out.text():match("^1"))
    end
    link:close()
  end))

  it("starts the program that is asked for where it is another one", helper.task(function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/script.py", SHOW)
    local link = runner_link.start(RUNNER)
    local other = helper.write(dir .. "/python3", "#!/bin/sh\necho another")
    assert(os.execute("chmod 755 " .. other) == 0)
    for _, try in ipairs({ { other }, { "python3", "PATH=" .. dir .. ":/usr/bin" } }) do
      local run = link:exec({ try[1], path }, { env = { UNWRITTEN, try[2] },
        options = { "--python" } })
      assert.equal("exited 0;gone;", run:finish())
      assert.equal("another\n", run.out.text())
    end
    -- Where the first of that name cannot be executed, the next one is meant.
    assert(os.execute("chmod 644 " .. other) == 0)
    assert.equal("1", shown(link, { "python3", path }, { "PATH=" .. dir .. ":/usr/bin" }))
    local run = link:exec({ "no-such-python", path }, { options = { "--python" } })
    assert.equal("exec-failed exec 2;gone;", run:finish())
    link:close()
  end))

  it("starts a new one when packages have come that want to be there from the start",
    helper.task(function()
      local dir = helper.scratch()
      local path = helper.write(dir .. "/script.py", SHOW)
      local link = runner_link.start(RUNNER, { env = { "PATH=/usr/bin:/bin", "HOME=" .. dir } })
      assert.equal("1", shown(link, { PYTHON, path }))
      local install = link:exec(
        'd=$(python3 -m site --user-site) && mkdir -p "$d" && echo "import os; '
        .. 'os.environ[\'V\'] = \'from the start\'" > "$d/new.pth"')
      assert.equal("exited 0;gone;", install:finish(), install.err.text())
      local run = link:exec({ PYTHON, path }, { env = { UNWRITTEN }, options = { "--python" } })
      assert.equal("exited 0;gone;", run:finish())
      assert.matches("^0 from the start ", run.out.text())
      link:close()
    end))

  it("imports nothing from where it is started", helper.task(function()
    local dir = helper.scratch()
    for _, name in ipairs({ "_socket", "select", "errno", "_ctypes", "resource", "io" }) do
      helper.write(dir .. "/" .. name .. ".py", "raise SystemExit(9)")
    end
    local link = runner_link.start(RUNNER, { cwd = dir })
    assert.equal("exited 0;gone;",
      link:exec("true", { options = { "--rlimit", "core=0" } }):finish())
    link:close()
  end))

  -- A script that ignores TERM and has a child in a session of its own.
  local STUBBORN = [[
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], start_new_session=True)
print("up", flush=True)
while True:
    time.sleep(1)]]

  for how, stop in pairs({
    ["the engine says so"] = function(_, run)
      run.control.channel:write("kill 100\n")
    end,
    ["the runner is killed"] = function(link)
      link.runner:kill("KILL")
    end,
    ["its keeper is killed"] = function(link)
      kill_keeper(link)
    end,
  }) do
    it("kills such a script when " .. how, helper.task(function()
      local path = helper.write(helper.scratch() .. "/script.py", STUBBORN)
      local link = runner_link.start(RUNNER)
      local run = link:exec({ PYTHON, path }, { env = { UNWRITTEN }, options = { "--python" } })
      assert(helper.eventually(function()
        return run.out.text() == "up\n"
      end, 30))
      local pid = run.control.text():match("started (%d+)")
      assert.is_true(fs.stat("/proc/" .. pid) ~= nil)
      alive(run, 1)
      stop(link, run)
      all_gone(run)
      assert(helper.eventually(function()
        return fs.stat("/proc/" .. pid) == nil
      end, 20))
      if how == "the runner is killed" then
        helper.eventually(function()
          return link.runner_ended.how
        end)
        link:release()
      else
        assert.matches("gone;$", run:finish())
        link:close()
      end
    end))
  end

  for _, level in ipairs({ "subreaper", "group" }) do
    for how, stop in pairs({
      ["its keeper is killed"] = function(link)
        kill_keeper(link)
      end,
      ["the engine says so"] = function(_, run)
        run.control.channel:write("kill 100\n")
      end,
      ["the engine ends its streams"] = function(_, run)
        run.control.channel:finish()
      end,
    }) do
      it(("leaves nothing at level %s when %s"):format(level, how), helper.task(function()
        local link = runner_link.start(RUNNER)
        local run = link:exec(TREE, { options = { "--level", level, "--grace-ms", "100" } })
        alive(run, 5)
        assert.is_truthy(helper.eventually(function()
          return run.control.text():find("^level " .. level .. "\n")
        end))
        stop(link, run)
        assert.matches("gone;$", run:finish())
        assert.same({}, marked(run.mark))
        link:close()
      end))
    end
  end

  it("refuses a level that it does not have", helper.task(function()
    local link = runner_link.start(RUNNER)
    assert.equal("exec-failed level 95;gone;",
      link:exec("true", { options = { "--level", "pidns" } }):finish())
    assert.equal("exec-failed options 22;gone;",
      link:exec("true", { options = { "--nothing", "1" } }):finish())
    link:close()
  end))

  it("has no copy of the token where a script can look", helper.task(function()
    local dir = helper.scratch()
    local link = runner_link.start(RUNNER, { grace = 60000, dir = dir .. "/link" })
    local path = helper.write(dir .. "/script.py", [[
import re, sys
found = [False, False]
patterns = [re.compile(line.strip().encode()) for line in sys.stdin]
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        low, high, mode = re.match("([0-9a-f]+)-([0-9a-f]+) (..)", line).groups()
        if mode == "rw":
            try:
                memory.seek(int(low, 16))
                text = memory.read(int(high, 16) - int(low, 16))
            except (OSError, OverflowError):
                continue
            found = [f or bool(p.search(text)) for f, p in zip(found, patterns)]
print(*found)]])
    -- In a form that is not what is looked for; the mark of the run is there for sure.
    local function hidden(text)
      return (text:gsub(".", "[%0]")) .. "\n"
    end
    local run = link:exec({ PYTHON, path },
      { env = { UNWRITTEN }, options = { "--python" }, stdin = true })
    run.stdin:write(hidden(run.mark) .. hidden(link.token))
    run.stdin:finish()
    assert.equal("exited 0;gone;", run:finish())
    assert.equal("True False\n", run.out.text())
    link:close()
  end))

  it("gives programs no locale that was not there", helper.task(function()
    local link = runner_link.start(RUNNER)
    local run = link:exec("env")
    assert.equal("exited 0;gone;", run:finish())
    assert.is_nil(run.out.text():find("LC_", 1, true))
    link:close()
  end))
end)

-- Frames that might come, whole and in part, in order or not.
describe("the Python runner's decoder", function()
  local function u24(value)
    return string.char(math.floor(value / 65536) % 256, math.floor(value / 256) % 256, value % 256)
  end

  local function frame(id, type, payload)
    return "\0" .. u24(id) .. string.char(type) .. u24(#payload) .. payload
  end

  -- The same numbers on every machine.
  local function randomness(seed)
    local state = seed * 7919 + 12345
    return function(low, high)
      state = (state * 16807) % 2147483647
      return low + state % (high - low + 1)
    end
  end

  -- An engine that keeps the rules: a process, a directory, a file.
  local function proper(dir, mark)
    local environ = "MARK=" .. mark .. "\0"
    local words = "sleep\0" .. "1000\0"
    return {
      frame(2, 1, "pipe\0"), frame(4, 1, "pipe\0"),
      frame(6, 1, ("exec\0002\0004\0--environ\0%d\0--words\0%d\0"):format(#environ, #words)),
      frame(6, 2, environ .. words), frame(4, 3, ""), frame(2, 2, "input"),
      frame(8, 1, "mkdir\0" .. dir .. "\0"), frame(2, 4, "\0\1\0\0"), frame(0, 7, ""),
      frame(10, 1, "put\0" .. dir .. "/file\000600\0004\0"), frame(10, 2, "text"), frame(10, 3, ""),
      frame(12, 1, "get\0" .. dir .. "/file\0000\000100\0"), frame(12, 5, ""),
      frame(14, 1, "listen\0" .. dir .. "/socket\0"), frame(6, 2, "signal 18\n"),
    }
  end

  local MUTATIONS = {
    function(random, list) -- a byte
      local at = random(1, #list)
      local text, byte = list[at], random(1, #list[at])
      list[at] = text:sub(1, byte - 1) .. string.char(random(0, 255)) .. text:sub(byte + 1)
    end,
    function(random, list) -- a frame too many
      table.insert(list, random(1, #list), list[random(1, #list)])
    end,
    function(random, list) -- one too few
      table.remove(list, random(1, #list))
    end,
    function(random, list) -- half of one
      local at = random(1, #list)
      list[at] = list[at]:sub(1, random(1, #list[at]))
    end,
    function(random, list) -- one of any kind
      table.insert(list, random(1, #list),
        frame(random(0, 20), random(0, 10), ("\0"):rep(random(0, 9))))
    end,
    function(random, list) -- noise
      local noise = {}
      for i = 1, random(1, 100) do
        noise[i] = string.char(random(0, 255))
      end
      table.insert(list, random(1, #list), table.concat(noise))
    end,
  }

  it("ends with all that it started, whatever comes", helper.task(function()
    local dir = helper.scratch()
    for seed = 1, 80 do
      local random, mark = randomness(seed), "mark" .. runner_link.hex(8)
      local list = proper(dir, mark)
      for _ = 1, random(1, 3) do
        MUTATIONS[random(1, #MUTATIONS)](random, list)
      end
      local child = assert(proc.spawn(task.loop(), {
        argv = { PYTHON, "-Xdev", "-Werror", LAUNCHER, "serve", ("a"):rep(32), "0" },
        env = { "PATH=/usr/bin:/bin" }, stdin = "pipe", stdout = "pipe", stderr = "pipe",
      }))
      local ended
      child:on_exit(function(how, number)
        ended = how .. " " .. number
      end)
      local said = runner_link.sink(child:stderr())
      runner_link.sink(child:stdout())
      child:stdin():write(("0"):rep(64) .. "\n" .. table.concat(list))
      child:stdin():finish()
      assert(helper.eventually(function()
        return ended and said.ended
      end, 60), "it does not end: seed " .. seed)
      assert.equal("exit 0", ended, "seed " .. seed)
      assert.is_truthy(said.text() == "" or said.text():find("^farcall%-runner: the engine broke"),
        ("seed %d: %s"):format(seed, said.text()))
      assert.same({}, marked(mark))
      child:close()
    end
  end))
end)
