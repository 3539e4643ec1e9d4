-- SPDX-License-Identifier: MIT

local policy = require("farcall.policy")

describe("the budget policy", function()
  local chains, now, operator

  before_each(function()
    chains, now, operator = {}, 1000, {}
  end)

  after_each(function()
    for _, chain in ipairs(chains) do
      chain:close()
    end
  end)

  local function open(options, ...)
    local chain = assert(policy.chain({
      policies = { { name = "budget", options = options }, ... }, run_id = "r", job = {},
      operator = operator,
      now = function()
        return now
      end,
    }))
    chains[#chains + 1] = chain
    local id = 0
    return function(tool)
      id = id + 1
      local decision = chain:before({ id = id, tool = tool, arguments = {} })
      return decision.action, decision.reason or decision.ms
    end
  end

  it("bounds the calls of a run", function()
    local call = open({ max_calls = 2 })
    assert.equal("allow", (call("a")))
    assert.equal("allow", (call("b")))
    local action, reason = call("a")
    assert.equal("deny", action)
    assert.equal("policy budget: this run has made all of its 2 calls", reason)
    -- Another run has a budget of its own.
    assert.equal("allow", (open({ max_calls = 2 })("a")))
    assert.equal("deny", (open({ max_calls = 0 })("a")))
  end)

  it("bounds the calls of each tool", function()
    local call = open({ per_tool = { a = 1, latest = 1, calls = 1 } })
    for _, tool in ipairs({ "a", "latest", "calls" }) do
      assert.equal("allow", (call(tool)))
      assert.equal("deny", (call(tool)))
    end
    for _ = 1, 5 do
      assert.equal("allow", (call("b")))
    end
    -- As the command line gives it.
    call = open({ per_tool = { a = "1", b = "many" } })
    assert.equal("allow", (call("a")))
    local action, reason = call("a")
    assert.same({ "deny", "policy budget: this run has made all of its 1 calls of a" },
      { action, reason })
    action, reason = call("b")
    assert.same({ "deny", "policy budget: per_tool: many is no number of calls" },
      { action, reason })
  end)

  it("spaces calls, over all runs", function()
    local first, second = open({ per_second = 10 }), open({ per_second = 10 })
    assert.equal("allow", (first("a")))
    local action, ms = second("a")
    assert.equal("wait", action)
    assert.is_true(math.abs(ms - 100) < 0.01)
    action, ms = first("a")
    assert.equal("wait", action)
    assert.is_true(math.abs(ms - 200) < 0.01)
    now = now + 60
    assert.equal("allow", (first("a")))
    operator = {}
    local slow = open({ per_second = 10, per_minute = 60 })
    slow("a")
    assert.is_true(math.abs(select(2, slow("a")) - 1000) < 0.01)
  end)
end)
