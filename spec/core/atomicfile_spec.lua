-- SPDX-License-Identifier: MIT
local atomicfile = require("farcall.core.atomicfile")
local fs = require("farcall.core.fs")
local child = require("spec.support.child")
local helper = require("spec.helper")
local ffi = require("ffi")

local OLD, NEW = ("o"):rep(200 * 1024), ("n"):rep(300 * 1024)

local function assert_whole(path)
  local bytes = helper.read(path)
  if bytes ~= OLD then
    assert.is_true(bytes == NEW, "neither old nor new: " .. #bytes .. " bytes")
  end
end

-- Whatever else is in the directory is a leftover that says so, and goes.
local function assert_cleans(dir)
  local before = 0
  for _, name in ipairs(fs.list(dir)) do
    if name ~= "file" then
      assert.matches("^%.file%.farcall%-%x+$", name)
      before = before + 1
    end
  end
  assert.equal(before, assert(atomicfile.clean(dir)))
  assert.same({ "file" }, fs.list(dir))
  return before
end

describe("atomicfile.write", function()
  local dir, path
  before_each(function()
    dir = helper.scratch()
    path = dir .. "/file"
  end)

  it("makes and replaces files of any bytes", function()
    for _, bytes in ipairs({ "", "x", "\0\255\n", NEW, OLD }) do
      for _, sync in ipairs({ true, false }) do
        assert.is_true(atomicfile.write(path, bytes, { sync = sync }))
        assert.is_true(bytes == helper.read(path))
        assert.same({ "file" }, fs.list(dir))
      end
    end
  end)

  it("gives the mode that it was told, whatever the umask and the old file", function()
    local before = ffi.C.umask(0x3F) -- 077
    assert(atomicfile.write(path, "a"))
    assert.equal(0x180, fs.stat(path).mode) -- 0600
    assert(atomicfile.write(path, "b", { mode = 0x1B4 })) -- 0664
    assert.equal(0x1B4, fs.stat(path).mode)
    assert(atomicfile.write(path, "c", { mode = 0 }))
    assert.equal(0, fs.stat(path).mode)
    ffi.C.umask(before)
  end)

  it("takes relative paths and paths at the limit of a name's length", function()
    local long = dir .. "/" .. ("l"):rep(255)
    assert(atomicfile.write(long, "long"))
    assert.equal("long", helper.read(long))
    local here = fs.realpath(".")
    local up = here:gsub("^/", ""):gsub("[^/]+", "..")
    assert(atomicfile.write(up .. path, "relative"))
    assert.equal("relative", helper.read(path))
  end)

  it("replaces nothing but a regular file", function()
    local function refused(code, name, options)
      local ok, message, got = atomicfile.write(dir .. "/" .. name, "x", options)
      assert.is_nil(ok)
      assert.equal(code, got)
      assert.matches(name, message, 1, true)
    end
    assert(fs.mkdir(dir .. "/directory", 0x1C0))
    assert.equal(0, ffi.C.mkfifo(dir .. "/fifo", 0x180))
    helper.write(path, "target")
    ffi.C.symlink("file", dir .. "/link")
    ffi.C.symlink("nowhere", dir .. "/dangling")
    refused("EISDIR", "directory")
    refused("EISDIR", "directory/")
    refused("EISDIR", ".")
    refused("NOTFILE", "fifo")
    refused("ELOOP", "link")
    refused("ELOOP", "dangling")
    refused("ENOENT", "dangling", { follow = true })
    refused("ENOENT", "missing/file")
    refused("ENOTDIR", "file/below")
    assert.equal("target", helper.read(path))
    assert.is_nil((atomicfile.write("/dev/null", "x")))
    assert.equal("device", fs.stat("/dev/null").type)
  end)

  it("follows a link when told to, and leaves the link", function()
    helper.write(path, "target")
    ffi.C.symlink("file", dir .. "/link")
    assert(atomicfile.write(dir .. "/link", "through", { follow = true }))
    assert.equal("through", helper.read(path))
    assert.equal("file", fs.readlink(dir .. "/link"))
  end)

  it("leaves the old file when there is no room", function()
    helper.write(path, OLD)
    assert.same({ "exit", 7 }, { child.run(function()
      child.limit_file_size(100 * 1024)
      local ok, _, code = atomicfile.write(path, NEW)
      return not ok and code == "EFBIG" and #fs.list(dir) == 1 and 7 or 1
    end) })
    assert.is_true(OLD == helper.read(path))
  end)

  it("refuses what is not an option", function()
    assert.has_error(function() atomicfile.write(path, "x", { sink = true }) end)
    assert.has_error(function() atomicfile.write(path, "x", { mode = 4096 }) end)
    assert.has_error(function() atomicfile.write(path) end)
  end)

  it("is always whole to who reads meanwhile", function()
    helper.write(path, OLD)
    local pid = child.start(function()
      for i = 1, 150 do
        assert(atomicfile.write(path, i % 2 == 0 and OLD or NEW, { sync = false }))
      end
    end)
    for _ = 1, 300 do
      assert_whole(path)
    end
    ffi.C.waitpid(pid, nil, 0)
  end)

  it("survives SIGKILL before and after each of its system calls #kill", function()
    local leftovers, steps, ended = 0, 0, false
    while not ended do
      steps = steps + 1
      helper.write(path, OLD)
      ended = child.kill_at(steps, function()
        assert(atomicfile.write(path, NEW))
      end)
      assert_whole(path)
      leftovers = leftovers + assert_cleans(dir)
    end
    assert.is_true(helper.read(path) == NEW)
    assert.is_true(steps > 20 and leftovers > 5)
  end)

  it("survives SIGKILL at any moment #kill", function()
    helper.write(path, OLD)
    for i = 1, 60 do
      child.kill_after(math.random(0, 4000), function()
        while true do
          assert(atomicfile.write(path, NEW, { sync = i % 4 == 0 }))
          assert(atomicfile.write(path, OLD, { sync = false }))
        end
      end)
      assert_whole(path)
      assert_cleans(dir)
    end
  end)
end)

describe("atomicfile.clean", function()
  it("takes nothing from a living writer, and nothing else", function()
    local dir = helper.scratch()
    local names = { ".file.farcall-0123", "farcall-0123456789abcdef",
      "file.farcall-0123456789abcdef",
      ".file.farcall-0123456789abcdeF", "file" }
    for _, name in ipairs(names) do
      helper.write(dir .. "/" .. name, "")
    end
    fs.mkdir(dir .. "/.dir.farcall-0123456789abcdef", 0x1C0)
    helper.write(dir .. "/.file.farcall-0123456789abcdef", "")
    local writer = child.start(function()
      while true do
        assert(atomicfile.write(dir .. "/file", OLD, { sync = false }))
      end
    end)
    local cleaned = 0
    for _ = 1, 400 do
      cleaned = cleaned + assert(atomicfile.clean(dir))
    end
    ffi.C.kill(writer, 9)
    ffi.C.waitpid(writer, nil, 0)
    atomicfile.clean(dir)
    assert.is_true(cleaned >= 1)
    assert.equal(#names + 1, #fs.list(dir))
    assert.equal("ENOENT", select(3, atomicfile.clean(dir .. "/none")))
  end)
end)
