-- SPDX-License-Identifier: MIT
-- Scripts by stream, through each form of the runner, in a place: they notice nothing of it.
local assert = require("luassert")
local busted = require("busted")
local engines = require("spec.support.engines")

local it = busted.it

local stream_suite = {}

-- Runs body(run, engine), run(job) a script by stream through a runner of this form.
function stream_suite.through(form, place, body)
  return engines.with({ runner_forms = { form }, backends = { box = place } }, function(one)
    return body(function(job, hooks)
      job.backend, job.transport = "box", job.transport or "stream"
      return assert(one:run(job, hooks))
    end, one)
  end)
end

-- What a Python script may ask for, or do, that could come out otherwise where it goes on in the
-- interpreter of a runner.
local SCRIPTS = {
  names = [[
import sys
print(sys.argv, sys.path, __file__, __name__, sorted(globals()), sys.flags)
print(sys.executable, sys.orig_argv)
print(sorted(set(sys.modules) - set(sys.builtin_module_names)))]],
  process = [[
import os, resource, signal, sys
os.environ["FARCALL_RUNNER"] = os.environ["HOSTNAME"] = "any"
print(sorted(os.environ.items()), os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpid())
print(sorted(os.listdir("/proc/self/fd")))
print([(n, signal.getsignal(n)) for n in range(1, 32)], signal.pthread_sigmask(0, []))
print([resource.getrlimit(n) for n in range(10)], repr(sys.stdin.read()), sys.stdout, sys.stderr)]],
  calls = [[
import threading
from farcall import terminal, parallel
def say(n):
    print(terminal("echo %d" % n)["output"], end="")
for n in range(3):
    thread = threading.Thread(target=say, args=(n,))
    thread.start()
    thread.join()
print([result["output"] for result in parallel(
    [lambda n=n: terminal("echo %d" % n) for n in range(3)])])]],
  ["calls of forks"] = [[
import multiprocessing
from farcall import terminal
def say(n):
    return terminal("echo %d" % n)["output"]
if __name__ == "__main__":
    for way in ("fork", "spawn"):
        with multiprocessing.get_context(way).Pool(2) as pool:
            print(pool.map(say, range(4)))]],
  ["what is left unsaid"] = "import os, sys\nprint('lost')\nsys.stderr.write('said')\nos._exit(4)",
  ["a traceback"] = "from farcall import terminal\ndef f(x):\n    return {}[x]\n\n\nf(3)",
  ["a call that fails"] = "from farcall import terminal\nterminal(command=3)",
  ["what is no Python"] = "print('a'\n",
  ["an exit code"] = "import atexit, sys\natexit.register(print, 'last')\nsys.exit(41)",
  ["an end by a signal"] = "import os\nos.kill(os.getpid(), 9)",
  ["an interrupt"] = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
  ["threads that outlive it"] = "import threading, time\nthreading.Thread(target=lambda: "
    .. "(time.sleep(0.2), print('thread'))).start()\nprint('main')",
  ["pipes"] = "import subprocess\nprint(subprocess.run('yes | head -n 1', shell=True,\n"
    .. "    stdout=subprocess.PIPE, stderr=subprocess.PIPE))",
  ["a time that passes"] = { timeout = 2, script = [[
import time
print("before", flush=True)
try:
    time.sleep(60)
finally:
    print("after", flush=True)]] },
  ["many bytes"] = "import sys\nfor _ in range(200):\n    sys.stdout.buffer.write(bytes(range(256))"
    .. " * 40)\nprint('ö€', file=sys.stderr)",
}

local FIELDS = { "status", "exit_code", "signal", "error", "hint", "output", "stderr",
  "stdout_bytes_total", "transport", "tool_calls_made" }

-- What came of a run, without what is random.
local function outcome(result)
  local told = {}
  for _, name in ipairs(FIELDS) do
    local value = result[name]
    told[name] = type(value) == "string" and value:gsub("farcall%-run%-%x+", "DIR")
      :gsub("farcall%-spec%-%w+", "HOME"):gsub("0x%x+", "0x") or value
  end
  return told
end

local function all_of_them(form, place)
  return stream_suite.through(form, place, function(run)
    local outcomes = {}
    for name, job in pairs(SCRIPTS) do
      job = type(job) == "table" and job or { script = job }
      local result = run({
        script = job.script, timeout = job.timeout, language = "python", args = { "a b", "", "ö" },
        env = { V = "x y", PYTHONUNBUFFERED = "" },
      })
      assert.equal(form, result.runner)
      outcomes[name] = outcome(result)
    end
    return outcomes
  end)
end

-- Whether a Python script is what its runner was.
local IS_RUNNER = "print('serve' in open('/proc/self/cmdline').read().split(chr(0)))"

---Registers the tests.
---@param place table of a configuration's backends
function stream_suite.all(place)
  it("is in the interpreter of a Python runner as in its own", function()
    local expected, got = all_of_them("c", place), all_of_them("python", place)
    for name in pairs(SCRIPTS) do
      assert.same({ name, expected[name] }, { name, got[name] })
    end
  end)

  it("is in the interpreter of a Python runner wherever it can be", function()
    stream_suite.through("python", place, function(run)
      local function is_runner(job)
        job.script, job.language = IS_RUNNER, "python"
        local result = run(job)
        assert.equal("success", result.status, result.stderr)
        return result.output
      end
      assert.equal("True\n", is_runner({}))
      assert.equal("True\n", is_runner({ env = { A = "b" } }))
      assert.equal("True\n", is_runner({ session = "s" }))
      assert.equal("False\n", is_runner({ env = { PYTHONHASHSEED = "1" } }))
      assert.equal("False\n", is_runner({ filename = "os.py" }))
      assert.equal("True\n", is_runner({ filename = "other.py" }))
      -- Names of what else is there are not the script's.
      for _, name in ipairs({ "token", "socket", "ask" }) do
        assert.equal("True\n", is_runner({ filename = name }))
      end
    end)
    stream_suite.through("c", place, function(run)
      assert.equal("False\n", run({ script = IS_RUNNER, language = "python" }).output)
    end)
  end)

  it("hears of an interrupt, through each runner", function()
    for _, form in ipairs({ "c", "python" }) do
      stream_suite.through(form, place, function(run, one)
        local result = run({ language = "python", script = [[
import time
from farcall import terminal
try:
  terminal("echo up")
  time.sleep(50)
except KeyboardInterrupt:
  print("heard")]] }, { call = function()
          one:interrupt("INT")
        end })
        assert.same({ "interrupted", "heard\n" }, { result.status, result.output }, result.stderr)
      end)
    end
  end)

  it("in sh calls through the program of each runner", function()
    for _, form in ipairs({ "c", "python" }) do
      stream_suite.through(form, place, function(run)
        local result = run({ language = "sh", script = [[
call -f output terminal command='printf "%s" "a  b"'
for i in 1 2 3 4; do call -f output terminal command="echo $i" > "$FARCALL_RUN_DIR/o$i" & done
wait
cat "$FARCALL_RUN_DIR/o1" "$FARCALL_RUN_DIR/o4"
big=$(head -c 100000 /dev/zero | tr '\000' a)
call -f output terminal command="printf %s $big | wc -c"
call no_tool; echo "$?"
cd / && PATH=/bin && LD_LIBRARY_PATH=/none PYTHONPATH=/none call -f output terminal command=pwd]] })
        assert.same({ "success", form }, { result.status, result.runner }, result.stderr)
        assert.matches("^a  b\n1\n\n4\n\n100000\n\n1\n/", result.output)
        assert.matches("%[not_found%]", result.stderr)
        assert.equal(7, result.tool_calls_made)
      end)
    end
  end)
end

return stream_suite
