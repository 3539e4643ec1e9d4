-- SPDX-License-Identifier: MIT
-- A far side whose runner sends anything: its run ends with an error that has a kind, and other
-- runs in the same engine do not notice.

local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local runner = require("farcall.clients.runner")
local system = require("farcall.core.system")
local task = require("farcall.task")

local PATIENCE = 100

-- The runner that is found in the directory of programs: the honest one, or what lies where it is
-- started.
local DOOR = [[
import os, sys
if os.path.exists("hostile.py"):
    with open("hostile.py") as file:
        exec(compile(file.read(), "hostile.py", "exec"))
else:
    with open(%q, "rb") as file:
        t = file.read()
    exec(compile(t.split(b"\f")[0], "farcall-runner", "exec"))
]]

-- What every hostile runner has: the frames, and an honest answer to all that it is asked, but for
-- what a case puts in its place. `program` says what comes of an exec.
local RUNNER = [[
import os, sys, time
OPEN, DATA, END, WINDOW, RESET, ACK, PING, PONG = range(1, 9)
verb, mark = sys.argv[1:3]

def out(data):
    while data:
        data = data[os.write(1, data):]

def say(words):
    out("\n{} {}\n".format(mark, words).encode())

def hello():
    say("hello 1 {} {} ? {} -".format(os.getpid(), os.getuid(), os.uname().machine))
    while os.read(0, 1) not in (b"\n", b""):
        pass

def frame(number, kind, payload=b"", size=None):
    size = len(payload) if size is None else size
    return number.to_bytes(4, "big") + bytes([kind]) + size.to_bytes(3, "big") + payload

def data(number, payload):
    return b"".join(frame(number, DATA, payload[at:at + 32768])
                    for at in range(0, len(payload), 32768))

def last(number, payload):
    out(data(number, payload) + frame(number, END))

def exactly(size):
    got = b""
    while len(got) < size:
        piece = os.read(0, size - len(got))
        if not piece:
            os._exit(0)
        got += piece
    return got

def silence():
    while os.read(0, 65536):
        pass
    os._exit(0)

def program(control, output, errors):
    out(data(control, b"level subreaper\nstarted 4242\n"))
    last(output, b"fine\n")
    last(errors, b"")
    last(control, b"exited 0\ngone\n")

def answer(number, words):
    if words[0] == b"mkdir":
        out(data(number, b"ok /tmp/farcall-run-none\n"))
    elif words[0] == b"listen":
        globals()["listener"] = number
        out(data(number, b"ok\n"))
    elif words[0] == b"put":
        last(number, b"ok\n")
    elif words[0] == b"exec":
        program(number, int(words[1]), int(words[2]))
    elif words[0] == b"quit":
        os._exit(0)

def heard(number, kind, payload):
    pass

def serve():
    while True:
        head = exactly(8)
        number, kind = int.from_bytes(head[:4], "big"), head[4]
        payload = exactly(int.from_bytes(head[5:], "big"))
        if kind == OPEN:
            answer(number, payload.split(b"\0")[:-1])
        elif kind == PING:
            out(frame(0, PONG))
        heard(number, kind, payload)
]]

local function after_hello(code)
  return "hello()\n" .. code .. "\nserve()"
end

-- What a program's supervisor says instead of what it should.
local function says(lines)
  return ([[
def program(control, output, errors):
    out(data(control, %s))
hello()
serve()]]):format(lines)
end

-- A far side that connects to the run's socket and says something there; its output is the answers.
local function connects(count, lines)
  return ([[
answers, place, asked = [], [], %d
def program(control, output, errors):
    place.extend((control, output, errors))
    out(data(control, b"level subreaper\nstarted 4242\n"))
    for i in range(asked):
        out(frame(2 * i + 1, OPEN, b"accepted\0%%d\0001\0%%d\0" %% (listener, os.getuid())))
        out(%s)
def heard(number, kind, payload):
    if number & 1 and kind in (DATA, RESET):
        answers.append(payload)
        if len(answers) == asked:
            last(place[1], b"\n".join(answers))
            last(place[2], b"")
            last(place[0], b"exited 0\ngone\n")
hello()
serve()]]):format(count, lines)
end

-- What it sends; how its run ends: kind of the error, or status; a part of the output; and whether
-- nothing but its deadline ends it.
local CASES = {
  -- Before and in the hello.
  ["ends at once"] = { "os._exit(0)", "unsupported" },
  ["sends noise without end instead of a hello"] = { [[
for i in range(64):
    out(b"noise\n" * 8192)
silence()]], "unsupported" },
  ["speaks another version"] = { 'say("hello 2 1 1 ? x86_64 -")\nsilence()', "protocol" },
  ["has a hello without words"] = { 'say("hello")\nsilence()', "protocol" },
  ["says something else than hello"] = { 'say("welcome")\nsilence()', "protocol" },
  ["wants a program that there is not"] = { 'say("send vax")\nsilence()', "protocol" },
  ["does not say hello"] = { "silence()", "timeout" },
  ["says hello amid noise"] = { [[
out(os.urandom(65536) + b"\n" + mark.encode() + b"hello\n")
sys.stderr.write("noise" * 1000)
hello()
serve()]], "success" },
  -- Frames.
  ["sends noise for frames"] = { after_hello('out(b"\\xff" * 100000)'), "protocol" },
  ["sends text for frames"] = { after_hello('out(b"Segmentation fault\\n" * 9)'), "protocol" },
  ["sends an unknown type"] = { after_hello("out(frame(0, 9))"), "protocol" },
  ["sends a type of nothing"] = { after_hello("out(b'\\0' * 8)"), "protocol" },
  ["sends a length beyond all"] = { after_hello("out(frame(2, DATA, b'', 0xffffff))"), "protocol" },
  ["sends a length that a type has not"] = { after_hello("out(frame(0, ACK, b'1'))"), "protocol" },
  ["acknowledges what was not sent"] = {
    after_hello("out(frame(0, ACK, b'\\x7f' * 8))"), "protocol" },
  ["answers what nobody asked"] = { after_hello("out(frame(0, PONG))"), "protocol" },
  ["sends to a channel that never was"] = { after_hello("out(data(2000, b'x'))"), "protocol" },
  ["opens a channel with a number of the engine's"] = {
    after_hello("out(frame(2, OPEN, b'accepted\\0'))"), "protocol" },
  ["opens one number twice"] = { after_hello("out(frame(1, OPEN, b'a\\0') * 2)"), "protocol" },
  ["grants more than there is"] = { [[
def answer(number, words):
    out(frame(number, WINDOW, b"\xff" * 4) * 2)
hello()
serve()]], "protocol" },
  ["sends beyond the window"] = { [[
def program(control, output, errors):
    out(data(output, b"x" * (3 << 20)))
hello()
serve()]], "protocol" },
  ["sends after its end"] = { [[
def answer(number, words):
    out(frame(number, END) + data(number, b"ok\n"))
hello()
serve()]], "protocol" },
  ["resets all that it is asked"] = { [[
def answer(number, words):
    out(frame(number, RESET))
hello()
serve()]], "protocol" },
  ["ends in the middle of a frame"] = { [[
def answer(number, words):
    out(data(number, b"ok /tmp")[:11])
    os._exit(3)
hello()
serve()]], "lost" },
  -- Answers.
  ["answers with a line without end"] = { [[
def answer(number, words):
    out(data(number, b"ok " + b"/" * 60000))
hello()
serve()]], "protocol" },
  ["answers with what is none"] = { [[
def answer(number, words):
    last(number, b"okay\n")
hello()
serve()]], "protocol" },
  ["answers with errors that there are not"] = { [[
def answer(number, words):
    last(number, b"error x 99999999999999999999\n")
hello()
serve()]], "protocol" },
  ["names no directory"] = { [[
def answer(number, words):
    last(number, b"ok ../x\n")
hello()
serve()]], "protocol" },
  ["never answers"] = { after_hello("silence()"), "timeout" },
  -- Control lines.
  ["tells of a start that is none"] = { says('b"started x\\n"'), "protocol" },
  ["tells of an end that is none"] = { says('b"started 1\\nexited zero\\n"'), "protocol" },
  ["tells of an end beyond all numbers"] = {
    says('b"started 1\\nexited 99999999999999999999\\n"'), "protocol" },
  ["tells of a signal that is none"] = { says('b"started 1\\nsignalled -9\\n"'), "protocol" },
  ["tells of no failure"] = { says('b"exec-failed\\n"'), "protocol" },
  ["tells of a failure of no number"] = { says('b"exec-failed exec ENOENT\\n"'), "protocol" },
  ["tells of a directory that was not asked for"] = {
    says('b"exec-failed cwd 2\\ngone\\n"'), "not_found" },
  ["tells of left processes that are none"] = { says('b"started 1\\nleft many\\n"'), "timeout" },
  ["says a control line without end"] = { says('b"started 1\\n" + b"x" * 60000'), "protocol" },
  ["says what means nothing"] = { says('b"started 1\\n\\0\\xff\\n"'), "protocol" },
  ["starts and says nothing more"] = { says('b"started 1\\n"'), "lost", nil, true },
  ["says that a program has gone and sends on"] = { [[
def program(control, output, errors):
    out(data(control, b"level subreaper\nstarted 1\nexited 0\ngone\n"))
    out(frame(control, END) + data(output, b"half a li"))
hello()
serve()]], "timeout" },
  -- Connections.
  ["tells of connections of no listener"] = { [[
def program(control, output, errors, honest=program):
    for i in range(3000):
        out(frame(2 * i + 1, OPEN, (b"accepted\0%d\0001\0001\0" % (2 * i), b"", b"x", b"\0" * 99,
                                   b"accepted\0x\0y\0z\0")[i % 5]))
    honest(control, output, errors)
hello()
serve()]], "success" },
  ["opens more connections than there can be"] = {
    connects(1500, 'b""'):gsub('len%(answers%) == asked', "len(answers) == 1"), "success" },
  ["asks with bombs"] = { connects(6, [[data(2 * i + 1, (b"[" * 60000, b'{"a":' * 10000,
            b'{"id":' + b"9" * 60000 + b"}", b"\xff" * 50000, b"null", b'"' + b"\\u0000" * 9000,
            )[i] + b"\n")]]), "success", "protocol" },
  -- Floods, in the measure of a test.
  ["asks for signs of life and reads none"] = {
    after_hello("out(frame(0, PING) * 200000)"), "success" },
  ["opens and opens and reads no answer"] = {
    "hello()\nfor i in range(1400):\n"
    .. "    out(b''.join(frame(2 * (1000 * i + j) + 1, OPEN) for j in range(1000)))\nsilence()",
    "protocol" },
  ["sends output without end and without a newline"] = { [[
def program(control, output, errors):
    out(data(control, b"level subreaper\nstarted 1\n"))
    globals()["output"] = output
    out(data(output, b"x" * 1000000))
def heard(number, kind, payload):
    if kind == WINDOW and number == globals().get("output"):
        out(data(number, b"x" * int.from_bytes(payload, "big")))
hello()
serve()]], "lost", nil, true },
}

local SCRIPT = "print('never runs where it matters')"

-- A script that stops the honest runner that carries it, or who holds the script for that.
local STOPS = [[
import os, signal, time
holder = os.getppid()
with open("/proc/%%d/stat" %% holder) as file:
    runner = int(file.read().rsplit(")", 1)[1].split()[1])
with open("/proc/%%d/cmdline" %% runner, "rb") as file:
    assert b"serve" in file.read().split(b"\0")
print("stops", flush=True)
time.sleep(0.5)
os.kill(%s, signal.SIGSTOP)
time.sleep(1000)
]]
for _, who in ipairs({ "runner", "holder" }) do
  CASES["is honest and has its " .. who .. " stopped"] = { false, "lost", "stops", true,
    script = STOPS:format(who) }
end

-- Makes calls as long as the file is there.
local HONEST = [[
import os, time
from farcall import terminal
made = 0
print("up", flush=True)
while os.path.exists(%q):
    assert terminal(command="echo " + str(made))["output"] == str(made) + "\n"
    made += 1
    time.sleep(0.05)
print("fine", made >= 3)
]]

local function with_engine(body)
  local root = helper.scratch()
  local config = engines.config()
  local honest = config.runner_dir .. "/runner.py"
  assert(fs.mkdir(root .. "/programs", 448))
  helper.write(root .. "/programs/runner.py", DOOR:format(assert(fs.realpath(honest))))
  local backends, names = {}, {}
  assert(fs.mkdir(root .. "/honest", 448))
  backends.honest = { use = "local", options = { cwd = root .. "/honest" } }
  for title, case in pairs(CASES) do
    local name = "hostile" .. (#names + 1)
    names[#names + 1] = { name = name, title = title, case = case,
      brief = case[2] == "timeout" or case[4] }
    assert(fs.mkdir(root .. "/" .. name, 448))
    if case[1] then
      helper.write(root .. "/" .. name .. "/hostile.py", RUNNER .. case[1])
    end
    backends[name] = { use = "local",
      options = { cwd = root .. "/" .. name, tree = "subreaper" } }
  end
  -- Those that take longest first.
  table.sort(names, function(a, b)
    return a.brief and not b.brief
  end)
  return engines.with({
    backends = backends, runner_dir = root .. "/programs", runner_forms = { "python" },
    limits = { sessions = 200, max_calls = 100000 },
  }, function(one)
    return body(one, names, root)
  end)
end

describe("a runner that means harm", function()
  it("gets an error for its run, and all others go on", function()
    local before, wrong, bystander = system.rss_bytes(), {}, nil
    with_engine(function(one, names, root)
      local flag = helper.write(root .. "/flag", "")
      local seen = ""
      local beside = task.spawn(function()
        return one:run({
          script = HONEST:format(flag), language = "python", backend = "honest",
          transport = "stream", timeout = PATIENCE, max_calls = 100000,
        }, { stdout = function(text)
          seen = seen .. text
        end })
      end)
      assert(helper.eventually(function()
        return seen:find("up") or beside:done()
      end, 30))
      local running = {}
      local permits = task.semaphore(16)
      for _, entry in ipairs(names) do
        running[#running + 1] = task.spawn(function()
          permits.acquire()
          local result, err = one:run({
            script = entry.case.script or SCRIPT, language = "python", backend = entry.name,
            transport = "stream", timeout = entry.brief and 2 or 60,
          })
          permits.release()
          local got = result and (result.status == "error" and result.error_kind or result.status)
            or err.kind
          local told = ("%s: %s (%s) %s"):format(entry.title, got,
            result and tostring(result.error) or tostring(err), result and result.output or "")
          local wanted, says_so = entry.case[2], entry.case[3]
          if got ~= wanted or says_so and not result.output:find(says_so, 1, true) then
            wrong[#wrong + 1] = told:sub(1, 300)
          end
        end)
      end
      for _, one_task in ipairs(running) do
        local ok, failure = one_task:join()
        if not ok then
          wrong[#wrong + 1] = "raised: " .. tostring(failure)
        end
      end
      assert(fs.unlink(flag))
      local ok, result, err = beside:join()
      assert(ok, tostring(result))
      bystander = assert(result, err)
    end)
    assert.same({}, wrong)
    assert.equal("success", bystander.status, bystander.error)
    assert.equal("up\nfine True\n", bystander.output)
    -- Sanitizers need their own share.
    assert.is_true(system.rss_bytes() - before < 600e6)
  end)

  -- A link that it cuts, and then what it says it has received and sent.
  for answer, kind in pairs({
    ["resumed 99999999"] = "protocol", ["resumed -1"] = "protocol", ["resumed"] = "protocol",
    ["resumed 0\n\255\255\255\255\255\255\255\255"] = "protocol", ["none at all"] = "lost",
  }) do
    it(("is not believed that it has %s"):format(answer:gsub("%c.*", " and noise")), function()
      local dir = helper.scratch()
      local words = answer:gsub("\n", "\\n"):gsub("\255", "\\xff")
      helper.write(dir .. "/runner.py", RUNNER .. ([[
if verb == "attach":
    out(b"\n" + mark.encode() + b" %s\n")
    silence()
hello()
time.sleep(0.2)
raise SystemExit(1)]]):format(words))
      engines.with({}, function(engine)
        local one = assert(runner.start(assert(engine:environment("local")).inner, {
          dir = dir, forms = { "python" }, grace = 2, here = false,
        }))
        assert(helper.eventually(function()
          return not one:alive()
        end, 60), "it is believed")
        assert.equal(kind, one.failure.kind, tostring(one.failure))
        local directory, err = one:directory({ "/tmp" })
        assert.is_nil(directory)
        assert.equal(kind, err.kind)
        one:close()
      end)
    end)
  end
end)
