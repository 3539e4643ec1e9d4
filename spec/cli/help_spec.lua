-- SPDX-License-Identifier: MIT
local cli = require("spec.support.cli")
local commands = require("farcall.cli").COMMANDS
local help = require("farcall.cli.help")

describe("help", function()
  it("fills paragraphs, and leaves examples and lists as they are", function()
    local long = ("word "):rep(30):gsub(" $", "")
    local text = help.flow("A line\nthat goes on.\n\nExamples:\n  one   two\n  three\n\n" .. long)
    assert.equal("A line that goes on.\n\nExamples:\n  one   two\n  three\n",
      text:match("^(.-\n)\nword"))
    local words = 0
    for line in text:match("(word.*)$"):gmatch("[^\n]+") do
      assert.is_true(#line <= help.WIDTH)
      words = words + select(2, line:gsub("word", ""))
    end
    assert.equal(30, words)
  end)

  it("of every command says what it does, with an example, and fits a terminal", function()
    local home = cli.home()
    for _, row in ipairs(commands) do
      local name = row[1]
      local got = home:run({ name, "--help" })
      assert.equal(0, got.code)
      assert.equal("", got.err)
      assert.matches("^Usage: farcall " .. name .. " ", got.out)
      assert.matches("\n\n%u[^\n]+", got.out)
      assert.is_truthy(got.out:find("\nExamples?:\n  [^\n]*farcall " .. name), name)
      for line in got.out:gmatch("[^\n]+") do
        assert.is_true(#line <= 84, line)
      end
    end
  end)

  it("of config lists the variables", function()
    local got = cli.home():run({ "config", "--help" })
    for _, variable in ipairs(require("farcall.config").VARIABLES) do
      assert.is_truthy(got.out:find("  " .. variable.name, 1, true), variable.name)
    end
  end)
end)
