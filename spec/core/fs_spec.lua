-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local child = require("spec.support.child")
local helper = require("spec.helper")
local ffi = require("ffi")

local function refused(code, ok, message, got)
  assert.is_nil(ok)
  assert.is_string(message)
  assert.equal(code, got)
end

describe("fs", function()
  local dir, file
  before_each(function()
    dir = helper.scratch()
    file = dir .. "/file"
  end)

  it("makes private temporary directories", function()
    local one, two = assert(fs.mkdtemp(dir .. "/t-")), assert(fs.mkdtemp(dir .. "/t-"))
    assert.not_equal(one, two)
    assert.equal(0x1C0, fs.stat(one).mode) -- 0700
    refused("ENOENT", fs.mkdtemp(dir .. "/none/t-"))
  end)

  it("makes directories, with those above when told", function()
    refused("ENOENT", fs.mkdir(dir .. "/a/b/c", 0x1C0))
    assert.is_true(fs.mkdir(dir .. "/a//b/c/", 0x1C0, true))
    assert.is_true(fs.mkdir(dir .. "/a/b/c", 0x1C0, true))
    refused("EEXIST", fs.mkdir(dir .. "/a", 0x1C0))
    helper.write(file, "")
    refused("ENOTDIR", fs.mkdir(file .. "/x", 0x1C0, true))
    refused("EEXIST", fs.mkdir(file, 0x1C0, true))
    assert.has_error(function() fs.mkdir(dir .. "/x", -1) end)
  end)

  it("lists names of any bytes", function()
    assert.same({}, fs.list(dir))
    local names = { " a\nb", "\255\1", ".hidden", "z" }
    for _, name in ipairs(names) do
      helper.write(dir .. "/" .. name, "")
    end
    local got = assert(fs.list(dir))
    table.sort(got)
    table.sort(names)
    assert.same(names, got)
    refused("ENOENT", fs.list(dir .. "/none"))
    refused("ENOTDIR", fs.list(dir .. "/z"))
  end)

  it("tells what a path is", function()
    helper.write(file, "12345")
    ffi.C.symlink("file", dir .. "/link")
    ffi.C.mkfifo(dir .. "/fifo", 0x180)
    local st = assert(fs.stat(dir .. "/link"))
    assert.equal("file", st.type)
    assert.equal(5, st.size)
    assert.is_true(math.abs(st.mtime - os.time()) < 3600)
    assert.equal("link", fs.stat(dir .. "/link", true).type)
    assert.equal("fifo", fs.stat(dir .. "/fifo").type)
    assert.equal("directory", fs.stat(dir).type)
    assert.equal("device", fs.stat("/dev/null").type)
    assert.equal("file", fs.readlink(dir .. "/link"))
    assert.equal(fs.realpath(file), fs.realpath(dir .. "/./link"))
    refused("ENOENT", fs.stat(dir .. "/none"))
    refused("EINVAL", fs.readlink(file))
    refused("ENOENT", fs.realpath(dir .. "/none"))
  end)

  it("renames, changes modes, removes", function()
    helper.write(file, "x")
    assert.is_true(fs.chmod(file, 0x100)) -- 0400
    assert.equal(0x100, fs.stat(file).mode)
    assert.is_true(fs.rename(file, dir .. "/other"))
    assert.is_true(fs.unlink(dir .. "/other"))
    refused("ENOENT", fs.unlink(file))
    refused("ENOENT", fs.rename(file, dir .. "/other"))
    fs.mkdir(dir .. "/d", 0x1C0)
    assert.is_true(fs.rmdir(dir .. "/d"))
    refused("ENOENT", fs.rmdir(dir .. "/d"))
  end)

  it("reads whole regular files up to a size", function()
    local bytes = ("\0\1\255x"):rep(50000)
    helper.write(file, bytes)
    assert.is_true(fs.read(file, #bytes) == bytes)
    refused("LIMIT", fs.read(file, #bytes - 1))
    helper.write(file, "")
    assert.equal("", fs.read(file, 0))
    assert.matches("Name:", fs.read("/proc/self/status", 1e6)) -- whose size is told as 0
    assert.has_error(function() fs.read(file, -1) end)
    assert.has_error(function() fs.read(file, 0 / 0) end)
  end)

  it("reads nothing else, and does not hang on it", function()
    ffi.C.mkfifo(dir .. "/fifo", 0x180)
    refused("NOTFILE", fs.read(dir .. "/fifo", 10))
    refused("NOTFILE", fs.read("/dev/zero", 10))
    refused("NOTFILE", fs.read("/dev/tty", 10))
    refused("EISDIR", fs.read(dir, 10))
    refused("ENOENT", fs.read(dir .. "/none", 10))
  end)
end)

describe("fs.truncate", function()
  it("ends a file where it is told", function()
    local file = helper.scratch() .. "/file"
    refused("ENOENT", fs.truncate(file, 0))
    helper.write(file, "12345")
    assert.is_true(fs.truncate(file, 2))
    assert.equal("12", helper.read(file))
    assert.is_true(fs.truncate(file, 3))
    assert.equal("12\0", helper.read(file))
    assert.has_error(function() fs.truncate(file, -1) end)
    assert.has_error(function() fs.truncate(file, 0 / 0) end)
  end)
end)

describe("a lock", function()
  local dir, file
  before_each(function()
    dir = helper.scratch()
    file = dir .. "/lock"
  end)

  it("is one process' until it lets go or ends", function()
    local lock = assert(fs.lock(file, 0x180))
    assert.equal(0x180, fs.stat(file).mode)
    refused("EAGAIN", fs.lock(file, 0x180))
    lock:close()
    lock:close()
    assert.equal("exit", (child.run(function()
      assert(fs.lock(file, 0x180))
    end)))
    assert(fs.lock(file, 0x180)):close()
  end)

  it("is on the file that is there, when its holder removes it", function()
    local first = assert(fs.lock(file, 0x180))
    fs.unlink(file)
    local second = assert(fs.lock(file, 0x180))
    refused("EAGAIN", fs.lock(file, 0x180))
    first:close()
    refused("EAGAIN", fs.lock(file, 0x180))
    second:close()
  end)

  it("follows no link and makes no directory", function()
    ffi.C.symlink(file, dir .. "/link")
    refused("ELOOP", fs.lock(dir .. "/link", 0x180))
    refused("ENOENT", fs.lock(dir .. "/none/lock", 0x180))
    refused("EISDIR", fs.lock(dir, 0x180))
  end)
end)

describe("an appender", function()
  local dir, file
  before_each(function()
    dir = helper.scratch()
    file = dir .. "/lines"
  end)

  it("adds to the end of what is there", function()
    helper.write(file, "old\n")
    local one, two = assert(fs.appender(file, 0x180)), assert(fs.appender(file, 0x180))
    assert.is_true(one:write("one\n"))
    assert.is_true(two:write("two\n"))
    assert.is_true(one:write("more\n"))
    assert.is_true(one:write(""))
    assert.equal("old\none\ntwo\nmore\n", helper.read(file))
    assert.is_number(one:fileno())
    one:close()
    one:close()
    refused("CLOSED", one:write("x"))
    refused("CLOSED", one:fileno())
    two:close()
  end)

  it("keeps lines of several processes apart", function()
    local line = ("x"):rep(5000)
    local pids = {}
    for i = 1, 4 do
      pids[i] = child.start(function()
        local lines = assert(fs.appender(file, 0x180))
        for _ = 1, 200 do
          assert(lines:write(i .. line .. i .. "\n"))
        end
      end)
    end
    for _, pid in ipairs(pids) do
      ffi.C.waitpid(pid, nil, 0)
    end
    local count = 0
    for number, other in helper.read(file):gmatch("(%d)" .. line .. "(%d)\n") do
      assert.equal(number, other)
      count = count + 1
    end
    assert.equal(800, count)
  end)

  it("writes to nothing but a regular file", function()
    ffi.C.mkfifo(dir .. "/fifo", 0x180)
    ffi.C.symlink("lines", dir .. "/link")
    refused("NOTFILE", fs.appender(dir .. "/fifo", 0x180))
    refused("NOTFILE", fs.appender("/dev/null", 0x180))
    refused("ELOOP", fs.appender(dir .. "/link", 0x180))
    refused("EISDIR", fs.appender(dir, 0x180))
    refused("ENOENT", fs.appender(dir .. "/none/x", 0x180))
    assert.is_nil(fs.stat(file))
  end)

  it("tells when only a part or nothing went in, and lives on", function()
    local how, code = child.run(function()
      local lines = assert(fs.appender(file, 0x180))
      child.limit_file_size(10)
      local _, _, first = lines:write("12345678901234567890")
      local _, _, second = lines:write("x")
      return first == "PARTIAL" and second == "EFBIG" and 7 or 1
    end)
    assert.same({ "exit", 7 }, { how, code })
    assert.equal("1234567890", helper.read(file))
  end)
end)

describe("fs.rmtree", function()
  local dir, tree
  before_each(function()
    dir = helper.scratch()
    tree = dir .. "/tree"
  end)

  it("removes files, links, FIFOs and directories, and never what links lead to", function()
    assert(fs.mkdir(dir .. "/kept/below", 0x1C0, true))
    helper.write(dir .. "/kept/below/file", "kept")
    assert(fs.mkdir(tree .. "/a/b/c", 0x1C0, true))
    assert(fs.mkdir(tree .. "/a/d", 0x1C0, true))
    for i = 1, 300 do
      helper.write(tree .. "/a/" .. i, "")
      assert(fs.mkdir(tree .. "/a/b/" .. i, 0x1C0))
    end
    ffi.C.mkfifo(tree .. "/a/fifo", 0x180)
    ffi.C.symlink("../../kept", tree .. "/a/link")
    ffi.C.symlink("/", tree .. "/root")
    assert.is_true(fs.rmtree(tree .. "//"))
    assert.same({ "kept" }, fs.list(dir))
    assert.equal("kept", helper.read(dir .. "/kept/below/file"))
    ffi.C.symlink("kept", dir .. "/link")
    assert.is_true(fs.rmtree(dir .. "/link"))
    assert.same({ "kept" }, fs.list(dir))
  end)

  it("removes a file, and is content with nothing", function()
    helper.write(tree, "")
    assert.is_true(fs.rmtree(tree))
    assert.is_nil(fs.stat(tree))
    assert.is_true(fs.rmtree(tree))
    assert.is_true(fs.rmtree(tree .. "/none"))
  end)

  it("refuses the root and what has no name of its own", function()
    for _, path in ipairs({ "/", "//", "", ".", "..", dir .. "/.", dir .. "/../" }) do
      refused("EINVAL", fs.rmtree(path))
    end
  end)

  it("goes down 10,000 directories and comes back", function()
    local C = ffi.C
    assert(fs.mkdir(tree, 0x1C0))
    local at = C.openat(-100, tree, 0)
    for _ = 1, 10000 do
      assert(C.mkdirat(at, "deeper", 0x1C0) == 0)
      local below = C.openat(at, "deeper", 0)
      C.close(at)
      at = below
    end
    C.close(at)
    assert.is_true(fs.rmtree(tree))
    assert.is_nil(fs.stat(tree))
  end)

  it("opens up directories that are closed to their owner", function()
    for i, mode in ipairs({ 0, 0x40, 0x80, 0x100, 0x140, 0xC0 }) do
      local top = tree .. "/" .. i
      assert(fs.mkdir(top .. "/a/b", 0x1C0, true))
      helper.write(top .. "/a/file", "")
      assert(fs.chmod(top .. "/a/b", mode))
      assert(fs.chmod(top .. "/a", mode))
      assert(fs.chmod(top, mode))
    end
    assert(fs.chmod(tree, 0))
    assert.is_true(fs.rmtree(tree))
    assert.is_nil(fs.stat(tree))
  end)

  it("comes to an end while somebody moves directories about", function()
    for i = 1, 40 do
      assert(fs.mkdir(("%s/%d/a/b/c/d"):format(tree, i), 0x1C0, true))
    end
    helper.write(dir .. "/kept", "")
    local mover = child.start(function()
      while true do
        for i = 1, 40 do
          fs.rename(tree .. "/" .. i .. "/a/b", tree .. "/" .. i % 40 + 1 .. "/x")
          fs.rename(tree .. "/" .. i .. "/x", dir .. "/out")
          fs.rename(dir .. "/out", tree .. "/" .. i .. "/y")
        end
      end
    end)
    for _ = 1, 50 do
      fs.rmtree(tree)
    end
    ffi.C.kill(mover, 9)
    ffi.C.waitpid(mover, nil, 0)
    assert.is_true(fs.rmtree(tree))
    assert.is_table(fs.stat(dir .. "/kept"))
  end)
end)
