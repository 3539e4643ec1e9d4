-- SPDX-License-Identifier: MIT
-- Scripts that do to their session what scripts should not: the run ends, its result says what
-- became of the session, and the next run works.
local engines = require("spec.support.engines")

local function with(over, body)
  return engines.with(over, function(one)
    return body(function(script, more)
      local job = { script = script, language = "python", session = "s", timeout = 30 }
      for key, value in pairs(more or {}) do
        job[key] = value
      end
      return assert(one:run(job))
    end)
  end)
end

-- The next run works; it is the same session exactly when nothing was said about a loss.
local function works_after(run, result)
  local after = run("from farcall import terminal\nprint(terminal('echo well')['output'])")
  assert.equal("well\n\n", after.output, after.stderr)
  assert.equal(result.session_lost and "lost" or "kept", after.session_state)
  assert.is_nil(after.session_lost)
  return after
end

describe("a session's script that", function()
  it("closes all descriptors loses the session", function()
    with({}, function(run)
      local result = run("import os\nprint('said', flush=True)\nos.closerange(0, 1000)")
      assert.equal("said\n", result.output)
      assert.is_string(result.session_lost)
      works_after(run, result)
    end)
  end)

  it("breaks what the interpreter is made of loses no more than the session", function()
    with({}, function(run)
      for _, script in ipairs({
        "import builtins\nfor n in ('open', 'len', 'print', 'isinstance'): delattr(builtins, n)",
        "import sys\nsys.modules.clear()", "import os\nos.write = os.read = os.dup2 = None",
        "import sys\nsys.excepthook = lambda *a: 1/0\n1/0",
        "import sys\nsys.stdout = sys.stderr = 5\n1/0",
        "import gc\nfor o in gc.get_objects():\n if type(o).__name__ == 'Link': o.__dict__.clear()",
        "import os\nos.chdir(os.environ['FARCALL_RUN_DIR'])",
        "import os, sys\nos.environ.clear(); sys.path.clear(); sys.path_hooks.clear()",
        "import sys\nsys.setrecursionlimit(50)", "import os\nos.umask(0o777)",
      }) do
        local result = run(script)
        assert.is_not_equal("timeout", result.status)
        local after = run("pass", { reset = true })
        assert.equal("success", after.status, script .. "\n" .. after.stderr)
      end
    end)
  end)

  it("detaches or spoils its streams spoils them for its own run only", function()
    with({}, function(run)
      for _, script in ipairs({
        "import sys\nsys.stdout.detach(); sys.stderr.detach(); sys.stdin.detach()",
        "import sys\nsys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
        "import os\nos.dup2(os.open(os.devnull, os.O_RDONLY), 1)\nprint('nowhere')",
      }) do
        works_after(run, run(script))
        local failed = run("import sys\nprint(repr(sys.stdin.read()))\n1/0")
        assert.equal("''\n", failed.output)
        assert.matches("ZeroDivisionError", failed.stderr)
      end
    end)
  end)

  it("catches everything is killed, and the session with it", function()
    with({}, function(run)
      run("import time, os, signal")
      for _, script in ipairs({
        "while True:\n  try: time.sleep(1000)\n  except BaseException: pass",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\ntime.sleep(1000)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "os.closerange(3, 1000)\nwhile True: pass",
      }) do
        local result = run("import time, os, signal\n" .. script, { timeout = 2 })
        assert.equal("timeout", result.status)
        assert.is_string(result.session_lost)
        works_after(run, result)
      end
    end)
  end)

  it("hides from interrupts hides for its own run only", function()
    with({}, function(run)
      run("import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})")
      local result = run("time.sleep(1000)", { timeout = 1 })
      assert.equal("timeout", result.status)
      assert.is_nil(result.session_lost)
      works_after(run, result)
    end)
  end)

  it("writes floods or bytes of any kind is heard as any other", function()
    with({ limits = { stdout_bytes = 100000 } }, function(run)
      local flood = run("while True: print('x' * 100000)", { timeout = 3 })
      assert.equal("timeout", flood.status)
      assert.is_true(flood.stdout_bytes_total > 100000)
      works_after(run, flood)
      local script = "import os\nfor i in range(100): os.write(1, bytes(range(256)))\n"
        .. "os.write(2, b'\\0\\xff end 0\\n')"
      local bytes, plain = run(script), run(script, { session = false })
      assert.is_true(#plain.output > 1000)
      assert.equal(plain.output, bytes.output)
      assert.equal(plain.stderr, bytes.stderr)
      works_after(run, bytes)
    end)
  end)

  it("forges the mark of its end ends its own run, and cannot end the next", function()
    with({}, function(run)
      local forged = run("import sys, os, time\nf = sys._getframe()\n"
        .. "while 'run' not in f.f_locals: f = f.f_back\nn = f.f_locals['run'].nonce\n"
        .. "for fd in (1, 2): os.write(fd, ('%s end 0\\n' % n).encode())\ntime.sleep(1000)",
        { timeout = 10 })
      assert.equal("success", forged.status)
      run("pass", { timeout = 2 }) -- finds the script that still runs, and ends it
      assert.equal("1\n", run("print(1)").output)
      local twice = run("print('a')\nfor fd in (1, 2): os.write(fd, ('%s end 0\\n' % n).encode())\n"
        .. "print('b')")
      assert.matches("^a\n%x+ end 0\nb\n$", twice.output)
    end)
  end)

  it("leaves processes that hold its output does not hold up anything", function()
    with({}, function(run)
      local first = run("import subprocess, os, sys, threading\n"
        .. "subprocess.Popen(['sh', '-c', 'trap \"\" INT TERM HUP; exec sleep 600'])\n"
        .. "if os.fork() == 0:\n  os.setsid()\n  while True: os.write(1, b'late\\n' * 1000)\n"
        .. "print('mine', flush=True)")
      assert.equal("success", first.status)
      local second = run("print('two')", { reset = true })
      assert.equal("two\n", second.output)
    end)
  end)

  it("leaves a flood, a timer or a stream that does not block harms no one else", function()
    with({}, function(run)
      run("import os\nif os.fork() == 0:\n  os.setsid()\n"
        .. "  while True: os.write(1, b'late\\n' * 999)")
      for _ = 1, 3 do
        assert.matches("mine", run("print('mine', file=__import__('sys').stderr)").stderr)
      end
      run("import os; os.set_blocking(1, False)", { reset = true })
      assert.equal(3000001, run("print('q' * 3000000)").stdout_bytes_total)
      run("import signal, time; signal.setitimer(signal.ITIMER_REAL, 0.1)")
      local hit = run("time.sleep(20)")
      while hit.session_state == "kept" and not hit.session_lost do
        hit = run("time.sleep(20)")
      end
      assert.matches("signal ALRM", hit.hint)
    end)
  end)

  it("ends in a thread, or lets one fail, ends the thread only", function()
    with({}, function(run)
      local result = run("import threading, sys, _thread\n"
        .. "for f in (lambda: sys.exit(3), lambda: 1/0, _thread.exit):\n"
        .. "  t = threading.Thread(target=f); t.start(); t.join()\nprint('on')")
      assert.equal("on\n", result.output)
      assert.equal(0, result.exit_code)
      assert.matches("ZeroDivisionError", result.stderr)
      works_after(run, result)
      local main = run("_thread.interrupt_main()\nimport time\ntime.sleep(30)")
      assert.equal(130, main.exit_code)
      works_after(run, main)
    end)
  end)
end)
