-- SPDX-License-Identifier: MIT
local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local kept_runs = require("farcall.runs")
local task = require("farcall.task")

local function tool(handler, parameters, more)
  local spec = {
    summary = "for a spec", handler = handler,
    parameters = parameters or { type = "object", properties = {}, additionalProperties = true },
  }
  for key, value in pairs(more or {}) do
    spec[key] = value
  end
  return spec
end

describe("engine", function()
  it("runs a script and brings its output home, streams apart", function()
    local result = engines.python("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    assert.equal("success", result.status)
    assert.equal(0, result.exit_code)
    assert.equal("out\n", result.output)
    assert.equal("err\n", result.stderr)
    assert.equal(0, result.tool_calls_made)
    assert.equal("uds", result.transport)
    assert.equal("local", result.backend)
  end)

  it("keeps the result of a run that is cancelled", function()
    engines.with({}, function(one, cfg)
      local own = task.spawn(one.run, one, { script = "sleep 60", language = "sh" })
      repeat
        task.sleep(0.02)
      until next(one.runs)
      own:cancel()
      local ok, err = own:join()
      assert.is_false(ok)
      assert.equal("cancelled", err.kind)
      local ids = fs.list(cfg.state_dir .. "/runs")
      assert.equal(1, #ids)
      local result = assert(kept_runs.read(cfg.state_dir, ids[1])).result
      assert.equal("error", result.status)
      assert.equal("cancelled", result.error_kind)
    end)
  end)

  it("tells the exit code exactly", function()
    for _, code in ipairs({ 1, 2, 124, 125, 126, 127, 128, 130, 255 }) do
      local result = engines.python(("import sys; sys.exit(%d)"):format(code))
      assert.equal(code, result.exit_code)
      assert.equal("error", result.status)
    end
  end)

  it("tells the signal that ended the script", function()
    local result = engines.python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert.equal("SEGV", result.signal)
    assert.is_nil(result.exit_code)
  end)

  it("serves tools and lists the calls", function()
    local dir = helper.scratch()
    local result = engines.python(([[
from farcall import terminal, read_file, write_file
write_file("%s/x.txt", "hello\n")
print(read_file("%s/x.txt")["content"])
print(terminal("exit 3")["exit_code"])
]]):format(dir, dir))
    assert.equal("", result.stderr)
    assert.equal("success", result.status)
    assert.matches("hello", result.output)
    assert.matches("3", result.output)
    assert.equal(3, result.tool_calls_made)
    assert.equal("write_file", result.calls[1].tool)
    assert.equal("done", result.calls[1].outcome)
    assert.is_true(result.calls[1].duration > 0)
    assert.matches("x%.txt", result.calls[1].arguments)
  end)

  it("carries calls out side by side, up to the limit", function()
    local flying, most = 0, 0
    local cfg = {
      enabled_tools = { "slow" }, limits = { parallel_calls = 4, max_calls = 100 },
      tools = { slow = tool(function(_, ctx)
        flying = flying + 1
        most = math.max(most, flying)
        ctx.sleep(0.02)
        flying = flying - 1
        return true
      end) },
    }
    local result = engines.python([[
from farcall import parallel, call
print(len(parallel([(call, ("slow",)) for _ in range(20)])))
]], cfg)
    assert.equal("", result.stderr)
    assert.equal("20\n", result.output)
    assert.equal(4, most)
  end)

  it("keeps the budget, whatever runs in parallel", function()
    local result = engines.python([[
from farcall import call, ToolError, remaining
from concurrent.futures import ThreadPoolExecutor
def one(_):
    try:
        return call("nap")
    except ToolError as error:
        return error.kind
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(one, range(20)))
print(answers.count(True), answers.count("limit"), remaining()["calls"])
]], {
      enabled_tools = { "nap" }, limits = { max_calls = 7 },
      tools = { nap = tool(function(_, ctx)
        ctx.sleep(0.01)
        return true
      end) },
    })
    assert.equal("", result.stderr)
    assert.equal("7 13 0\n", result.output)
    assert.equal(7, result.tool_calls_made)
  end)

  it("lets a job lower the operator's budget and not raise it", function()
    local script = "from farcall import remaining\nprint(remaining()['calls'])"
    local limits = { max_calls = 7 }
    for _, case in ipairs({ { true, 100, 7 }, { true, 3, 3 }, { false, 100, 100 } }) do
      local result = engines.python(script, { limits = limits, max_calls_fixed = case[1] },
        { max_calls = case[2] })
      assert.equal(case[3] .. "\n", result.output)
    end
  end)

  it("gives each failure its kind and its outcome", function()
    local result = engines.python([[
from farcall import call, ToolError
for name, args in [("raises", {}), ("fails", {}), ("none", {}), ("typed", {"n": "x"}),
                   ("typed", {"m": 1}), ("nosuch", {})]:
    try:
        print(name, call(name, **args))
    except ToolError as error:
        print(name, error.kind, error.message)
]], {
      enabled_tools = { "raises", "fails", "none", "typed" },
      tools = {
        raises = tool(function()
          error("kaputt")
        end),
        fails = tool(function()
          return nil, "not today"
        end),
        none = tool(function() end),
        typed = tool(function()
          return 1
        end, { type = "object", properties = { n = { type = "integer" } },
          additionalProperties = false }),
      },
    })
    local outcomes = {}
    for i, record in ipairs(result.calls) do
      outcomes[i] = record.outcome
    end
    assert.same({ "failed", "failed", "failed", "refused", "refused", "refused" }, outcomes)
    assert.matches("raises failed .-engine_spec.lua:%d+: kaputt", result.output)
    assert.matches("fails failed not today", result.output)
    assert.matches("typed usage [^\n]*n[^\n]*integer", result.output)
    assert.matches("typed usage [^\n]*m", result.output)
    assert.matches("nosuch [^\n]*nosuch", result.output)
  end)

  it("ends a script at its deadline with what it had written and called", function()
    local began = task.now()
    local result = engines.python([[
from farcall import terminal
print("before", flush=True)
terminal("true")
import time
time.sleep(60)
]], nil, { timeout = 4 })
    assert.equal("timeout", result.status)
    assert.equal("before\n", result.output)
    assert.equal(1, #result.calls)
    assert.matches("4 s", result.error)
    assert.is_true(task.now() - began < 30)
  end)

  it("marks a call that was in flight at the end as unknown", function()
    local result = engines.python("from farcall import call\ncall('slow')", {
      enabled_tools = { "slow" }, tools = { slow = tool(function(_, ctx)
        ctx.sleep(60)
      end) },
    }, { timeout = 3 })
    assert.equal("timeout", result.status)
    assert.equal("unknown", result.calls[1].outcome)
  end)

  it("is interrupted on request", function()
    local result = engines.with(nil, function(one)
      local run = task.spawn(function()
        return assert(one:run({ script = "import time\nprint(1, flush=True)\ntime.sleep(60)",
          language = "python" }, { stdout = function()
          one:interrupt("INT")
        end }))
      end)
      return select(2, run:join())
    end)
    assert.equal("interrupted", result.status)
    assert.equal("1\n", result.output)
  end)

  it("gives up a call whose caller has gone, and no other", function()
    local result = engines.python([[
import os, signal, time
from farcall import terminal
caller = os.fork()
if caller == 0:
    terminal("sleep 1234")
    os._exit(0)
while "sleep 1234" not in terminal("ps ax -o args")["output"]:
    time.sleep(0.05)
os.kill(caller, signal.SIGKILL)
os.waitpid(caller, 0)
while "sleep 1234" in terminal("ps ax -o args | grep -v grep")["output"]:
    time.sleep(0.05)
print("gone")
]], { limits = { max_calls = 1000, timeout = 50 } }, { options = { tree = "subreaper" } })
    assert.equal("gone\n", result.output, result.stderr)
    local unknown = {}
    for _, call in ipairs(result.calls) do
      if call.outcome ~= "done" then
        unknown[#unknown + 1] = call.outcome .. ": " .. call.error
      end
    end
    assert.equal(1, #unknown)
    assert.matches("unknown: .*its caller has gone", unknown[1])
  end)

  it("leaves no directory of a run behind", function()
    engines.with(nil, function(one, cfg)
      assert(one:run({ script = "print(1)", language = "python" }))
      assert.same({}, fs.list(cfg.runtime_dir))
    end)
  end)

  it("keeps a journal that tells the same as the result", function()
    engines.with(nil, function(one, cfg)
      local result = assert(one:run({ language = "python",
        script = "from farcall import terminal\nterminal('true')" }))
      local kept = assert(kept_runs.read(cfg.state_dir, result.run_id))
      assert.equal("success", kept.result.status)
      local names = {}
      for _, event in ipairs(kept.events) do
        names[#names + 1] = event.event or event.name
      end
      assert.same({ "call", "reply" }, names)
    end)
  end)

  it("passes arguments, variables and the script's own name", function()
    local result = engines.python([[
import os, sys
print(sys.argv[1:], os.environ["GREETING"], os.path.basename(__file__))
1/0
]], nil, { args = { "a b", "$HOME", "" }, env = { GREETING = "hi" }, filename = "/x/my_job.py" })
    assert.equal("['a b', '$HOME', ''] hi my_job.py\n", result.output)
    assert.matches("my_job%.py", result.stderr)
  end)

  it("refuses a job that makes no sense before anything is started", function()
    engines.with(nil, function(one)
      local cases = {
        { { script = "" }, "usage", "empty" },
        { { script = "\n \n" }, "usage", "empty" },
        { { script = "print(1)\0" }, "usage", "NUL" },
        { { script = "x", backend = "nosuch" }, "not_found", "nosuch" },
        { { script = "x", backend = "local", options = { cdw = "/" } }, "config", "cwd" },
        { { script = "x", allow = { "termnal" } }, "usage", "terminal" },
        { { script = "x", language = "pythn" }, "not_found", "pythn" },
        { { script = "x", transport = "strem" }, "unsupported", "strem" },
        { { script = "x", policies = { { name = "alow", options = {} } } }, nil, "alow" },
      }
      for _, case in ipairs(cases) do
        local result, err = one:run(case[1])
        assert.is_nil(result)
        if case[2] then
          assert.equal(case[2], err.kind, tostring(err))
        end
        assert.matches(case[3], tostring(err))
      end
    end)
  end)

  it("runs sixteen scripts at once without mixing them up", function()
    engines.with(nil, function(one)
      local runs = {}
      for i = 1, 16 do
        runs[i] = task.spawn(function()
          return assert(one:run({ language = "python", script = ([[
from farcall import terminal
print([terminal("echo %d-" + str(i))["output"].strip() for i in range(5)])
]]):format(i) }))
        end)
      end
      for i, run in ipairs(runs) do
        local _, result = run:join()
        assert.equal(("['%d-0', '%d-1', '%d-2', '%d-3', '%d-4']\n"):format(i, i, i, i, i),
          result.output, result.stderr)
      end
    end)
  end)

  it("runs oneshots and tells their end exactly", function()
    engines.with(nil, function(one)
      local result = assert(one:exec({ command = "cat; echo err >&2; exit 7", stdin = "in" }))
      assert.same({ 7, "in", "err\n" }, { result.exit_code, result.stdout, result.stderr })
      result = assert(one:exec({ command = "kill -9 $$" }))
      assert.equal("KILL", result.signal)
      result = assert(one:exec({ command = "echo early; sleep 60", timeout = 2 }))
      assert.is_true(result.timed_out)
      assert.equal("early\n", result.stdout)
      local none, err = one:exec({ argv = { "/no/such/program" } })
      assert.is_nil(none)
      assert.equal("not_found", err.kind)
    end)
  end)
end)
