-- SPDX-License-Identifier: MIT
-- Calls through a real run, with real policy files in every role that they can have.

local dispatch = require("farcall.dispatch")
local engines = require("spec.support.engines")
local helper = require("spec.helper")
local task = require("farcall.task")

-- A run whose script makes one call of `echo` (or what script says), under policies given as texts.
local function under(policies, script, over, hooks)
  local dir = helper.scratch()
  local list = {}
  for i, body in ipairs(policies) do
    local path = helper.write(("%s/p%d.lua"):format(dir, i),
      ('return { name = "p%d", summary = "s", %s }'):format(i, body))
    list[i] = { path = path, options = {} }
  end
  local seen = {}
  local cfg = {
    policies = list, enabled_tools = { "echo", "flaky" },
    tools = {
      echo = {
        summary = "s",
        parameters = {
          type = "object", properties = { n = { type = "integer" } }, required = { "n" },
        },
        handler = function(args)
          seen[#seen + 1] = args.n
          return { n = args.n }
        end,
      },
      flaky = {
        summary = "s", parameters = { type = "object", properties = {} }, idempotent = true,
        handler = function()
          seen[#seen + 1] = "try"
          if #seen < 3 then
            return nil, "not yet"
          end
          return "at last"
        end,
      },
    },
  }
  for key, value in pairs(over or {}) do
    cfg[key] = value
  end
  local result = engines.python(script or [[
from farcall import echo, ToolError
try:
    print(echo(n=7))
except ToolError as error:
    print(error.kind, error.message)
]], cfg, nil, hooks)
  assert.equal("", result.stderr)
  return result, seen
end

local ALLOW = "before = function() return allow() end"

describe("a call", function()
  it("goes through when every policy allows it", function()
    local result, seen = under({ ALLOW, ALLOW })
    assert.equal("{'n': 7}\n", result.output)
    assert.same({ 7 }, seen)
    assert.equal("done", result.calls[1].outcome)
    assert.is_true(result.calls[1].policy > 0)
  end)

  it("is refused by the first that denies, with its reason", function()
    local result, seen = under({ ALLOW, 'before = function() return deny("not on my watch") end',
      'before = function() error("never asked") end' })
    assert.matches("^refused .*not on my watch", result.output)
    assert.same({}, seen)
    assert.equal("refused", result.calls[1].outcome)
    assert.equal(0, result.tool_calls_made)
  end)

  it("is carried out with the arguments that a policy replaced", function()
    local result, seen = under({ [[before = function(call)
      if call.arguments.n == 7 then return replace({ n = 8 }) end
      return allow()
    end]] })
    assert.equal("{'n': 8}\n", result.output)
    assert.same({ 8 }, seen)
  end)

  it("is checked again after a replacement", function()
    local result, seen = under({ [[before = function(call)
      return replace({ n = "eight" })
    end]] })
    assert.matches("^refused .*n", result.output)
    assert.same({}, seen)
  end)

  it("is not replaced for ever", function()
    local result, seen = under({ [[before = function(call)
      return replace({ n = call.arguments.n + 1 })
    end]] })
    assert.matches("^refused ", result.output)
    assert.same({}, seen)
  end)

  it("is answered by a policy without the tool", function()
    local result, seen = under({ 'before = function() return answer({ n = 99 }) end' })
    assert.equal("{'n': 99}\n", result.output)
    assert.same({}, seen)
    assert.equal(0, result.tool_calls_made)
  end)

  it("waits when a policy wants it to, and is not asked twice by those before", function()
    local result = under({ [[before = function(call, ctx)
      ctx.run.asked = (ctx.run.asked or 0) + 1
      if ctx.run.asked > 1 then return deny("asked twice") end
      return allow()
    end]], [[before = function(call, ctx)
      if not ctx.run.waited then
        ctx.run.waited = true
        return wait(100)
      end
      return allow()
    end]] })
    assert.equal("{'n': 7}\n", result.output)
    assert.is_true(result.calls[1].policy >= 0.09)
  end)

  it("is confirmed by a human where there is one", function()
    local question
    local result = under({ 'before = function() return ask("really?") end' }, nil, nil, {
      ask = function(text)
        question = text
        return true
      end,
    })
    assert.equal("really?", question)
    assert.equal("{'n': 7}\n", result.output)
  end)

  it("is refused where there is no human to ask, or the human says no", function()
    for _, hooks in ipairs({ {}, {
      ask = function()
        return false
      end,
    } }) do
      local policy = 'before = function() return ask("really?") end'
      local result, seen = under({ policy }, nil, nil, hooks)
      assert.matches("^refused .*really", result.output)
      assert.same({}, seen)
    end
  end)

  it("has its reply seen by `after`, once, whatever the outcome", function()
    local result = under({ [[before = function() return allow() end,
    after = function(call, reply, ctx)
      ctx.run.count = (ctx.run.count or 0) + 1
      if reply.outcome == "done" then
        reply.result = { n = reply.result.n, count = ctx.run.count }
      end
      return reply
    end]] })
    assert.matches("'count': 1", result.output)
  end)

  it("of an idempotent tool is tried again when a policy says so", function()
    local result, seen = under({ [[before = function() return allow() end,
    after = function(call, reply)
      if reply.outcome == "failed" then return again(10) end
      return reply
    end]] }, "from farcall import call\nprint(call('flaky'))")
    assert.equal("at last\n", result.output)
    assert.equal(3, #seen)
    assert.equal("done", result.calls[1].outcome)
  end)

  it("can be placed by a policy, or nowhere", function()
    local result = under({ ALLOW .. [[,
    place = function(job, candidates) return "second" end]] }, nil, {
      backends = {
        first = { use = "local", options = {} }, second = { use = "local", options = {} },
      },
    })
    assert.equal("second", result.backend)
  end)

  it("leaves the last word on the result to `finish`", function()
    local result = under({ ALLOW .. [[,
    finish = function(result) result.hint = "well done" return result end]] })
    assert.equal("well done", result.hint)
  end)

  it("counts the seconds and calls that remain", function()
    local result = under({}, [[
from farcall import echo, remaining
echo(n=1)
left = remaining()
print(left["calls"], 0 < left["seconds"] <= 60)
]])
    assert.equal("49 True\n", result.output)
    assert.equal(1, #result.calls)
  end)

  it("never outlives its run", function()
    local after_end = false
    local result = engines.python([[
import os, threading, time
from farcall import call
threading.Thread(target=lambda: call("slow"), daemon=True).start()
time.sleep(1)
os._exit(0)
]], {
      enabled_tools = { "slow" },
      tools = { slow = {
        summary = "s", parameters = { type = "object", properties = {} },
        handler = function(_, ctx)
          ctx.sleep(5)
          after_end = true
        end,
      } },
    })
    assert.equal("success", result.status)
    assert.equal("unknown", result.calls[1].outcome)
    task.run(task.sleep, 0.01)
    assert.is_false(after_end)
  end)

  it("that is large has a turn of the loop of its own", helper.task(function()
    local order = {}
    local tool = {
      validator = function(args)
        return args
      end,
      handler = function(args)
        order[#order + 1] = args.name
        return "done"
      end,
    }
    local calls = dispatch.new({
      toolset = { get = function() return tool end },
      chain = {
        before = function() return { action = "allow" } end,
        after = function(_, _, reply) return reply end,
      },
      journal = { event = function() end },
      max_calls = 2, parallel_calls = 2, deadline = task.now() + 60, tool_context = {},
    })
    local replies = 0
    for _, args in ipairs({ { name = "large", text = ("x"):rep(2 ^ 21) }, { name = "small" } }) do
      calls:call({ tool = "echo", args = args }, function()
        replies = replies + 1
        return true
      end)
    end
    assert.same({ "small" }, order)
    assert.is_true(helper.eventually(function()
      return replies == 2
    end))
    assert.same({ "small", "large" }, order)
    calls:close()
  end))
end)
