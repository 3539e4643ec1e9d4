-- SPDX-License-Identifier: MIT
-- Every transcript of docs/sessions.md is typed, and says what the page says.
local cli = require("spec.support.cli")
local helper = require("spec.helper")

-- In any order: standard output and errors are two streams.
local function sorted(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  table.sort(lines)
  return lines
end

describe("docs/sessions.md", function()
  it("has transcripts that are true", function()
    local count = 0
    for block in helper.read("docs/sessions.md"):gmatch("```console\n(.-)```") do
      local line, said = block:match("^%$ ([^\n]+)\n(.*)$")
      local program = cli.program():match("^(.*)/")
      local got = cli.home():run({ "-c", line }, {
        program = "/bin/sh", env = { PATH = program .. ":/usr/bin:/bin" },
      })
      assert.same(sorted(said), sorted(got.out .. got.err), line)
      count = count + 1
    end
    assert.is_true(count >= 4)
  end)
end)
