-- SPDX-License-Identifier: MIT
local quoting = require("farcall.quoting")

local function through_shell(words)
  local pipe = assert(io.popen("printf '%s\\001' " .. quoting.command(words)))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

describe("quoting", function()
  it("leaves plain words alone", function()
    assert.equal("/usr/bin/python3", quoting.sh("/usr/bin/python3"))
    assert.equal("a=b,c:d@e%f+g", quoting.sh("a=b,c:d@e%f+g"))
  end)

  it("brings every byte but NUL through a shell", function()
    local bytes = {}
    for i = 1, 255 do
      bytes[i] = string.char(i)
    end
    local all = table.concat(bytes)
    assert.equal(all .. "\1", through_shell({ all }))
  end)

  it("keeps hostile words apart", function()
    local words = { "", "-n", "a b", "$(id)", "`id`", "it's", "\n", "*", "~", "=x", "\\", "'\"'" }
    assert.equal(table.concat(words, "\1") .. "\1", through_shell(words))
  end)

  it("says any words in ASCII", function()
    local bytes = {}
    for i = 1, 255 do
      bytes[i] = string.char(i)
    end
    local words = { table.concat(bytes), "\255\n\n", "%s\\n$(id)\200'", "", "-n", "plain" }
    local line = quoting.ascii({ "printf", "%s\\001", unpack(words) })
    assert.is_nil(line:find("[\128-\255]"))
    for _, shell in ipairs({ "dash", "bash", "busybox sh" }) do
      local pipe = assert(io.popen(shell .. " -c " .. quoting.sh(line)))
      local text = pipe:read("*a")
      pipe:close()
      assert.equal(table.concat(words, "\1") .. "\1", text, shell)
    end
  end)

  it("refuses NUL", function()
    assert.has_error(function()
      quoting.sh("a\0b")
    end)
    assert.has_error(function()
      quoting.ascii({ "a\0\255" })
    end)
  end)
end)
