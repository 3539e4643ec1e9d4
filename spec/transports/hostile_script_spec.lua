-- SPDX-License-Identifier: MIT
-- A script that turns on the honest runner which carries it: the result has a kind, nothing is
-- left, and the engine serves its next run.

local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

-- What a script needs for that.
local RAW = [[
import json, os, resource, signal, socket, subprocess, time
from farcall import terminal
DIR = os.environ["FARCALL_RUN_DIR"]
TOKEN = open(DIR + "/token").read()
def runner():
    # The uppermost of its processes: who holds the script is a fork of it.
    pid, found = os.getppid(), None
    while True:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            words = file.read().split(b"\0")
        if b"serve" not in words or words[0].endswith(b"farcall-supervisor"):
            return found
        found = pid
        with open("/proc/%d/stat" % pid) as file:
            pid = int(file.read().rsplit(")", 1)[1].split()[1])
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(DIR + "/socket")
    return s
def ask(s, line):
    s.sendall(line.encode())
    reply = b""
    while not reply.endswith(b"\n"):
        part = s.recv(65536)
        if not part:
            return reply.decode() or "closed"
        reply += part
    return reply.decode()
def request(**more):
    return json.dumps({"id": 1, "tool": "terminal", "args": {"command": "echo fine"},
                       "token": TOKEN, **more}) + "\n"
with open(%q, "a") as file:
    print(DIR, file=file)
print("up", flush=True)
]]

-- What it does; how its run ends (any: with an error); what it has said.
local CASES = {
  ["has the wrong token"] = { [[
for token in ("0" * 64, "", TOKEN[:-1], TOKEN + "0"):
    assert json.loads(ask(connect(), request(token=token)))["error"]["kind"] == "denied"
print("fine" in ask(connect(), request()))]], "success", "up\nTrue\n" },
  ["sends noise"] = { [[
for noise in (b"\0" * 5000, b"\xff" * 300000, b"[" * 100000):
    assert json.loads(ask(connect(), noise.decode("latin-1") + "\n"))["error"]["kind"] == "protocol"
print("fine" in ask(connect(), request()))]], "success", "up\nTrue\n" },
  ["opens thousands of connections"] = { [[
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
held = []
for i in range(2500):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(0.2)
        s.connect(DIR + "/socket")
        held.append(s)
    except OSError:
        s.close()
        time.sleep(0.01)
        while len(held) > 300:
            held.pop().close()
for s in held:
    s.close()
made = 0
for i in range(100):
    try:
        made = "fine" in ask(connect(), request())
        break
    except OSError:
        time.sleep(0.1)
print(made)]], "success", "up\nTrue\n" },
  ["fills its directory"] = { [[
for i in range(2000):
    open(DIR + "/file%d" % i, "w").close()
deep = DIR
for i in range(200):
    deep += "/d"
    os.mkdir(deep)
os.chmod(DIR + "/d", 0)
os.symlink("/", DIR + "/link")
os.mkfifo(DIR + "/fifo")
print(terminal(command="echo fine")["output"])]], "success", "up\nfine\n\n" },
  ["removes its directory"] = { [[
import shutil
shutil.rmtree(DIR)
os.symlink("/nowhere", DIR)]], "success", "up\n" },
  ["kills its runner"] = { [[
subprocess.Popen(["setsid", "sleep", "%d"])
time.sleep(0.3)
os.kill(runner(), signal.SIGKILL)
time.sleep(1000)]], "lost", "up\n", sleeper = true, leaves = true },
  ["ends its runner"] = { [[
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; exec sleep %d"])
time.sleep(0.3)
os.kill(runner(), signal.SIGTERM)
time.sleep(1000)]], "any", "up\n", sleeper = true },
  ["kills who holds it"] = { [[
subprocess.Popen(["setsid", "sleep", "%d"])
time.sleep(0.3)
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(1000)]], "any", "up\n", sleeper = true },
}

local function sleepers(number)
  local pipe = assert(io.popen(("pgrep -fc '^sleep %d$'"):format(number)))
  local found = tonumber(pipe:read("*l"))
  pipe:close()
  return found
end

describe("a script that means harm to the runner", function()
  for _, form in ipairs({ "c", "python" }) do
    it(("(%s) gets its result, and the next run is served"):format(form), function()
      local wrong = {}
      local dirs = helper.write(helper.scratch() .. "/dirs", "")
      local base = 300000 + helper.read("/proc/self/stat"):match("^%d+") * 20
      engines.with({
        backends = { far = { use = "local", options = { tree = "subreaper" } } },
        runner_forms = { form }, limits = { max_calls = 100000 },
      }, function(one)
        for title, case in pairs(CASES) do
          base = base + 1
          local raw = RAW:gsub("%%q", ("%q"):format(dirs))
          local script = raw .. (case.sleeper and case[1]:format(base) or case[1])
          local result = assert(one:run({ script = script, language = "python", backend = "far",
            transport = "stream", timeout = 60 }))
          local got = result.status == "error" and result.error_kind or result.status
          if case[2] == "any" and (got == "lost" or got == "error") then
            got = "any"
          end
          if got ~= case[2] or result.output ~= case[3] or result.runner ~= form then
            wrong[#wrong + 1] = ("%s: %s (%s) %s %s"):format(title, tostring(got),
              tostring(result.error), result.output, result.stderr)
          end
          assert(helper.eventually(function()
            return sleepers(base) == 0
          end, 20), title .. ": processes are left")
          local dir = helper.read(dirs):match("([^\n]+)\n$")
          -- One whose runner could not end itself is collected later (`farcall env gc`).
          if case.leaves then
            assert(fs.rmtree(dir))
          end
          assert(helper.eventually(function()
            return not fs.stat(dir)
          end, 20), title .. ": its directory is left")
          local next_one = assert(one:run({ backend = "far", transport = "stream", timeout = 60,
            script = "from farcall import terminal\nprint(terminal(command='echo served'))",
            language = "python" }))
          if next_one.status ~= "success" or not next_one.output:find("served") then
            wrong[#wrong + 1] = ("after %s: %s"):format(title, tostring(next_one.error))
          end
        end
      end)
      assert.same({}, wrong)
    end)
  end
end)
