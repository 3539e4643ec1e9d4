-- SPDX-License-Identifier: MIT
-- The Python stub against a server of the spec's own (spec/support/stub_server.py).
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local stub = require("farcall.stub")
local template = require("farcall.stubs.python")

local PYTHON = "/usr/bin/python3"

local function tools()
  local list = {}
  for _, name in ipairs({ "terminal", "read_file", "write_file", "search_files", "patch" }) do
    list[#list + 1] = require("farcall.tools." .. name)
  end
  list[#list + 1] = {
    name = "echo", summary = "Says it again.", parameters = { type = "object", properties = {
      text = { type = "string" }, maybe = { type = { "integer", "null" } } },
      required = { "maybe" } },
  }
  return list
end

local function furnish(dir, list, options)
  for _, file in ipairs(assert(stub.render(template, list or tools(), options))) do
    helper.write(dir .. "/" .. file.name, file.text)
  end
end

-- Runs a script beside the stub; its output, and whether it ended well.
local function python(dir, script, flags)
  helper.write(dir .. "/script.py", script)
  local code = os.execute(("cd / && FARCALL_RUN_DIR='%s' PYTHONPATH='%s' timeout 60 %s -B %s "
    .. "'%s/script.py' > '%s/out' 2>&1"):format(dir, dir, PYTHON, flags or "-W error -X dev", dir,
    dir))
  return helper.read(dir .. "/out"), code == 0 or code == true
end

-- The script's output with the server running.
local function served(script, options, deep)
  local dir = helper.scratch() .. (deep or "")
  assert(fs.mkdir(dir, 448, true))
  furnish(dir, nil, options)
  local server = assert(io.popen(("%s spec/support/stub_server.py '%s' > /dev/null"):format(PYTHON,
    dir), "w"))
  for _ = 1, 500 do
    if fs.stat(dir .. "/socket") then
      break
    end
    os.execute("sleep 0.02")
  end
  local output, ok = python(dir, script)
  server:close()
  assert.is_true(ok, output)
  return output
end

local function fails(code)
  return ("try:\n    %s\nexcept ToolError as error:\n    print(error.kind, error.tool)\n"):format(
    code)
end

describe("the Python stub", function()
  it("calls tools with light imports", function()
    assert.equal("{'maybe': None, 'text': 'x'}\n{'a': 1}\n{'maybe': None}\nTrue\n", served([==[
import sys
before = set(sys.modules)
import farcall
print(farcall.echo(None, text="x"))
print(farcall.call("echo", a=1, b=None))
print(farcall.call("echo", maybe=None, text=None))
print(not {"json", "socket", "threading", "re"} & (set(sys.modules) - before))
]==]))
  end)

  it("has real signatures and documentation", function()
    local output = served([==[
import inspect, farcall
for name in ("terminal", "read_file", "write_file", "echo"):
    print(inspect.signature(getattr(farcall, name)))
import pydoc
print(pydoc.plain(pydoc.render_doc(farcall.terminal)))
print(sorted(farcall.__all__))
]==])
    assert.truthy(output:find("(command: 'str', timeout: 'float | None' = None, "
      .. "workdir: 'str | None' = None) -> 'dict'", 1, true), output)
    assert.truthy(output:find("(path: 'str', offset: 'int' = 1, limit: 'int' = 500, ", 1, true))
    assert.truthy(output:find("(maybe: 'int | None', *, text: 'str | None' = None)\n", 1, true))
    assert.truthy(output:find("Run a command line in the script's environment", 1, true))
  end)

  it("carries every value that JSON has", function()
    assert.equal("True\nTrue\n3000000\n", served([==[
from farcall import call
value = {"v": 2**70, "w": "\u2028\U0001f600\x00\"\\ä", "t": [1, [], {}, None, True], "f": 1e300,
         "z": -0.5}
print(call("echo", **value) == value)
print(call("raw", text="[1e2, 12345678901234567890123]") == [100.0, 12345678901234567890123])
print(len(call("big", size=3000000)))
]==]))
  end)

  it("refuses what JSON does not have", function()
    local output = served([==[
from farcall import call
ring = []
ring.append(ring)
for bad in (b"x", float("nan"), {1, 2}, "a\udc80", object(), [1, [float("inf")]], {(1, 2): 3},
            ring):
    try:
        call("echo", deep={"list": [bad]})
    except TypeError as error:
        print(error)
try:
    call(3)
except TypeError as error:
    print(error)
]==])
    for _, wanted in ipairs({
      "argument deep['list'][0]: JSON cannot hold bytes: decode it", "JSON has no nan",
      "JSON cannot hold a set: make it a list", "half a surrogate pair", "hold a object",
      "['list'][0][1][0]: JSON has no inf", "a key of an object is a str, not a tuple",
      "it contains itself", "the name of a tool is a str",
    }) do
      assert.truthy(output:find(wanted, 1, true), wanted .. " in\n" .. output)
    end
  end)

  it("tells errors, and a lost connection as unknown", function()
    assert.equal("denied fail\nunknown drop\nunknown half\nunknown garbage\nunknown foreign\n"
      .. "protocol refuse\nbye\n{'x': 1}\nok\n{'calls': 1}\n", served(
      "import time, pickle\nfrom farcall import ToolError, call\n"
      .. fails('call("fail", kind="denied", message="no")') .. fails('call("drop")')
      .. fails('call("half")') .. fails('call("garbage")') .. fails('call("foreign")')
      .. fails('call("refuse")') .. [==[
print(call("hang_up_after"))
time.sleep(0.1)
print(call("echo", x=1))
print(call("dribble"))
error = pickle.loads(pickle.dumps(ToolError("a", "b", "c")))
assert (error.kind, error.message, error.tool) == ("a", "b", "c")
before = call("stats")["calls"]
try:
    call("drop")
except ToolError:
    pass
print({"calls": call("stats")["calls"] - before - 1})
]==]))
  end)

  it("says when there is no engine", function()
    local dir = helper.scratch()
    furnish(dir)
    local output = python(dir, "from farcall import call, ToolError\n" .. fails('call("x")'))
    assert.equal("lost None\n", output)
    helper.write(dir .. "/token", "ab")
    output = python(dir, "from farcall import call, ToolError\n" .. fails('call("x")'))
    assert.equal("lost x\n", output)
  end)

  it("gives each thread its own reply, more threads than connections too", function()
    assert.equal("True\nTrue\nTrue\n", served([==[
import time
from farcall import call, parallel
tasks = [lambda i=i: call("echo", i=i)["i"] for i in range(600)]
print(parallel(tasks, workers=60) == list(range(600)))
began = time.monotonic()
parallel([(call, ["sleep"], {"seconds": 0.3})] * 16)
print(time.monotonic() - began < 4)
print(parallel([(call, ["echo"], {"i": 1})]) == [{"i": 1}])
]==]))
  end)

  it("works in forked and in started processes", function()
    assert.equal("[0, 0, 0, 0]\n[0, 1, 4, 9]\n{'a': 1}\n\n", served([==[
import multiprocessing, os, subprocess, sys
from farcall import call, echo
def square(n):
    return call("echo", n=n * n)["n"]
call("echo")
pids = []
for i in range(4):
    pid = os.fork()
    if not pid:
        ok = all(call("echo", i=i, j=j) == {"i": i, "j": j} for j in range(200))
        os._exit(0 if ok else 1)
    pids.append(pid)
assert all(call("echo", j=j) == {"j": j} for j in range(200))
print([os.waitpid(pid, 0)[1] for pid in pids])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(square, range(4)))
print(subprocess.check_output([sys.executable, "-c",
    "import farcall; print(farcall.call('echo', a=1))"]).decode())
]==]))
  end)

  it("ends at once on Ctrl-C, and leaves no thread behind", function()
    assert.equal("interrupted\n{'x': 1}\nTrue\n", served([==[
import os, signal, threading, time
from farcall import call, parallel
def interrupt():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
began = time.monotonic()
try:
    call("sleep", seconds=30)
except KeyboardInterrupt:
    print("interrupted")
print(call("echo", x=1))
threading.Thread(target=interrupt).start()
try:
    parallel([lambda: call("sleep", seconds=30)] * 3)
except KeyboardInterrupt:
    print(time.monotonic() - began < 20)
]==]))
  end)

  it("has the helpers", function()
    assert.equal("7 1.5 (7, 1.5)\n3\n[1, 'ValueError']\n{'a': 'x\\ny'} 'a b'\n", served([==[
from farcall import json_parse, parallel, remaining, retry, shell_quote
left = remaining()
print(left["calls"], left.seconds, tuple(left))
tries = []
def flaky():
    tries.append(1)
    if len(tries) < 3:
        raise ValueError
    return len(tries)
print(retry(flaky, delay=0.001))
def bad():
    raise ValueError("x")
done = parallel([lambda: 1, bad], return_exceptions=True)
print([done[0], type(done[1]).__name__])
try:
    parallel([bad])
    print("not raised")
except ValueError:
    pass
print(json_parse('\ufeff{"a": "x\ny"}'), shell_quote("a b"))
]==]))
  end)

  it("runs scripts written for Hermes", function()
    assert.equal("{'error': 'no', 'kind': 'denied'}\n", served([==[
from hermes_tools import terminal, read_file, write_file, search_files, patch
from hermes_tools import json_parse, shell_quote, retry
import hermes_tools
print(hermes_tools.call("fail", kind="denied", message="no"))
]==], { module = "hermes_tools" }))
  end)

  it("reaches a socket with a long path", function()
    assert.equal("{'x': 1}\n", served("from farcall import call\nprint(call('echo', x=1))\n", nil,
      ("/" .. ("d"):rep(60)):rep(3)))
  end)

  it("lets no text of a tool out of its literal", function()
    local nasty = {
      '"""', '"', "'", "\\", "\\\"", '\\"""', "\n", "\r", "\r\n", "\0", "\226\128\168",
      "\226\128\169", "\194\133", "{", "}", "%s", "\255", "\240\159\152\128", "\\N{DEGREE SIGN}",
      '"""\nimport os; os.abort()\n"""', "\\u0022", "\f", "\237\160\128",
    }
    for i, first in ipairs(nasty) do
      local text = first .. nasty[i % #nasty + 1] .. first
      local dir = helper.scratch()
      furnish(dir, { {
        name = "evil", summary = text, description = text, returns = text,
        parameters = { type = "object", properties = {
          [text] = { type = "string", description = text, default = text, enum = { text } },
          a = { type = "string", default = text, description = text, enum = { text } },
          b = { type = { "string", "null" } },
          class = { type = "string" }, _call = { type = "string" },
        }, required = { "b" } },
      }, { name = "import", summary = text, parameters = {} },
        { name = "call", summary = text, parameters = {} },
        { name = "a.b-c", summary = text, parameters = {} },
        { name = "print", summary = text, parameters = {} },
      })
      local output = python(dir, [==[
import farcall, inspect
print(sorted(set(farcall.__all__) - set(farcall._runtime.__all__)))
print(str(inspect.signature(farcall.evil)).replace(repr(
    inspect.signature(farcall.evil).parameters["a"].default), "DEFAULT"))
assert farcall.evil.__doc__
]==])
      assert.equal("['a_b_c', 'call_', 'evil', 'import_', 'print']\n"
        .. "(b: 'str | None', *, a: 'str' = DEFAULT, **_more)\n", output, text)
      assert.equal("", (io.popen(("%s -W error -m py_compile %s/*.py 2>&1"):format(PYTHON, dir))
        :read("*a")))
    end
  end)
end)
