-- SPDX-License-Identifier: MIT
local textdiff = require("farcall.textdiff")
local textpatch = require("farcall.textpatch")

describe("textdiff", function()
  it("makes diffs that lead from one text to the other", function()
    math.randomseed(7)
    for round = 1, 300 do
      local old, new = {}, {}
      for _ = 1, math.random(0, 40) do
        local line = "line " .. math.random(1, 12)
        old[#old + 1] = line
        local dice = math.random()
        if dice < 0.7 then
          new[#new + 1] = line
        end
        if dice > 0.8 then
          new[#new + 1] = "new " .. math.random(1, 5)
        end
      end
      local a = table.concat(old, "\n") .. (math.random() < 0.8 and #old > 0 and "\n" or "")
      local b = table.concat(new, "\n") .. (math.random() < 0.8 and #new > 0 and "\n" or "")
      local diff = textdiff.unified(a, b, "a/x", "b/x")
      if a == b then
        assert.equal("", diff)
      else
        local changes = assert(textpatch.parse(diff))
        assert.equal(b, textpatch.apply(a, changes[1].hunks), "round " .. round .. "\n" .. diff)
      end
    end
  end)

  it("tells texts without a common line as one block", function()
    local old, new = {}, {}
    for i = 1, 3000 do
      old[i], new[i] = "a" .. i, "b" .. i
    end
    local diff = textdiff.unified(table.concat(old, "\n"), table.concat(new, "\n"), "a", "b")
    assert.truthy(diff:find("@@ -1,3000 +1,3000 @@", 1, true))
  end)
end)
