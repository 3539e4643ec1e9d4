-- SPDX-License-Identifier: MIT
local child = require("spec.support.child")
local identity = require("farcall.identity")
local system = require("farcall.core.system")

describe("an engine's identity", function()
  local own = identity.new()

  it("is a word that any service takes as a label", function()
    assert.matches("^[a-z0-9-]+$", own)
    assert.is_true(#own <= 63, own)
    assert.not_equal(own, identity.new())
  end)

  it("says of a living process that it is alive", function()
    assert.equal("alive", identity.state(own))
    assert.equal("alive", identity.state(identity.new()))
  end)

  it("is not taken in by a pid that somebody else has now", function()
    local fields = { own:match("^(.-)%-(%d+)%-(%d+)%-(%x+)$") }
    assert.equal(system.pid(), tonumber(fields[2]))
    assert.equal("dead", identity.state(
      ("%s-%s-%d-%s"):format(fields[1], fields[2], tonumber(fields[3]) - 1, fields[4])))
  end)

  it("knows that a process has ended, and when it is only waiting to be reaped", function()
    local pid = child.zombie()
    assert.is_nil(identity.start_of(pid))
    child.reap(pid)
    assert.is_nil(identity.start_of(pid))
  end)

  it("takes every process of an earlier boot for dead", function()
    local machine, rest = own:match("^(%x+%-)%x+(%-.*)$")
    assert.equal("dead", identity.state(machine .. ("0"):rep(12) .. rest))
  end)

  it("is the same when the machine gets another name", function()
    assert.equal("alive", identity.state(("0"):rep(12) .. own:sub(13)))
  end)

  it("does not judge what it cannot see", function()
    local elsewhere = ("0"):rep(12) .. "-" .. ("0"):rep(12)
    assert.equal("unknown", identity.state(elsewhere .. own:sub(26)))
    local head, tail = own:match("^(%x+%-%x+%-)%d+(%-.*)$")
    assert.equal("unknown", identity.state(head .. "1" .. tail))
    for _, word in ipairs({ "", "1234", "-", own .. "-", "../../etc" }) do
      assert.equal("unknown", identity.state(word))
    end
    assert.equal("unknown", identity.state(nil))
  end)
end)
