-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local fs = require("farcall.core.fs")
local work = require("farcall.core.work")
local helper = require("spec.helper")
local ffi = require("ffi")
require("spec.support.child") -- declares what is called by ffi

describe("work", function()
  local loop, w, dir
  before_each(function()
    dir = helper.scratch()
    loop = assert(core_loop.new())
    w = assert(work.new(loop))
  end)
  after_each(function()
    w:close()
    w:close()
    assert.equal(0, w:pending())
    loop:close()
  end)

  -- Starts a job, runs the loop to its end and returns what the callback got.
  local function await(method, ...)
    local got
    local arguments = { ... }
    arguments[#arguments + 1] = function(...)
      got = { ... }
    end
    assert(w[method](w, unpack(arguments)))
    assert.equal(1, w:pending())
    loop:run()
    assert.equal(0, w:pending())
    assert.is_table(got, "the loop ended before the callback came")
    return unpack(got, 1, 3)
  end

  it("writes files atomically", function()
    local path = dir .. "/a/b/file"
    local ok, message, code = await("write_file", path, "x", {})
    assert.is_nil(ok)
    assert.equal("ENOENT", code)
    assert.matches(path, message, 1, true)
    assert.is_true(await("write_file", path, "one\0two", { parents = true, mode = 0x1A4 }))
    assert.equal("one\0two", helper.read(path))
    assert.equal(0x1A4, fs.stat(path).mode)
    assert.is_true(await("write_file", path, ("z"):rep(1e6), { sync = false }))
    assert.equal(1000000, fs.stat(path).size)
    assert.same({ "file" }, fs.list(dir .. "/a/b"))
    assert.equal("EISDIR", select(3, await("write_file", dir, "x", {})))
  end)

  it("reads a part of a file, or all of it", function()
    local path = helper.write(dir .. "/file", "0123456789")
    local bytes, size = await("read_file", path, { max = 4, offset = 3 })
    assert.equal("3456", bytes)
    assert.equal(10, size)
    assert.equal("0123456789", (await("read_file", path, {})))
    assert.equal("89", (await("read_file", path, { offset = 8 })))
    assert.equal("", (await("read_file", path, { offset = 1000 })))
    assert.equal("", (await("read_file", path, { max = 0 })))
  end)

  it("refuses to read what is not a regular file, without waiting for it", function()
    ffi.C.mkfifo(dir .. "/fifo", 0x180)
    for path, code in pairs({
      [dir .. "/fifo"] = "NOTFILE", ["/dev/zero"] = "NOTFILE", [dir] = "EISDIR",
      [dir .. "/none"] = "ENOENT",
    }) do
      local bytes, message, got = await("read_file", path, {})
      assert.is_nil(bytes)
      assert.equal(code, got)
      assert.matches(path, message, 1, true)
    end
  end)

  it("syncs a descriptor that may be closed meanwhile", function()
    for _, method in ipairs({ "fsync", "fdatasync" }) do
      local lines = assert(fs.appender(dir .. "/lines", 0x180))
      lines:write("x\n")
      local got
      assert(w[method](w, lines:fileno(), function(ok) got = ok end))
      lines:close()
      loop:run()
      assert.is_true(got)
    end
    assert.equal("EBADF", select(3, w:fsync(12345, print)))
    assert.equal(0, w:pending())
  end)

  it("looks up names", function()
    local list = assert(await("resolve", "127.0.0.1", "80"))
    assert.same({ { family = "inet", address = "127.0.0.1", port = 80 } }, list)
    assert.same({ { family = "inet6", address = "::1", port = 443 } },
      (await("resolve", "::1", "443")))
    assert.is_true(#assert(await("resolve", "localhost", "80")) >= 1)
    local none, message, code = await("resolve", "127.0.0.1", "no such service")
    assert.is_nil(none)
    assert.equal("RESOLVE", code)
    assert.matches("^127%.0%.0%.1: .+", message)
  end)

  it("runs many jobs, and more that callbacks start", function()
    local came = 0
    for i = 1, 200 do
      local path = dir .. "/" .. i
      w:write_file(path, tostring(i), { sync = false }, function(ok)
        assert(ok)
        w:read_file(path, {}, function(bytes)
          assert(bytes == tostring(i))
          came = came + 1
        end)
      end)
    end
    assert.equal(200, w:pending())
    loop:run()
    assert.equal(200, came)
  end)

  it("says when too many are pending", function()
    local accepted, came = 0, 0
    local ok, _, code
    repeat
      ok, _, code = w:resolve("127.0.0.1", "80", function() came = came + 1 end)
      accepted = accepted + (ok and 1 or 0)
    until not ok
    assert.equal("EAGAIN", code)
    assert.is_true(accepted >= 1000)
    loop:run()
    assert.equal(accepted, came)
    assert.is_true(#assert(await("resolve", "127.0.0.1", "80")) == 1)
  end)

  it("calls nobody whose job was cancelled", function()
    local came = 0
    local ids = {}
    for i = 1, 100 do
      ids[i] = w:write_file(dir .. "/" .. i, ("x"):rep(10000), {}, function() came = came + 1 end)
    end
    for i = 1, 100, 2 do
      assert.is_true(w:cancel(ids[i]))
      assert.is_false(w:cancel(ids[i]))
    end
    assert.equal(50, w:pending())
    loop:run()
    assert.equal(50, came)
    assert.is_false(w:cancel(ids[2]))
    assert.is_false(w:cancel(-1))
  end)

  it("can be closed while jobs run, also by a callback or the collector", function()
    local function fill(other, fn)
      for i = 1, 50 do
        other:write_file(dir .. "/" .. i, ("x"):rep(100000), {}, fn)
        other:resolve("localhost", "80", fn)
      end
    end
    fill(w, function() error("called after close") end)
    w:close()
    loop:run()
    for _ = 1, 20 do
      local other, calls = work.new(loop), 0
      fill(other, function()
        calls = calls + 1
        other:close()
      end)
      loop:run()
      assert.equal(1, calls)
    end
    do
      local other = work.new(loop)
      fill(other, error)
      other:close()
    end
    collectgarbage()
    for _, name in ipairs(fs.list(dir)) do
      assert.matches("^%d+$", name)
    end
  end)

  it("survives a loop that is closed first", function()
    local other = assert(core_loop.new())
    local own = work.new(other)
    own:write_file(dir .. "/file", ("x"):rep(1e6), {}, error)
    other:close()
    assert.is_nil((own:write_file(dir .. "/other", "x", {}, error)))
    own:close()
  end)

  it("lets the loop raise what a callback raised, and goes on", function()
    w:write_file(dir .. "/file", "x", {}, function() error("oh dear") end)
    local ok, message = pcall(loop.run, loop)
    assert.is_false(ok)
    assert.matches("oh dear", tostring(message))
    assert.equal("x", (await("read_file", dir .. "/file", {})))
  end)

  it("raises for misuse, and after its end", function()
    assert.has_error(function() w:write_file(dir .. "/f", "x", { mod = 1 }, print) end)
    assert.has_error(function() w:write_file(dir .. "/f", "x", {}) end)
    assert.has_error(function() w:read_file(dir .. "/f", { max = -1 }, print) end)
    assert.has_error(function() w:read_file(dir .. "/f", { max = "x" }, print) end)
    assert.has_error(function() w:resolve("host", nil, print) end)
    assert.equal(0, w:pending())
    w:close()
    assert.has_error(function() w:resolve("127.0.0.1", "80", print) end)
  end)
end)
