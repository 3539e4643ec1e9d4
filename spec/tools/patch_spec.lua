-- SPDX-License-Identifier: MIT
local far_side = require("spec.support.far_side")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local function patch(ctx, args)
  return far_side.call("patch", ctx, args)
end

local function replace(ctx, old, new, all)
  return patch(ctx, { path = "f", old_string = old, new_string = new, replace_all = all })
end

local V4A = [[
*** Begin Patch
*** Update File: a.txt
@@ two
-three
+drei
*** Add File: sub/new.txt
+hello
+world
*** Delete File: gone.txt
*** Update File: move me
*** Move to: moved
@@
-x
+y
*** End Patch
]]

local UNIFIED = [[
diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1,3 +1,4 @@
 one
+one and a half
 two
 three
@@ -9,2 +10,1 @@
 nine
-ten
--- /dev/null
+++ b/n.txt
@@ -0,0 +1,1 @@
+new
\ No newline at end of file
--- a/gone.txt
+++ /dev/null
@@ -1,1 +0,0 @@
-bye
]]

local TEN = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n"

describe("tool patch", function()
  far_side.it("replaces one text and shows what it did", function(ctx, dir)
    helper.write(dir .. "/f", TEN)
    fs.chmod(dir .. "/f", 448)
    local reply = assert(replace(ctx, "two\nthree", "2\n3\n3"))
    assert.equal("one\n2\n3\n3\nfour\n", helper.read(dir .. "/f"):sub(1, 15))
    assert.equal(448, fs.stat(dir .. "/f").mode % 4096)
    assert.same({ "f" }, { unpack(reply.files_modified) })
    assert.equal(1, reply.replacements)
    assert.equal("--- a/f\n+++ b/f\n@@ -1,6 +1,7 @@\n one\n-two\n-three\n+2\n+3\n+3\n four\n"
      .. " five\n six\n", reply.diff)
  end)

  far_side.it("wants the text once, or all of them", function(ctx, dir)
    helper.write(dir .. "/f", "a\nb\na\nc\na\n")
    local reply, err = replace(ctx, "a", "x")
    assert.is_nil(reply)
    assert.truthy(err.msg:find("3 times (lines 1, 3, 5)", 1, true))
    assert.equal(3, assert(replace(ctx, "a", "x", true)).replacements)
    assert.equal("x\nb\nx\nc\nx\n", helper.read(dir .. "/f"))
  end)

  far_side.it("says what is nearest", function(ctx, dir)
    helper.write(dir .. "/f", "int main(void) {\n  return 0;\n}\n")
    local _, err = replace(ctx, "int main() {", "x")
    assert.truthy(err.msg:find("nearest is line 1: int main(void) {", 1, true))
    _, err = replace(ctx, "    return 0;", "x")
    assert.truthy(err.msg:find("like line 2", 1, true))
    _, err = replace(ctx, "qqqq", "x")
    assert.equal("old_string is not in the file", err.msg)
  end)

  far_side.it("treats what it replaces as data", function(ctx, dir)
    helper.write(dir .. "/f", "%a $(x) \\1 'q'\r\nsecond\r\n")
    assert(replace(ctx, "$(x) \\1", "%1 %% `y`"))
    assert(replace(ctx, "'q'\nsecond", "'r'\nthird"))
    assert.equal("%a %1 %% `y` 'r'\r\nthird\r\n", helper.read(dir .. "/f"))
  end)

  far_side.it("applies V4A to several files", function(ctx, dir)
    helper.write(dir .. "/a.txt", TEN)
    helper.write(dir .. "/gone.txt", "bye\n")
    helper.write(dir .. "/move me", "x\n")
    fs.chmod(dir .. "/move me", 493)
    local reply = assert(patch(ctx, { mode = "patch", patch = V4A }))
    assert.truthy(helper.read(dir .. "/a.txt"):find("^one\ntwo\ndrei\nfour\n"))
    assert.equal("hello\nworld\n", helper.read(dir .. "/sub/new.txt"))
    assert.is_nil(helper.read(dir .. "/gone.txt"))
    assert.equal("y\n", helper.read(dir .. "/moved"))
    assert.equal(493, fs.stat(dir .. "/moved").mode % 4096)
    assert.same({ "gone.txt", "move me" }, { unpack(reply.files_deleted) })
    assert.same({ "sub/new.txt", "moved" }, { unpack(reply.files_created) })
  end)

  far_side.it("applies a unified diff", function(ctx, dir)
    helper.write(dir .. "/a.txt", "zero\n" .. TEN)
    helper.write(dir .. "/gone.txt", "bye\n")
    assert(patch(ctx, { mode = "patch", patch = UNIFIED }))
    assert.equal("zero\none\none and a half\n" .. TEN:sub(5, -5), helper.read(dir .. "/a.txt"))
    assert.equal("new", helper.read(dir .. "/n.txt"))
    assert.is_nil(fs.stat(dir .. "/gone.txt"))
  end)

  far_side.it("changes nothing when a part does not fit", function(ctx, dir)
    helper.write(dir .. "/a.txt", TEN)
    helper.write(dir .. "/gone.txt", "bye\n")
    local reply, err = patch(ctx, { mode = "patch", patch = V4A })
    assert.is_nil(reply)
    assert.truthy(tostring(err):find("move me", 1, true))
    assert.equal(TEN, helper.read(dir .. "/a.txt"))
    assert.is_nil(fs.stat(dir .. "/sub"))
    local _
    _, err = patch(ctx, { mode = "patch", patch = (V4A:gsub("%-three", "-thirty")) })
    assert.truthy(tostring(err):find("hunk 1", 1, true))
  end)

  far_side.it("puts back what it has written when a later part fails", function(ctx, dir)
    helper.write(dir .. "/a.txt", TEN)
    helper.write(dir .. "/file", "x")
    local reply = patch(ctx, { mode = "patch", patch = "*** Begin Patch\n*** Update File: a.txt\n"
      .. "-ten\n+10\n*** Add File: file/below\n+x\n*** End Patch" })
    assert.is_nil(reply)
    assert.equal(TEN, helper.read(dir .. "/a.txt"))
  end)

  far_side.it("says what is wrong with its arguments", function(ctx, dir)
    helper.write(dir .. "/f", "x\0")
    for _, case in ipairs({
      { { path = "f", old_string = "x", new_string = "y" }, "unsupported" },
      { { path = "f", old_string = "", new_string = "y" }, "usage" },
      { { path = "f", old_string = "x", new_string = "x" }, "usage" },
      { { path = "f", old_string = "x" }, "usage" },
      { { path = "none", old_string = "x", new_string = "y" }, "not_found" },
      { { mode = "patch", patch = "hello" }, "usage" },
      { { mode = "patch" }, "usage" },
    }) do
      local reply, err = patch(ctx, case[1])
      assert.is_nil(reply)
      assert.equal(case[2], err.kind)
    end
  end)
end)
