-- SPDX-License-Identifier: MIT
local far_side = require("spec.support.far_side")
local files = require("farcall.files")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local function write(ctx, path, content)
  return far_side.call("write_file", ctx, { path = path, content = content })
end

describe("tool write_file", function()
  far_side.it("writes any text, and makes directories", function(ctx, dir)
    for i, text in ipairs({ "", "x", "a\nb", "\0\1\2", ("0123456789"):rep(200000) }) do
      local reply = assert(write(ctx, "new/deep dir/f" .. i, text))
      assert.same({ #text, true, i == 1 },
        { reply.bytes_written, reply.created, reply.dirs_created })
      assert.equal(text, helper.read(dir .. "/new/deep dir/f" .. i))
    end
    assert.equal(5, #fs.list(dir .. "/new/deep dir"))
  end)

  far_side.it("keeps the mode of a file, and the link to it", function(ctx, dir)
    helper.write(dir .. "/tool", "old")
    fs.chmod(dir .. "/tool", 493)
    os.execute(("ln -s tool '%s/link'"):format(dir))
    local reply = assert(write(ctx, "link", "new"))
    assert.is_false(reply.created)
    assert.equal("new", helper.read(dir .. "/tool"))
    assert.equal(493, fs.stat(dir .. "/tool").mode % 4096)
    assert.equal("tool", fs.readlink(dir .. "/link"))
  end)

  far_side.it("takes hostile names as names", function(ctx, dir)
    for _, name in ipairs({ "-rf", "a b/c", "it's", "$(touch owned)", "x\ny", "`id`", "*" }) do
      assert(write(ctx, name, name))
      assert.equal(name, helper.read(dir .. "/" .. name))
    end
    assert.is_nil(helper.read(dir .. "/owned"))
  end)

  far_side.it("says why it cannot and leaves nothing behind", function(ctx, dir)
    helper.write(dir .. "/file", "x")
    for path, kind in pairs({ [dir] = "usage", ["file/below"] = "usage", ["a\0"] = "usage" }) do
      local reply, err = write(ctx, path, "y")
      assert.is_nil(reply)
      assert.equal(kind, err.kind, path)
    end
    assert.same({ "file" }, fs.list(dir))
  end)

  far_side.it("writes only over what it has read when asked so", function(ctx, dir)
    local path = dir .. "/f"
    helper.write(path, "one")
    assert(files.write(ctx, "op", path, "two", { unless_changed = "one" }))
    local ok, err = files.write(ctx, "op", path, "three", { unless_changed = "one" })
    assert.is_nil(ok)
    assert.equal("CHANGED", err.code)
    ok, err = files.write(ctx, "op", path, "three", { unless_changed = false })
    assert.is_nil(ok)
    assert.equal("CHANGED", err.code)
    assert.equal("two", helper.read(path))
    assert.same({ "f" }, fs.list(dir))
  end)
end)
