-- SPDX-License-Identifier: MIT

local policy = require("farcall.policy")
local json = require("farcall.core.json")

describe("the redact policy", function()
  local function open(options)
    return assert(policy.chain({
      policies = { { name = "redact", options = options } }, run_id = "r", job = {},
      limits = { milliseconds = 60000 },
    }))
  end

  local function reply_through(options, reply)
    local chain = open(options)
    local call = { id = 1, tool = "read_file", arguments = {} }
    assert.equal("allow", chain:before(call).action)
    local changed = chain:after(call, reply)
    chain:close()
    return changed
  end

  -- Put together here, so that no scanner takes this file for a leak.
  local KEY = "gh" .. "p_" .. ("a1B2c3D4e5"):rep(4):sub(1, 36)

  it("masks what looks like a secret, at any depth", function()
    local changed = reply_through({}, { outcome = "done", result = {
      content = "token " .. KEY .. " end", list = json.array({ { deep = KEY } }), number = 7,
      null = json.null, yes = true,
    } })
    local text = json.encode(changed.result)
    assert.is_nil(text:find(KEY, 1, true))
    assert.is_truthy(changed.result.content:find("^token .* end$"), changed.result.content)
    assert.equal(7, changed.result.number)
    assert.equal(json.null, changed.result.null)
    assert.is_true(json.is_array(changed.result.list))
  end)

  it("masks the operator's words and patterns", function()
    local options = { secrets = false, words = { "a.b%c" }, patterns = { "%d%d%d%-%d%d" } }
    assert.equal("x [redacted] aXb%c [redacted] " .. KEY,
      reply_through(options, { outcome = "done", result = "x a.b%c aXb%c 123-45 " .. KEY }).result)
  end)

  it("masks errors too", function()
    local changed = reply_through({ words = { "falcon" } },
      { outcome = "failed", error = { kind = "failed", message = "no falcon here" } })
    assert.equal("no [redacted] here", changed.error.message)
    assert.equal("failed", changed.error.kind)
  end)

  it("masks the result of the run", function()
    local chain = open({ words = { "falcon" } })
    local result = chain:finish({
      status = "success", output = "falcon 1", stderr = "falcon 2", run_id = "r",
      calls = json.array({ { id = 1, tool = "t", arguments = '{"q":"falcon"}' } }),
    })
    chain:close()
    assert.equal("[redacted] 1", result.output)
    assert.equal("[redacted] 2", result.stderr)
    assert.equal('{"q":"[redacted]"}', result.calls[1].arguments)
    assert.equal("success", result.status)
  end)

  it("copes with a large reply, and withholds what it cannot look through", function()
    local large = ("some words that are not secret\n"):rep(30000)
    assert.equal(large, reply_through({ words = { "falcon" } },
      { outcome = "done", result = large }).result)
    local changed = reply_through({ patterns = { ("a-"):rep(8) .. "b" } },
      { outcome = "done", result = ("a"):rep(30000) })
    assert.is_nil(changed.result)
    assert.is_truthy(changed.error.message:find("redact.lua:%d+: ran more than"),
      changed.error.message)
  end)
end)
