-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local fdbuf = require("farcall.core.fdbuf")
local helper = require("spec.helper")
local ffi = require("ffi")

ffi.cdef([[
int pipe(int fds[2]);
int open(const char *path, int flags, ...);
int socketpair(int domain, int type, int protocol, int fds[2]);
]])

describe("fdbuf", function()
  local loop, opened
  before_each(function()
    loop = assert(core_loop.new())
    opened = {}
  end)
  after_each(function()
    for _, b in ipairs(opened) do
      b:close()
      b:close()
    end
    assert.same({ fds = 0, timers = 0, children = 0, wakes = 0 }, loop:census())
    loop:close()
  end)

  local function take(fd, options)
    local b = assert(fdbuf.new(loop, fd, options))
    opened[#opened + 1] = b
    return b
  end

  local function pair(options)
    local ends = ffi.new("int[2]")
    assert.equal(0, ffi.C.socketpair(1, 1, 0, ends))
    return take(ends[0], options), take(ends[1], options)
  end

  local function pipe()
    local ends = ffi.new("int[2]")
    assert.equal(0, ffi.C.pipe(ends))
    return take(ends[0]), take(ends[1])
  end

  -- Turns until done() is true.
  local function until_true(done)
    local deadline = core_loop.now() + 20
    while not done() do
      assert.is_true(core_loop.now() < deadline, "it does not come")
      loop:turn(1000)
    end
  end

  local function code(...)
    return (select(3, ...))
  end

  describe("reading", function()
    it("answers what is there, and EAGAIN when nothing is", function()
      local a, b = pair()
      assert.equal("EAGAIN", code(a:read(10)))
      assert.equal("EAGAIN", code(a:readline(10)))
      assert.equal(0, b:write("one\ntwo\nthr"))
      assert.equal("one", a:readline(10))
      assert.equal("two", a:readline(10))
      assert.equal("EAGAIN", code(a:readline(10)))
      assert.equal("th", a:read(2))
      b:write("ee\n")
      assert.equal("ree", a:readline(10))
      b:write("\n\0\n")
      assert.equal("", a:readline(10))
      assert.equal("\0", a:readline(1))
      assert.equal("EAGAIN", code(a:read(1)))
    end)

    it("delivers what came before the end, and then the end, again and again", function()
      local a, b = pair()
      b:write("line\nrest")
      b:close()
      assert.equal("line", a:readline(10))
      assert.equal("EOF", code(a:readline(10)))
      assert.equal("rest", a:read(10))
      assert.equal("EOF", code(a:read(10)))
      assert.equal("EOF", code(a:readline(10)))
    end)

    it("refuses a line that is too long, and goes on refusing", function()
      local a, b = pair()
      b:write("12345\n123456\n")
      assert.equal("12345", a:readline(5))
      assert.equal("LIMIT", code(a:readline(5)))
      assert.equal("LIMIT", code(a:readline(5)))
      assert.equal("123456", a:readline(6))
    end)

    it("refuses a line that is too long before its end has come", function()
      local a, b = pair({ max_in = 10 })
      b:write("0123456789")
      assert.equal("EAGAIN", code(a:readline(100)))
      b:write("a")
      assert.equal("LIMIT", code(a:readline(100)))
      assert.equal("0123456789a", a:read(100))
      b:write("0123456789\n")
      assert.equal("0123456789", a:readline(100))
    end)

    it("of one long line is linear, in whatever pieces it comes", function()
      local size = 8 * 1024 * 1024
      local a, b = pair()
      local line
      a:on_readable(function()
        line = a:readline(size)
      end)
      b:write(("x"):rep(size) .. "\n")
      until_true(function()
        return line
      end)
      assert.equal(size, #line)
    end)

    it("takes only what its caller asks for", function()
      local a, b = pair()
      local sent = 0
      repeat
        local pending = b:write(("x"):rep(65536))
        sent = sent + 65536
      until pending > 0
      assert.is_true(#a:read(1000) == 1000)
      for _ = 1, 20 do
        loop:turn(0)
      end
      assert.is_true(b:pending() > 0)
      local got = 1000
      a:on_readable(function()
        local bytes = a:read(1e6)
        got = got + #(bytes or "")
      end)
      until_true(function()
        return got == sent
      end)
      assert.equal(0, b:pending())
    end)
  end)

  describe("on_readable", function()
    it("leaves no line in the buffer, also when each call takes only one", function()
      local a, b = pair()
      local lines = {}
      a:on_readable(function()
        lines[#lines + 1] = a:readline(10)
      end)
      b:write("1\n2\n3\n4\npart")
      until_true(function()
        return #lines == 4
      end)
      b:write("ial\n")
      until_true(function()
        return #lines == 5
      end)
      assert.same({ "1", "2", "3", "4", "partial" }, lines)
    end)

    it("is not called again for what a reader has seen to be too little", function()
      local a, b = pair()
      local calls = 0
      a:on_readable(function()
        calls = calls + 1
        repeat
        until not a:readline(100)
      end)
      b:write("a\nb\nc")
      until_true(function()
        return calls == 1
      end)
      for _ = 1, 5 do
        loop:turn(0)
      end
      assert.equal(1, calls)
    end)

    it("is called for what is in the buffer when it is set anew", function()
      local a, b = pair()
      b:write("1\n2\n3\n")
      assert.equal("1", a:readline(10))
      local got = {}
      local function one()
        got[#got + 1] = a:readline(10)
        a:on_readable(nil)
      end
      a:on_readable(one)
      loop:run() -- ends, as nothing is left to call
      a:on_readable(one)
      loop:run()
      assert.same({ "2", "3" }, got)
    end)

    it("tells of the end once for each function, and does not keep the loop busy", function()
      local a, b = pair()
      b:close()
      local ends = 0
      local function reader()
        ends = ends + (code(a:read(1)) == "EOF" and 1 or 0)
      end
      a:on_readable(reader)
      loop:run()
      assert.equal(1, ends)
      a:on_readable(reader)
      loop:run()
      assert.equal(2, ends)
    end)

    it("may close or forget the object, or set another function", function()
      local a, b = pair()
      local seen = {}
      b:write("x\ny\n")
      a:on_readable(function()
        seen[#seen + 1] = a:readline(10)
        a:on_readable(function()
          seen[#seen + 1] = a:readline(10)
          a:close()
          collectgarbage()
          assert.equal("CLOSED", code(a:readline(10)))
        end)
      end)
      loop:run()
      assert.same({ "x", "y" }, seen)
      assert.equal("CLOSED", code(a:fileno()))
    end)

    it("raises through run what it raises", function()
      local a, b = pair()
      b:write("x")
      a:on_readable(function()
        error("in the reader")
      end)
      local ok, message = pcall(loop.run, loop)
      assert.is_false(ok)
      assert.matches("in the reader", message)
    end)

    it("keeps nobody waiting for one who never stops writing", function()
      local a, b = pair()
      local c, d = pair()
      local block = ("x"):rep(1e6)
      a:on_readable(function()
        repeat
          -- Refilled while it is read: the kernel's buffer never becomes empty.
          if b:pending() == 0 then
            b:write(block)
          end
        until not a:read(4096)
      end)
      b:write(block)
      local seen
      c:on_readable(function()
        seen = c:read(10)
      end)
      d:write("me too")
      until_true(function()
        return seen
      end)
    end)
  end)

  describe("writing", function()
    it("keeps what the kernel does not take, in order", function()
      local a, b = pair()
      local parts, total = {}, 0
      for i = 1, 300 do
        parts[i] = (string.char(i % 256)):rep(10007)
        total = total + #parts[i]
        b:write(parts[i])
      end
      assert.is_true(b:pending() > 0)
      local drained = 0
      b:on_drained(function()
        drained = drained + 1
        assert.equal(0, b:pending())
        b:finish()
      end)
      local got = {}
      local ended
      a:on_readable(function()
        local bytes, _, why = a:read(100000)
        got[#got + 1] = bytes
        ended = why == "EOF"
      end)
      until_true(function()
        return ended
      end)
      assert.equal(1, drained)
      assert.is_true(table.concat(got) == table.concat(parts))
    end)

    it("tells a peer that is gone, and never by a signal", function()
      for _, make in ipairs({ pair, pipe }) do
        local a, b = make()
        a:close()
        assert.equal("EPIPE", code(b:write("x")))
        assert.equal("EPIPE", code(b:write("x")))
        assert.equal(0, b:pending())
      end
    end)

    it("tells a peer that goes while bytes are pending", function()
      for _, make in ipairs({ pair, pipe }) do
        local a, b = make()
        b:write(("x"):rep(1e6))
        assert.is_true(b:pending() > 0)
        local drained
        b:on_drained(function()
          drained = true
        end)
        a:close()
        loop:run()
        assert.is_true(drained)
        assert.equal(0, b:pending())
        assert.is_nil(b:write("x"))
      end
    end)

    it("has a limit, and takes all or nothing", function()
      local a, b = pair({ max_out = 1000000 })
      assert.equal("LIMIT", code(b:write(("x"):rep(1000001))))
      assert.equal("EAGAIN", code(a:read(1)))
      b:write(("x"):rep(1000000))
      local pending = b:pending()
      assert.is_true(pending > 0)
      assert.equal("LIMIT", code(b:write(("y"):rep(1000001 - pending))))
      assert.equal(pending, b:pending())
    end)

    it("says drained when nothing was pending at all", function()
      local _, b = pair()
      local calls = 0
      b:on_drained(function()
        calls = calls + 1
      end)
      assert.equal(0, calls)
      loop:run()
      assert.equal(1, calls)
      b:on_drained(print)
      b:on_drained(nil)
      loop:run()
    end)

    it("goes on when the object is forgotten", function()
      local a, b = pair()
      local size = 3000000
      b:write(("x"):rep(size))
      b:finish()
      opened[2] = a
      local weak = setmetatable({ b }, { __mode = "v" })
      b = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      local got, ended = 0, false
      a:on_readable(function()
        local bytes, _, why = a:read(1e6)
        got = got + #(bytes or "")
        ended = why == "EOF"
      end)
      until_true(function()
        return ended
      end)
      assert.equal(size, got)
      collectgarbage()
      collectgarbage()
      assert.is_nil(weak[1])
    end)
  end)

  describe("finish", function()
    it("half-closes a socket: the other direction goes on", function()
      local a, b = pair()
      b:write("question\n")
      b:finish()
      b:finish()
      assert.equal("CLOSED", code(b:write("more")))
      assert.equal("question", a:readline(100))
      assert.equal("EOF", code(a:readline(100)))
      a:write("answer\n")
      assert.equal("answer", b:readline(100))
    end)

    it("closes a pipe when all is written", function()
      local a, b = pipe()
      b:write(("x"):rep(200000))
      b:finish()
      assert.is_number(b:fileno())
      local got, ended = 0, false
      a:on_readable(function()
        local bytes, _, why = a:read(65536)
        got = got + #(bytes or "")
        ended = why == "EOF"
      end)
      until_true(function()
        return ended
      end)
      assert.equal(200000, got)
      assert.equal("CLOSED", code(b:fileno()))
    end)
  end)

  it("reads a regular file as if it were a stream", function()
    local path = helper.write(helper.scratch() .. "/file", ("line\n"):rep(5000) .. "rest")
    local b = take(ffi.C.open(path, 0))
    local lines, ended = 0, false
    b:on_readable(function()
      local line, _, why = b:readline(100)
      lines = lines + (line and 1 or 0)
      ended = ended or why == "EOF"
    end)
    until_true(function()
      return ended
    end)
    assert.equal(5000, lines)
    assert.equal("rest", b:read(100))
  end)

  it("refuses what is no descriptor, and options that do not exist", function()
    assert.equal("EBADF", code(fdbuf.new(loop, -1)))
    assert.has_error(function()
      fdbuf.new(loop, 0, { max = 1 })
    end)
    assert.has_error(function()
      fdbuf.new(loop, 0, { max_in = -1 })
    end)
    local a = pair()
    assert.has_error(function()
      a:read(0)
    end)
    assert.has_error(function()
      a:on_readable("x")
    end)
  end)

  it("does nothing harmful after close, nor when the loop has gone first", function()
    local a, b = pair()
    a:on_readable(print)
    a:on_drained(print)
    a:close()
    for _, method in ipairs({ "read", "readline" }) do
      assert.equal("CLOSED", code(a[method](a, 1)))
    end
    assert.equal("CLOSED", code(a:write("x")))
    assert.equal(0, a:pending())
    a:on_readable(print)
    a:on_drained(print)
    a:finish()
    loop:run()
    b:on_readable(print)
    loop:close()
    b:write("x")
    b:on_readable(nil)
    b:close()
    loop = core_loop.new()
  end)

  it("holds little memory when idle, for any number of connections", function()
    local function resident()
      return tonumber(helper.read("/proc/self/statm"):match("^%d+ (%d+)")) * 4096
    end
    local before
    for i = 1, 400 do
      if i == 201 then
        collectgarbage()
        before = resident()
      end
      local a, b = pair()
      a:on_readable(function()
        a:readline(1000)
      end)
      b:write(("x"):rep(500) .. "\n")
      loop:turn(0)
    end
    for _ = 1, 20 do
      loop:turn(0)
    end
    collectgarbage()
    assert.is_true(resident() - before < 200 * 2 * 8192)
  end)
end)
