-- SPDX-License-Identifier: MIT
-- Scripts, tools and policies that go wrong or mean harm: the engine answers with an error, keeps
-- serving, and leaves nothing behind.

local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local task = require("farcall.task")

-- What a hostile script needs to speak to the socket without the stub.
local RAW = [[
import json, os, socket, sys, threading, time
DIR = os.environ["FARCALL_RUN_DIR"]
TOKEN = open(DIR + "/token").read()
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(DIR + "/socket")
    return s
def ask(s, data):
    s.sendall(data if isinstance(data, bytes) else data.encode())
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
def fine():
    return "fine" in ask(connect(), request())
]]

local function hostile(script, over, job)
  return engines.python(RAW .. script, over, job)
end

-- Pids of living processes whose command line holds a word.
local function alive(word)
  local found = {}
  for _, pid in ipairs(fs.list("/proc") or {}) do
    if pid:find("^%d+$") then
      local line = helper.read("/proc/" .. pid .. "/cmdline") or ""
      local state = (helper.read("/proc/" .. pid .. "/stat") or ""):match("%) (%a)")
      if line:find(word, 1, true) and state ~= "Z" then
        found[#found + 1] = pid
      end
    end
  end
  return found
end

local unique = 0
local function word()
  unique = unique + 1
  return ("31%d%d.%d"):format(unique, os.time() % 100000, 7)
end

describe("a hostile peer of the socket", function()
  it("without the token gets an error and nothing else", function()
    local result = hostile([[
print(ask(connect(), request(token="0" * 64)))
print(ask(connect(), request(token="")))
print(ask(connect(), request(token=TOKEN[:-1])))
s = connect()
ask(s, request(token="x"))
try:
    print(ask(s, request()))
except OSError:
    print("closed")
print(fine())
]])
    assert.equal("", result.stderr)
    assert.equal(3, select(2, result.output:gsub('"denied"', "")))
    assert.matches("closed\nTrue\n$", result.output)
    assert.equal(1, result.tool_calls_made)
  end)

  it("that sends garbage gets an error for each line", function()
    local result = hostile([[
s = connect()
for line in [b"garbage\n", b"\n", b"\xff\xfe\n", b"{}\n", b"[]\n", b"null\n", b"1\n", b'"x"\n',
             b"[" * 100000 + b"\n", b'{"a":1,"a":2}\n', b'{"id":1,"tool":2,"args":{},"token":""}\n',
             request(args=[]), request(id=None), request(id=1.5), request(id="x" * 65),
             request(tool="y" * 129), request(more=1), request().replace(" ", "\0"),
             '{"id": NaN}\n', '{"id": 1e999}\n', '{"id":"\\ud800"}\n']:
    answer = json.loads(ask(s, line))
    assert "error" in answer and answer["error"]["kind"] == "protocol", (line[:40], answer)
print(fine(), "fine" in ask(s, request()))
]])
    assert.equal("", result.stderr)
    assert.equal("True True\n", result.output)
  end)

  it("that sends half a line and leaves harms nobody", function()
    local result = hostile([[
for i in range(50):
    s = connect()
    s.sendall(request().encode()[:37])
    s.close()
half = connect()
half.sendall(request().encode()[:50])
print(fine())
half.sendall(request().encode()[50:])
print("fine" in half.recv(65536).decode())
]])
    assert.equal("", result.stderr)
    assert.equal("True\nTrue\n", result.output)
    assert.equal(2, result.tool_calls_made)
  end)

  it("that sends a line of a gigabyte is cut off", function()
    local result = hostile([[
s = connect()
block = b"x" * (1 << 20)
sent = 0
try:
    while sent < 1 << 30:
        s.sendall(block)
        sent += len(block)
except OSError:
    pass
print(sent < 1 << 30, fine())
]])
    assert.equal("", result.stderr)
    assert.equal("True True\n", result.output)
  end)

  it("that opens 10,000 connections keeps nobody out for ever", function()
    local result = hostile([[
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
opened = 0
held = []
for i in range(10000):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(DIR + "/socket")
        held.append(s)
        opened += 1
        if len(held) > 600:
            held.pop(0).close()
    except OSError as problem:
        for s in held:
            s.close()
        held = []
for s in held:
    s.close()
time.sleep(0.2)
print(opened > 1000, fine())
]])
    assert.equal("", result.stderr)
    assert.equal("True True\n", result.output)
  end)

  it("that never reads its replies cannot grow the engine", function()
    local system = require("farcall.core.system")
    local before = system.rss_bytes()
    local result = hostile([[
s = connect()
s.settimeout(2)
try:
    for i in range(3000):
        s.sendall(request(tool="big", args={}).encode())
except OSError:
    pass
print(fine())
]], {
      enabled_tools = { "big", "terminal" }, limits = { max_calls = 100000 },
      tools = { big = {
        summary = "a megabyte", parameters = { type = "object", properties = {} },
        handler = function()
          return ("x"):rep(1000000)
        end,
      } },
    })
    assert.equal("", result.stderr)
    assert.equal("True\n", result.output)
    -- 256 calls may be in flight on one connection; sanitizers need their own share.
    assert.is_true(system.rss_bytes() - before < 1500e6)
  end)

  it("may use one id twice: each request gets its own reply", function()
    local result = hostile([[
s = connect()
s.sendall((request() * 3).encode())
data = b""
while data.count(b"\n") < 3:
    data += s.recv(65536)
print(data.count(b"fine"))
]])
    assert.equal("", result.stderr)
    assert.equal("3\n", result.output)
  end)
end)

describe("a hostile script", function()
  it("with a syntax error ends with the interpreter's words", function()
    local result = engines.python("def f(:\n")
    assert.equal("error", result.status)
    assert.equal(1, result.exit_code)
    assert.matches("SyntaxError", result.stderr)
  end)

  it("may write 100 MB: head and tail come home, the rest is counted", function()
    local result = engines.python([[
import sys
print("first line")
for i in range(100):
    sys.stdout.write("x" * 1000000)
print("\nlast line")
]])
    assert.equal("success", result.status)
    assert.is_true(#result.output <= 51000)
    assert.matches("^first line", result.output)
    assert.matches("last line\n$", result.output)
    assert.equal(100000000 + 22, result.stdout_bytes_total)
    assert.is_true(result.stdout_bytes_omitted > 99000000)
    assert.is_true(#helper.read(result.spill_path) <= 5000000)
  end)

  it("may write invalid UTF-8 and terminal escapes: text comes home", function()
    local result = engines.python([[
import sys
sys.stdout.buffer.write(b"a\xff\xfeb \x1b[31mred\x1b[0m \x1b]0;title\x07 \xe2\x82")
]])
    assert.equal("success", result.status)
    assert.matches("^a\239\191\189", result.output)
    assert.matches("red", result.output)
    assert.is_nil(result.output:find("\27", 1, true))
    assert.is_nil(result.output:find("title", 1, true))
  end)

  it("may print a secret: it does not come home", function()
    local secret = "ghp_" .. ("aB3dE5gH7jK9"):rep(3)
    local result = engines.python(("print('token', '%s')"):format(secret))
    assert.is_nil(result.output:find(secret, 1, true))
    assert.matches("^token ", result.output)
  end)

  it("that closes its streams runs on until it ends", function()
    local result = engines.python([[
import os
from farcall import terminal
os.close(1)
os.close(2)
terminal("true")
os._exit(5)
]])
    assert.equal(5, result.exit_code)
    assert.equal(1, result.tool_calls_made)
  end)

  it("that forks, daemonizes and ignores TERM leaves nobody", function()
    local mark = word()
    local result = engines.python(([[
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "%s"])
subprocess.Popen(["setsid", "sleep", "%s"])
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep %s & wait"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "%s"])
    os._exit(0)
def words(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return ""  # somebody else's that has just ended
last, count = time.monotonic() + 20, 0
while count < 5 and time.monotonic() < last:
    count = sum("%s" in words(p) for p in os.listdir("/proc") if p.isdigit())
print(count)
]]):format(mark, mark, mark, mark, mark))
    assert.equal("success", result.status)
    -- Four sleepers and the shell of one of them were alive.
    assert.equal("5\n", result.output)
    assert.same({}, alive(mark))
  end)

  it("that ignores TERM is killed at its deadline, with all its children", function()
    local mark = word()
    local result = engines.python(([[
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep %s; :"])
print("up", flush=True)
while True:
    time.sleep(1)
]]):format(mark), nil, { timeout = 5 })
    assert.equal("timeout", result.status)
    assert.equal("up\n", result.output)
    assert.same({}, alive(mark))
  end)

  it("whose background child holds the output does not hold the result", function()
    local mark = word()
    local began = task.now()
    local result = engines.python(([[
import subprocess
subprocess.Popen(["sleep", "%s"])
print("done")
]]):format(mark))
    assert.equal("success", result.status)
    assert.equal("done\n", result.output)
    assert.is_true(task.now() - began < 25)
    assert.same({}, alive(mark))
  end)

  it("that writes past its file size limit gets its signal or error", function()
    local dir = helper.scratch()
    local result = engines.python(([[
try:
    with open("%s/big", "wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 100000)
except OSError as problem:
    print(problem.errno)
]]):format(dir), { backends = { ["local"] = { use = "local",
      options = { fsize = 1000000 } } } })
    assert.equal("27\n", result.output)
    assert.equal(1000000, fs.stat(dir .. "/big").size)
  end)

  it("with an unknown interpreter is refused", function()
    local dir = helper.scratch()
    helper.write(dir .. "/klingon.lua", [[
return {
  language = "klingon", extensions = { "kl" }, interpreter = { "klingon7", "klingon" },
  render = function() return { { name = "x", text = "x" } } end,
}]])
    engines.with({ stub_path = { dir } }, function(one)
      local result = assert(one:run({ script = "print(1)", language = "klingon" }))
      assert.equal("error", result.status)
      assert.equal("not_found", result.error_kind)
      assert.matches("klingon7", result.error)
    end)
  end)
end)

local function tool(handler)
  return { summary = "for a spec", parameters = { type = "object", properties = {} },
    handler = handler }
end

describe("a bad tool", function()
  it("that returns what JSON cannot hold fails its call", function()
    local result = engines.python([[
from farcall import call, ToolError
for name in ["closure", "nan", "bytes", "fine"]:
    try:
        print(name, call(name))
    except ToolError as error:
        print(name, error.kind)
]], {
      enabled_tools = { "closure", "nan", "bytes", "fine" },
      tools = {
        closure = tool(function()
          return print
        end),
        nan = tool(function()
          return { 0 / 0 }
        end),
        bytes = tool(function()
          return "\255"
        end),
        fine = tool(function()
          return "fine"
        end),
      },
    })
    assert.equal("closure failed\nnan failed\nbytes failed\nfine fine\n", result.output,
      result.stderr)
    assert.equal("failed", result.calls[1].outcome)
  end)

  it("that holds the loop is stopped, and the other calls are served", function()
    local dir = helper.scratch()
    -- Its own file, as an operator's would be: loaded without the compiler, so it can be stopped.
    helper.write(dir .. "/stuck.lua", [[
return {
  name = "stuck", summary = "loops", parameters = { type = "object", properties = {} },
  handler = function()
    while true do
      pcall(function() while true do end end)
    end
  end,
}
]])
    local result = engines.python([[
from farcall import call, terminal, ToolError
try:
    call("stuck")
except ToolError as error:
    print(error.kind, error.message)
print(terminal("echo on")["output"])
]], { tool_path = { dir }, enabled_tools = { "stuck", "terminal" } })
    assert.matches("failed [^\n]*stuck%.lua:%d+", result.output, result.stderr)
    assert.matches("\non\n", result.output)
  end)
end)

describe("a bad policy", function()
  local function with_policy(body)
    local dir = helper.scratch()
    local path = helper.write(dir .. "/bad.lua",
      'return { name = "bad", summary = "bad", before = function(call, ctx)\n' .. body .. "\nend }")
    return engines.python([[
from farcall import terminal, ToolError
try:
    print(terminal("echo ran"))
except ToolError as error:
    print(error.kind, error.message)
]], { policies = { { path = path, options = {} } } })
  end

  local CASES = {
    ["raises"] = 'error("no such luck")',
    ["indexes nil"] = "return call.nothing.here",
    ["returns nothing"] = "local x = 1",
    ["returns nonsense"] = "return 42",
    ["loops"] = "while true do end",
    ["loops in what would be compiled"] =
      "local n = 0 for i = 1, 1e12 do n = n + i end return allow()",
    ["loops under pcall"] = "while true do pcall(function() while true do end end) end",
    ["loops in an error handler"] =
      "xpcall(error, function() while true do end end) while true do end",
    ["runs a catastrophic pattern"] =
      'return ("a"):rep(30000):find(("a-"):rep(8) .. "b") and allow() or allow()',
    ["eats memory"] = "local t = {} for i = 1, 1e9 do t[i] = {} end return allow()",
    ["builds a huge string"] = 'local s = ("x"):rep(1e9) return allow()',
    ["recurses"] = "local function f() return 1 + f() end return f()",
    ["reaches for the system"] = 'os.execute("true") return allow()',
    ["loads code"] = 'return load("return 1")()',
  }
  for name, body in pairs(CASES) do
    it("that " .. name .. " refuses the call and names its place", function()
      local result = with_policy(body)
      assert.equal("success", result.status, result.stderr)
      assert.matches("^refused [^\n]*bad%.lua:%d", result.output)
      assert.equal(0, result.tool_calls_made)
      assert.equal("refused", result.calls[1].outcome)
    end)
  end

  it("of one run does not disturb another", function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/greedy.lua", [[
return { name = "greedy", summary = "eats", before = function(call)
  if call.arguments.command == "eat" then
    local t = {} for i = 1, 1e9 do t[i] = {} end
  end
  return allow()
end }
]])
    engines.with({ policies = { { path = path, options = {} } } }, function(one)
      local runs = {}
      for i = 1, 4 do
        runs[i] = task.spawn(function()
          return assert(one:run({ language = "python", script = ([[
from farcall import terminal, ToolError
for i in range(5):
    try:
        print(terminal("%s")["output"].strip())
    except ToolError as error:
        print(error.kind)
]]):format(i == 1 and "eat" or "echo ok") }))
        end)
      end
      for i, run in ipairs(runs) do
        local _, result = run:join()
        assert.equal((i == 1 and "refused\n" or "ok\n"):rep(5), result.output, result.stderr)
      end
    end)
  end)
end)
