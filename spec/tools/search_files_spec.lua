-- SPDX-License-Identifier: MIT
local far_side = require("spec.support.far_side")
local helper = require("spec.helper")

local function search(ctx, args)
  return far_side.call("search_files", ctx, args)
end

local function tree(dir)
  os.execute(("mkdir -p '%s'/src/sub '%s'/.git '%s'/'odd:12:name'"):format(dir, dir, dir))
  helper.write(dir .. "/src/a.c", "int one;\nint two;\nint three;\n")
  helper.write(dir .. "/src/sub/b.h", "long two;\n")
  helper.write(dir .. "/.git/c", "int two;\n")
  helper.write(dir .. "/src/binary", "int two;\0\n")
  helper.write(dir .. "/odd:12:name/it's", "int two; // 7:x\n")
end

describe("tool search_files", function()
  far_side.it("finds lines", function(ctx, dir)
    tree(dir)
    local reply = assert(search(ctx, { pattern = "two|[0-9]:x" }))
    assert.same({
      { path = "odd:12:name/it's", line = 1, content = "int two; // 7:x" },
      { path = "src/a.c", line = 2, content = "int two;" },
      { path = "src/sub/b.h", line = 1, content = "long two;" },
    }, { unpack(reply.matches) })
    assert.same({ 3, false }, { reply.total_count, reply.truncated })
  end)

  far_side.it("pages, filters and gives context", function(ctx, dir)
    tree(dir)
    local reply = assert(search(ctx, {
      pattern = "int", path = "src", file_glob = "*.c", limit = 1, offset = 1, context = 1,
    }))
    assert.equal(1, #reply.matches)
    local match = reply.matches[1]
    assert.same({ "src/a.c", 2, "int two;" }, { match.path, match.line, match.content })
    assert.same({ "int one;" }, { unpack(match.before) })
    assert.same({ "int three;" }, { unpack(match.after) })
    assert.is_true(reply.truncated)
    reply = assert(search(ctx, { pattern = "two", file_glob = "sub/*" }))
    assert.equal("src/sub/b.h", reply.matches[1].path)
  end)

  far_side.it("lists and counts files", function(ctx, dir)
    tree(dir)
    local reply = assert(search(ctx, { pattern = "int", output_mode = "files_only" }))
    assert.same({ "odd:12:name/it's", "src/a.c" }, { unpack(reply.files) })
    reply = assert(search(ctx, { pattern = "int", output_mode = "count", path = "src" }))
    assert.equal(3, reply.counts["src/a.c"])
    assert.equal(3, reply.total_count)
    reply = assert(search(ctx, { pattern = "*.[ch]", target = "files", path = dir .. "/src" }))
    assert.same({ dir .. "/src/a.c", dir .. "/src/sub/b.h" }, { unpack(reply.files) })
    reply = assert(search(ctx, { pattern = "nothing*", target = "files" }))
    assert.same({ 0, 0 }, { reply.total_count, #reply.files })
  end)

  far_side.it("searches one file, and .git when asked to", function(ctx, dir)
    tree(dir)
    assert.equal("src/a.c",
      assert(search(ctx, { pattern = "two", path = "src/a.c" })).matches[1].path)
    assert.equal(".git/c", assert(search(ctx, { pattern = "two", path = ".git" })).matches[1].path)
  end)

  far_side.it("takes hostile patterns as patterns", function(ctx, dir)
    helper.write(dir .. "/f", "-e x\n$(touch owned)\n'quoted\"\n")
    for pattern, line in pairs({ ["-e x"] = 1, ["\\$\\(touch owned\\)"] = 2, ["'quoted\""] = 3 }) do
      assert.equal(line, assert(search(ctx, { pattern = pattern })).matches[1].line)
    end
    assert(search(ctx, { pattern = "x", file_glob = "$(touch owned)" }))
    assert.is_nil(helper.read(dir .. "/owned"))
  end)

  far_side.it("says what is wrong", function(ctx)
    for kind, args in pairs({
      usage = { pattern = "(" }, not_found = { pattern = "x", path = "missing" },
    }) do
      local reply, err = search(ctx, args)
      assert.is_nil(reply)
      assert.equal(kind, err.kind)
    end
    local _, err = search(ctx, { pattern = "a\0b" })
    assert.equal("usage", err.kind)
  end)
end)
