-- SPDX-License-Identifier: MIT
-- The contract: scripts with calls, by every transport that applies.

local assert = require("luassert")
local box = require("spec.backends.contract.box")
local busted = require("busted")
local helper = require("spec.helper")
local task = require("farcall.task")

local it = busted.it

local MIB = 1024 * 1024

-- A tool that gives back what it is given, and counts how often it was asked for each name.
local function new_tools()
  local count = {}
  return {
    echo = {
      name = "echo", summary = "Gives back.",
      parameters = { type = "object", additionalProperties = true },
      handler = function(args, ctx)
        local name = args.name or "none"
        count[name] = (count[name] or 0) + 1
        if args.wait then
          ctx.sleep(args.wait)
        end
        return args.text or name
      end,
    },
    fail = {
      name = "fail", summary = "Fails.", parameters = { type = "object", properties = {} },
      handler = function()
        return nil, "it is broken"
      end,
    },
  }, count
end

local ONE = [[
import os, sys
from farcall import echo, fail, ToolError
print(echo(name="one", text="h\u00e9 \"\\\n\U0001f600"), sys.argv[1:], os.environ["GIVEN"])
try:
    fail()
except ToolError as error:
    print(type(error).__name__)
print("to stderr", file=sys.stderr)
sys.exit(7)
]]

local EIGHT = [[
import threading
from farcall import echo
good = []
def caller(n):
    for i in range(6):
        name = "%d-%d" % (n, i)
        if echo(name=name, text=name * 50) == name * 50:
            good.append(name)
threads = [threading.Thread(target=caller, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(set(good)))
]]

local SIZES = [[
from farcall import echo
for size in (0, 1, 1 << 20):
    assert echo(name=str(size), text="x" * size) == "x" * size, size
print("good")
]]

local HUGE = [[
from farcall import echo
size = (64 << 20) - 300
back = echo(name="huge", text="x" * size)
print(len(back), set(back))
]]

local WHERE = [[
import os
from farcall import terminal, write_file, read_file
path = "/tmp/farcall-contract-%s" % os.environ["CONTRACT_MARK"]
write_file(path=path, content="by a tool\n")
with open(path) as file: print(file.read(), end="")
print(terminal(command="cat %s; rm %s; exit 3" % (path, path))["exit_code"], os.path.exists(path))
]]

local STUBBORN = [[
import os, subprocess, time
from farcall import echo
echo(name="before")
print(os.environ.get("FARCALL_RUN_DIR", ""), flush=True)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1212; done"])
subprocess.Popen(["sleep", "2323"])
time.sleep(1000)
]]

local SH = [[
call echo name=first text="it's \"x\" \\ é"
for i in 1 2 3; do call echo name="n$i" > /dev/null; done
call nothing 2>/dev/null || echo refused
call -f exit_code terminal command='exit 5'
exit 9
]]

---@param setup spec.Contract
return function(setup)
  local function with(fn, limits)
    return function()
      local tools, count = new_tools()
      local merged = { max_calls = 1000 }
      for name, value in pairs(limits or {}) do
        merged[name] = value
      end
      box.with(setup, function(one)
        one.count = count
        return fn(one)
      end, {
        tools = tools, limits = merged,
        enabled_tools = { "echo", "fail", "terminal", "read_file", "write_file" },
      })()
    end
  end

  -- Ends with what the script printed; each call was carried out once.
  local function python(one, transport, script, more)
    local job = { script = script, language = "python", transport = transport, timeout = 300 }
    for key, value in pairs(more or {}) do
      job[key] = value
    end
    local result = one:run(job)
    assert.equal(transport, result.transport)
    for name, times in pairs(one.count) do
      assert.equal(1, times, name)
    end
    return result
  end

  it("runs a script in sh, which needs no more than there is", with(function(one)
    local before = one:temporary()
    local result = one:run({ script = SH, language = "sh", timeout = 120 })
    assert.equal("it's \"x\" \\ é\nrefused\n5\n", result.output, result.stderr)
    assert.same({ 9, "error" }, { result.exit_code, result.status })
    assert.same({ first = 1, n1 = 1, n2 = 1, n3 = 1 }, one.count)
    one:assert_gone()
    one:assert_no_new_temporary(before)
  end))

  if setup.python == false then
    it("says that it has no Python, and runs nothing", with(function(one)
      local before = one:temporary()
      local result = one:run({ script = "print(1)", language = "python" })
      assert.same({ "error", "not_found", "" }, { result.status, result.error_kind, result.output })
      one:assert_no_new_temporary(before)
    end))
    return
  end

  for _, transport in ipairs(setup.transports or { "file" }) do
    local by = " by " .. transport

    it("runs a script with a call" .. by, with(function(one)
      local before = one:temporary()
      local result = python(one, transport, ONE, {
        args = { "a b", "'\"$(id)\n" }, env = { GIVEN = "it's" },
      })
      assert.equal("hé \"\\\n😀 ['a b', '\\'\"$(id)\\n'] it's\nToolError\n", result.output,
        result.stderr)
      assert.equal("to stderr\n", result.stderr)
      assert.same({ 7, "error" }, { result.exit_code, result.status })
      assert.equal(1, one.count.one)
      one:assert_gone()
      one:assert_no_new_temporary(before)
    end))

    it("serves 8 callers at once" .. by, with(function(one)
      local result = python(one, transport, EIGHT)
      assert.equal("48\n", result.output, result.stderr)
      assert.equal(48, result.tool_calls_made)
      if result.execs then
        assert.is_true(result.execs <= 49, "execs: " .. result.execs)
      end
    end))

    it("carries payloads of 0 B and 1 MiB" .. by, with(function(one)
      assert.equal("good\n", python(one, transport, SIZES).output)
    end))

    if setup.huge ~= false then
      it("carries 64 MiB there and back" .. by, with(function(one)
        local result = python(one, transport, HUGE)
        assert.equal(("%d {'x'}\n"):format(64 * MIB - 300), result.output,
          tostring(result.error) .. result.stderr)
      end))
    end

    it("has its tools act where the script is" .. by, with(function(one)
      local result = python(one, transport, WHERE)
      assert.equal("by a tool\n3 False\n", result.output, result.stderr)
    end))

    it("ends a script at its deadline with all that it started" .. by, with(function(one)
      local running = task.spawn(one.run, one,
        { script = STUBBORN, language = "python", transport = transport, timeout = 8 })
      assert.is_true(helper.eventually(function()
        return #one:living("sleep 1212") > 0
      end, 30), "was not alive")
      local _, result = running:join()
      assert.equal("timeout", result.status)
      assert.same({ "done" }, { result.calls[1] and result.calls[1].outcome })
      one:assert_gone()
      local dir = result.output:match("^(/[^\n]*)\n$")
      -- By stream it goes beside the result.
      assert.is_true(helper.eventually(function()
        return one:output(("[ -e '%s' ] || echo no"):format(dir)) == "no\n"
      end), dir)
    end))

    it("ends a script that is interrupted" .. by, with(function(one)
      local running = task.spawn(one.run, one,
        { script = STUBBORN, language = "python", transport = transport, timeout = 300 })
      assert.is_true(helper.eventually(function()
        return #one:living("sleep 2323") > 0
      end, 30))
      one.engine:interrupt("INT")
      local _, result = running:join()
      assert.equal("interrupted", result.status)
      assert.is_truthy(result.output:find("farcall", 1, true))
      one:assert_gone()
    end))
  end
end
