-- SPDX-License-Identifier: MIT
local far_side = require("spec.support.far_side")
local helper = require("spec.helper")

local function read(ctx, args)
  return far_side.call("read_file", ctx, args)
end

local NASTY = { "-n", "a b", "it's", 'say "x"', "$(touch owned)", "`id`", "new\nline", "*", "ü~" }

describe("tool read_file", function()
  far_side.it("gives back a text as it is", function(ctx, dir)
    for _, text in ipairs({ "", "one", "one\n", "one\n\n", "a\r\nb\r\n", "ä€😀\n" }) do
      helper.write(dir .. "/f", text)
      local page = assert(read(ctx, { path = "f" }))
      assert.equal(text, page.content)
      assert.equal(#text, page.file_size)
      assert.is_false(page.truncated)
    end
  end)

  far_side.it("pages by lines", function(ctx, dir)
    helper.write(dir .. "/f", "1\n2\n3\n4\n5")
    local page = assert(read(ctx, { path = "f", offset = 2, limit = 2 }))
    assert.same({ "2\n3\n", 5, true, 4 },
      { page.content, page.total_lines, page.truncated, page.next_offset })
    page = assert(read(ctx, { path = "f", offset = 4, limit = 9 }))
    assert.same({ "4\n5", false }, { page.content, page.truncated })
    assert.equal("", assert(read(ctx, { path = "f", offset = 9 })).content)
    assert.equal("5|5", assert(read(ctx, { path = "f", offset = 5, numbered = true })).content)
  end)

  far_side.it("lets the far side page a large file", function(ctx, dir)
    local lines = {}
    for i = 1, 60000 do
      lines[i] = ("line %d of many"):format(i)
    end
    helper.write(dir .. "/f", table.concat(lines, "\n"))
    local page = assert(read(ctx, { path = "f", offset = 59999, limit = 500 }))
    assert.equal("line 59999 of many\nline 60000 of many", page.content)
    assert.equal(60000, page.total_lines)
    page = assert(read(ctx, { path = "f", offset = 2, limit = 1 }))
    assert.equal("line 2 of many\n", page.content)
    assert.equal(3, page.next_offset)
  end)

  far_side.it("cuts long lines on a character", function(ctx, dir)
    helper.write(dir .. "/f", "x" .. ("é"):rep(200000) .. "\nshort\n")
    local page = assert(read(ctx, { path = "f" }))
    assert.equal(1, page.lines_cut)
    local first = page.content:match("^[^\n]*")
    assert.equal("x" .. ("é"):rep(999) .. "... [truncated]", first)
    assert.is_nil(page.lossy)
    assert.truthy(page.content:find("\nshort\n$"))
  end)

  far_side.it("mends what is not UTF-8 and says so", function(ctx, dir)
    helper.write(dir .. "/f", "a\255b\n")
    local page = assert(read(ctx, { path = "f" }))
    assert.equal("a\239\191\189b\n", page.content)
    assert.is_true(page.lossy)
  end)

  far_side.it("takes hostile names as names", function(ctx, dir)
    for _, name in ipairs(NASTY) do
      helper.write(dir .. "/" .. name, "in " .. name)
      assert.equal("in " .. name, assert(read(ctx, { path = name })).content)
    end
    assert.is_nil(helper.read(dir .. "/owned"))
  end)

  far_side.it("finds ~ and absolute paths", function(ctx, dir)
    helper.write(dir .. "/f", "x")
    assert.equal("x", assert(read(ctx, { path = "~/f" })).content)
    assert.equal("x", assert(read(ctx, { path = dir .. "/f" })).content)
    assert.equal("x", assert(read(ctx, { path = "./f" })).content)
  end)

  far_side.it("says why it cannot", function(ctx, dir)
    os.execute("mkfifo " .. dir .. "/fifo")
    helper.write(dir .. "/binary", "ELF\0\1")
    for path, kind in pairs({
      missing = "not_found", [dir] = "usage", ["/dev/zero"] = "unsupported", fifo = "unsupported",
      binary = "unsupported", ["a\0b"] = "usage",
    }) do
      local page, err = read(ctx, { path = path })
      assert.is_nil(page)
      assert.equal(kind, err.kind, path)
    end
  end)
end)
