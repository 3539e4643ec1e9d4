-- SPDX-License-Identifier: MIT
local log = require("farcall.log")

describe("log", function()
  it("passes on what is at least of the level", function()
    for least, expected in pairs({
      debug = "debug info warning error", info = "info warning error",
      warning = "warning error", error = "error",
    }) do
      local told = {}
      local tell = log.new(least, function(text, level)
        assert.equal("about " .. level, text)
        told[#told + 1] = level
      end)
      for _, level in ipairs({ "debug", "info", "warning", "error" }) do
        tell(level, "about " .. level)
      end
      assert.equal(expected, table.concat(told, " "))
    end
  end)

  it("raises for a level that does not exist", function()
    assert.has_error(function()
      log.new("loud", print)
    end, "unknown level: loud")
    assert.has_error(function()
      log.new("error", print)("waring", "x")
    end)
  end)
end)
