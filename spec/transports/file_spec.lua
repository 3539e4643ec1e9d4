-- SPDX-License-Identifier: MIT
-- Calls by files, on this machine by way of adapters that are as bad as services can be.
local engines = require("spec.support.engines")
local transport = require("farcall.transports.file")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local wire = require("farcall.transports.wire")

local PYTHON = "/usr/bin/python3"

-- A tool that notes in a file of its own that it was carried out.
local function noting(path)
  return {
    name = "note", summary = "Notes.",
    parameters = { type = "object", additionalProperties = true },
    handler = function(args, ctx)
      local file = assert(io.open(path, "ab"))
      file:write(tostring(args.text):sub(1, 40), "\n")
      file:close()
      if args.wait then
        ctx.sleep(args.wait)
      end
      return args.text or "nothing"
    end,
  }
end

local function lines_of(path)
  local count = {}
  for line in (helper.read(path) or ""):gmatch("[^\n]+") do
    count[line] = (count[line] or 0) + 1
  end
  return count
end

-- Runs a script by files; `options` of the bare backend, or nil for the local one.
local function by_files(script, options, job, limits)
  local notes = helper.scratch() .. "/notes"
  local result = engines.with({
    backend_path = { "spec/fixtures/backends" }, limits = limits,
    tools = { note = noting(notes) }, enabled_tools = { "note", "terminal" },
  }, function(one)
    local spec = {
      script = script, language = "python", transport = "file",
      backend = options and "bare" or "local", options = options,
    }
    for key, value in pairs(job or {}) do
      spec[key] = value
    end
    return assert(one:run(spec))
  end)
  return result, lines_of(notes)
end

local PARALLEL = [[
from farcall import note, parallel
texts = ["n%d" % i for i in range(12)]
assert parallel([(note, {"text": t}) for t in texts], workers=6) == texts
print("good")
]]

local BAD = {
  { "a living standard input", {} },
  { "no standard input", { stdin = "none" } },
  { "an input that does not live", { stdin = "bytes" } },
  { "command lines only", { words = false } },
  { "neither words nor input", { words = false, stdin = "none", max_command = 65536 } },
  { "commands that run to their end only", { ends = true, stdin = "bytes" } },
}

describe("the file transport", function()
  it("is there for the local backend too", function()
    local result, notes = by_files(PARALLEL)
    assert.equal("good\n", result.output, result.stderr)
    assert.equal("file", result.transport)
    assert.equal(1, notes.n7)
  end)

  for _, case in ipairs(BAD) do
    it("works with " .. case[1], function()
      local result, notes = by_files(PARALLEL, case[2])
      assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
      assert.equal("success", result.status)
      for i = 0, 11 do
        assert.equal(1, notes["n" .. i])
      end
    end)

    it("carries large payloads with " .. case[1], function()
      local result = by_files([[
from farcall import note
for size in (0, 1, 100, 200_000, 700_000):
    text = ("é\n\"\\" * size)[:size]
    assert note(text=text) == text, size
print("good")
]], case[2])
      assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
    end)
  end

  it("dispatches a call once whatever is lost on the way", function()
    local fates = { { "ok", "cut" }, { "cut", "refused", "ok" }, { "cut", "cut", "ok" } }
    for _, fate in ipairs(fates) do
      local result, notes = by_files([[
from farcall import note, parallel
for i in range(4):
    assert note(text="s%d" % i) == "s%d" % i
texts = ["n%d" % i for i in range(8)]
assert parallel([(note, {"text": t}) for t in texts]) == texts
print("good")
]], { fate = fate })
      assert.equal("good\n", result.output, result.stderr .. tostring(result.error))
      assert.equal(12, result.tool_calls_made)
      for text, count in pairs(notes) do
        assert.equal(1, count, text)
      end
    end
  end)

  it("takes at most an exec for a call, and fewer when they come together", function()
    local serial = by_files([[
from farcall import note
for i in range(20):
    note(text=str(i))
]], {})
    assert.equal("success", serial.status)
    -- The first waits for the first call, the last for what does not come; a slow machine may
    -- wait for a reply in vain now and then.
    assert.is_true(serial.execs <= 28, tostring(serial.execs))
    local together = by_files([[
from farcall import note, parallel
parallel([(note, {"text": str(i)}) for i in range(40)], workers=8)
]], {})
    assert.equal("success", together.status)
    assert.is_true(together.execs < 40, tostring(together.execs))
  end)

  it("lets a quick call pass a slow one", function()
    local result = by_files([[
import threading, time
from farcall import note
order = []
def slow():
    note(text="slow", wait=3)
    order.append("slow")
thread = threading.Thread(target=slow)
thread.start()
time.sleep(0.5)
for i in range(3):
    note(text="quick")
    order.append("quick")
thread.join()
print(order)
]], {})
    assert.equal("['quick', 'quick', 'quick', 'slow']\n", result.output, result.stderr)
  end)

  it("answers forked processes", function()
    local result, notes = by_files([[
import os
from farcall import note
for i in range(6):
    if os.fork() == 0:
        assert note(text="f%d" % i) == "f%d" % i
        os._exit(0)
for i in range(6):
    assert os.wait()[1] == 0
print("good")
]], {})
    assert.equal("good\n", result.output, result.stderr)
    assert.equal(1, notes.f5)
  end)

  it("serves a script that has more files open than select() knows", function()
    local result = by_files([[
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
keep = [open("/dev/null") for _ in range(1100)]
from farcall import note
print(note(text="good"))
]], {})
    assert.equal("good\n", result.output, result.stderr)
  end)

  it("works where there are no FIFOs", function()
    local bin = helper.scratch() .. "/bin"
    assert(fs.mkdir(bin, 448, true))
    helper.write(bin .. "/mkfifo", "#!/bin/sh\nexit 1\n")
    os.execute("chmod +x " .. bin .. "/mkfifo")
    local result = by_files([[
import os
def refuse(*_): raise OSError("none here")
os.mkfifo = refuse
from farcall import note
assert [note(text=str(i)) for i in range(3)] == ["0", "1", "2"]
print("good")
]], { env = { PATH = bin .. ":/usr/bin:/bin" } })
    assert.equal("good\n", result.output, result.stderr)
  end)

  it("refuses what is no request and goes on", function()
    local result, notes = by_files([[
import json, os, time
d = os.environ["FARCALL_RUN_DIR"]
def put(name, text):
    with open(d + "/c/x.new", "w") as file: file.write(text)
    os.rename(d + "/c/x.new", d + "/c/" + name)
    import _farcall_file
    _farcall_file.directory = d
    _farcall_file.ring()
def reply(name):
    while not os.path.exists(d + "/c/" + name): time.sleep(0.01)
    return json.load(open(d + "/c/" + name))
token = open(d + "/token").read()
put("11.req", "nonsense")
assert reply("11.rep")["error"]["kind"] == "protocol"
put("12.req", json.dumps({"id": 12, "tool": "note", "args": {}, "token": "0" * 64}))
assert reply("12.rep")["error"]["kind"] == "denied"
put("13.req", json.dumps({"id": 14, "tool": "note", "args": {}, "token": token}))
assert reply("13.rep")["error"]["kind"] == "protocol"
put("15.req", json.dumps({"id": 15, "tool": "note", "args": {"text": "ok"}, "token": token}))
assert reply("15.rep")["result"] == "ok"
from farcall import note
print(note(text="good"))
]], {})
    assert.equal("good\n", result.output, result.stderr)
    assert.same({ ok = 1, good = 1 }, notes)
  end)

  it("believes no more of forged headers than a cycle can bring", function()
    local result = by_files([[
import glob, os, time
d = os.environ["FARCALL_RUN_DIR"].encode()
mark = None
while not mark:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if d in words and b"fifo" in words:
            mark = words[words.index(d) - 1]
with open(d + b"/c/x.new", "wb") as file:
    for i in range(200000):
        file.write(b"\n%s request %d.req\nx" % (mark, 1000 + i))
    file.write(b"\n%s " % mark + b"y" * 1000)
os.rename(d + b"/c/x.new", d + b"/c/1.big")
from farcall import note
print(note(text="good"), sum(name.endswith(b".rep") for name in os.listdir(d + b"/c")) <= 64)
]], {})
    assert.equal("good True\n", result.output, result.stderr)
  end)

  it("takes its time when the script has each exec end at once", function()
    local result = by_files([[
import os, time
with open(os.environ["FARCALL_RUN_DIR"] + "/turn", "r+") as file:
    while True:
        file.seek(0)
        file.write("999999999\\n")
        file.flush()
        time.sleep(0.001)
]], {}, { timeout = 5 })
    assert.equal("timeout", result.status)
    assert.is_true(result.execs < 30, result.execs)
  end)

  it("gives a sign while as many calls as can be are under way", function()
    local most, lease = wire.MAX_IN_FLIGHT, transport.LEASE
    wire.MAX_IN_FLIGHT, transport.LEASE = 4, 6
    local result = by_files([[
from farcall import note, parallel
parallel([(note, {"text": "x", "wait": 10})] * 4, workers=4)
print(note(text="good"))
]], {})
    wire.MAX_IN_FLIGHT, transport.LEASE = most, lease
    assert.equal("good\n", result.output, tostring(result.error) .. result.stderr)
  end)

  it("ends a run whose directory is full of what cannot be a request", function()
    local result = by_files([[
import os, time
d = os.environ["FARCALL_RUN_DIR"]
with open(d + "/c/1x.req", "w") as file: file.write("x")
from farcall import note
try:
    note(text="x")
finally:
    time.sleep(30)
]], {})
    assert.equal("error", result.status)
    assert.equal("protocol", result.error_kind)
  end)

  -- What a script can put in the place of each file that an exec opens over there.
  local PLACES = {
    turn = "put(d + '/turn')",
    ["a request"] = "put(d + '/c/77.req')",
    ["a large request"] = "put(d + '/c/77.big')",
    ["a request that has arrived"] = [[
thread = threading.Thread(target=note, kwargs={"text": "slow", "wait": 2})
thread.start()
while not [n for n in os.listdir(d + "/c") if n.endswith(".req")]: time.sleep(0.01)
time.sleep(0.5)
for name in os.listdir(d + "/c"):
    if name.endswith(".req"): put(d + "/c/" + name)]],
  }
  local THINGS = {
    ["a FIFO"] = "os.mkfifo(path)",
    ["a directory"] = "os.mkdir(path)",
    ["a link to a FIFO"] = "os.mkfifo(d + '/f'); os.symlink('f' if path.count('/') == d.count('/')"
      .. " + 1 else '../f', path)",
    ["a link to a device"] = "os.symlink('/dev/tty', path)",
  }

  local function spoil(place, thing)
    local began = os.time()
    local result = by_files(([[
import os, shutil, subprocess, threading, time
from farcall import note
d = os.environ["FARCALL_RUN_DIR"]
def put(path):
    if os.path.exists(path): os.unlink(path)
    if os.path.exists(d + "/f"): os.unlink(d + "/f")
    %s
note(text="first")
%s
print(d, flush=True)
try:
    note(text="second")
finally:
    time.sleep(100)
]]):format(THINGS[thing], PLACES[place]), {}, { timeout = 100 })
    assert.equal("error", result.status, result.stderr)
    assert.equal("protocol", result.error_kind, result.error)
    assert.matches("the script has put something else", result.error, 1, true)
    assert.is_true(os.time() - began < 60)
    local dir = result.output:gsub("\n", "")
    assert.is_nil(fs.stat(dir))
    assert.equal(0, os.execute(("! pgrep -f '[%s]%s' > /dev/null"):format(dir:sub(1, 1),
      dir:sub(2))))
  end

  for place in pairs(PLACES) do
    for thing in pairs(THINGS) do
      it(("ends a run that puts %s in the place of %s"):format(thing, place), function()
        spoil(place, thing)
      end)
    end
  end

  it("ends over there, too, an exec that is given up", function()
    local silence = transport.SILENCE
    transport.SILENCE = 5
    -- Full of what nobody reads: whoever rings it waits.
    local result = by_files([[
import os, time
from farcall import note
d = os.environ["FARCALL_RUN_DIR"]
note(text="first")
fds = [os.open(d + "/bell.%d" % i, os.O_RDWR | os.O_NONBLOCK) for i in (0, 1)]
print(d, flush=True)
end = time.time() + 100
while time.time() < end:
    for fd in fds:
        try:
            os.write(fd, b"x" * 4096)
        except BlockingIOError:
            pass
    time.sleep(0.001)
]], {}, { timeout = 100 })
    transport.SILENCE = silence
    assert.equal("error", result.status)
    assert.equal("lost", result.error_kind)
    assert.equal(0, os.execute(("! pgrep -fa 'farcall-ru[n]-%s'"):format(
      result.output:match("farcall%-run%-(%x+)"))))
  end)

  it("leaves nothing over there: not the directory, not a process that left its session", function()
    local result = by_files([[
import os, subprocess
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 714321; :"])
print(os.environ["FARCALL_RUN_DIR"])
]], {})
    assert.equal("success", result.status)
    local dir = result.output:gsub("\n", "")
    assert.is_truthy(dir:find("^/tmp/farcall%-run%-%x+$"))
    assert.is_nil(fs.stat(dir))
    assert.equal(0, os.execute("! pgrep -f '[s]leep 714321' > /dev/null"))
  end)

  it("ends the tree at the deadline, also without a living input", function()
    for _, stdin in ipairs({ "stream", "none" }) do
      local result = by_files([[
import subprocess, time, os
print(os.environ["FARCALL_RUN_DIR"], flush=True)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 714322; :"])
time.sleep(60)
]], { stdin = stdin }, { timeout = 5 })
      assert.equal("timeout", result.status)
      assert.is_nil(fs.stat((result.output:gsub("\n", ""))))
      assert.equal(0, os.execute("! pgrep -f '[s]leep 714322' > /dev/null"))
    end
  end)

  it("says when there is no interpreter, before anything runs", function()
    local result = by_files("print(1)", { env = { PATH = "/nonexistent" } })
    assert.equal("error", result.status)
    local bin = helper.scratch() .. "/bin"
    assert(fs.mkdir(bin, 448, true))
    for _, name in ipairs({ "sh", "mkdir", "head", "cat", "tail", "wc", "rm", "mkfifo", "sleep",
      "grep", "base64", "mv", "env" })
    do
      os.execute(("ln -s $(command -v %s) %s/%s"):format(name, bin, name))
    end
    result = by_files("print(1)", { env = { PATH = bin } }, { language = "python" })
    -- /usr/bin/python3 is one of the template's own.
    assert.equal(fs.stat(PYTHON) and "success" or "error", result.status, result.error)
  end)
end)
