-- SPDX-License-Identifier: MIT
local environments = require("farcall.environments")
local pools = require("farcall.pools")

local function place(key)
  return { name = "box", backend = {}, options = { image = "i", key = key } }
end

describe("a pool", function()
  it("gives each run the environment with the fewest runs", function()
    local all = pools.new()
    local seats, members = {}, {}
    for i = 1, 7 do
      local where = place()
      seats[i] = all:take(where, 3)
      members[i] = where.member
    end
    assert.same({ 1, 2, 3, 1, 2, 3, 1 }, members)
    seats[2]:leave()
    seats[5]:leave()
    seats[3]:leave()
    local where = place()
    all:take(where, 3)
    assert.equal(2, where.member)
    -- Another place has a pool of its own.
    where = place("k")
    all:take(where, 3)
    assert.equal(1, where.member)
  end)

  it("makes places that are different environments, with keys of their own", function()
    local all, seen = pools.new(), {}
    for _, key in ipairs({ "dev", false }) do
      for number = 1, 3 do
        local where = place(key or nil)
        all:take(where, 3)
        local print = environments.fingerprint(where)
        assert.is_nil(seen[print])
        seen[print] = true
        assert.equal(key and (number == 1 and "dev" or "dev-" .. number) or nil,
          where.options.key)
      end
    end
  end)

  it("lets one rest that could not be opened, while there are others", function()
    local all = pools.new()
    local first = place()
    local seat = all:take(first, 2)
    seat:failed()
    seat:leave()
    for _ = 1, 3 do
      local where = place()
      all:take(where, 2)
      assert.equal(2, where.member)
    end
    -- Both are resting: the one with fewer runs.
    local where = place()
    all:take(where, 2):failed()
    local last = place()
    all:take(last, 2)
    assert.equal(1, last.member)
  end)
end)
