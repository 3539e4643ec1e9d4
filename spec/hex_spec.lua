-- SPDX-License-Identifier: MIT
local hex = require("farcall.hex")

describe("hex", function()
  it("writes every byte as two digits", function()
    assert.equal("", hex.encode(""))
    assert.equal("00ff0a7f20", hex.encode("\0\255\n\127 "))
  end)

  it("makes words that nobody else has", function()
    local one = hex.random(16)
    assert.matches("^[0-9a-f]+$", one)
    assert.equal(32, #one)
    assert.not_equal(one, hex.random(16))
  end)
end)
