-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local fs = require("farcall.core.fs")
local sock = require("farcall.core.sock")
local helper = require("spec.helper")
local ffi = require("ffi")

ffi.cdef([[
int dup(int fd);
int close(int fd);
int getpid(void);
unsigned getuid(void);
unsigned getgid(void);
unsigned umask(unsigned mask);
struct spec_fd_limit { unsigned long soft, hard; };
int prlimit(int pid, int what, const struct spec_fd_limit *limit, struct spec_fd_limit *before);
]])

describe("sock", function()
  local loop, path, opened
  before_each(function()
    loop = assert(core_loop.new())
    path = helper.scratch() .. "/socket"
    opened = {}
  end)
  after_each(function()
    for _, object in ipairs(opened) do
      object:close()
    end
    assert.same({ fds = 0, timers = 0, children = 0, wakes = 0 }, loop:census())
    loop:close()
  end)

  local function keep(object)
    opened[#opened + 1] = object
    return object
  end

  -- Listens and answers each line with itself.
  local function listen_echo(options)
    return keep(assert(sock.listen(loop, path, options, function(io)
      keep(io)
      io:on_readable(function()
        local line, _, code = io:readline(1000)
        if line then
          io:write(line .. "\n")
        elseif code ~= "EAGAIN" then
          io:close()
        end
      end)
    end)))
  end

  local function connect()
    return keep(assert(sock.connect(loop, path)))
  end

  local function answer(io)
    local line
    io:on_readable(function()
      line = io:readline(1000)
    end)
    local deadline = core_loop.now() + 20
    while not line and core_loop.now() < deadline do
      loop:turn(1000)
    end
    io:on_readable(nil)
    return line
  end

  it("connects both sides", function()
    listen_echo()
    local clients = {}
    for i = 1, 40 do
      clients[i] = connect()
      clients[i]:write("hello " .. i .. "\n")
    end
    for i = 1, 40 do
      assert.equal("hello " .. i, answer(clients[i]))
    end
  end)

  it("names the peer as the kernel knows it", function()
    local seen
    keep(assert(sock.listen(loop, path, {}, function(io, peer)
      keep(io)
      seen = peer
      loop:stop()
    end)))
    connect()
    loop:run()
    assert.same(
      { pid = ffi.C.getpid(), uid = ffi.C.getuid(), gid = ffi.C.getgid() }, seen)
  end)

  it("gives the file its mode whatever the umask, and removes it", function()
    for _, mask in ipairs({ 0, 0x1FF }) do
      local before = ffi.C.umask(mask)
      local listener = sock.listen(loop, path, { mode = 0x180 }, print)
      ffi.C.umask(before)
      assert.equal(0x180, fs.stat(path).mode)
      listener:close()
      listener:close()
      assert.is_nil(fs.stat(path))
    end
    local listener = listen_echo()
    assert.equal(0x180, fs.stat(path).mode)
    listener:close()
  end)

  it("leaves a file alone that has taken its place", function()
    local listener = listen_echo()
    fs.unlink(path)
    helper.write(path, "somebody else's")
    listener:close()
    assert.equal("somebody else's", helper.read(path))
  end)

  it("says what is wrong with a path", function()
    listen_echo()
    assert.equal("EADDRINUSE", select(3, sock.listen(loop, path, {}, print)))
    local long = path .. ("x"):rep(108 - #path)
    local object, message, code = sock.listen(loop, long, {}, print)
    assert.is_nil(object)
    assert.equal("ENAMETOOLONG", code)
    assert.matches("at most 107 bytes, this one has 108", message, 1, true)
    assert.matches(long, message, 1, true)
    assert.equal("ENAMETOOLONG", select(3, sock.connect(loop, long)))
    keep(assert(sock.listen(loop, long:sub(1, 107), {}, print)))
    object, message, code = sock.connect(loop, path .. "-not")
    assert.is_nil(object)
    assert.matches(path .. "-not", message, 1, true)
    assert.equal("ENOENT", code)
    assert.equal("EINVAL", select(3, sock.connect(loop, "")))
    assert.has_error(function()
      sock.connect(loop, "a\0b")
    end)
    local other = path .. "2"
    helper.write(other, "")
    assert.equal("ECONNREFUSED", select(3, sock.connect(loop, other)))
  end)

  it("refuses options that do not exist", function()
    assert.has_error(function()
      sock.listen(loop, path, { mod = 1 }, print)
    end)
    assert.has_error(function()
      sock.listen(loop, path, { mode = 0x1000 }, print)
    end)
    assert.has_error(function()
      sock.listen(loop, path, {})
    end)
    assert.is_nil(fs.stat(path))
  end)

  it("can be closed by its own callback", function()
    local listener
    local count = 0
    listener = keep(assert(sock.listen(loop, path, {}, function(io)
      count = count + 1
      io:close()
      listener:close()
      collectgarbage()
    end)))
    connect()
    connect()
    loop:run()
    assert.equal(1, count)
  end)

  it("raises what its callback raises, and does not lose the next connection", function()
    local count = 0
    keep(assert(sock.listen(loop, path, {}, function(io)
      io:close()
      count = count + 1
      if count == 1 then
        error("in accept")
      end
      loop:stop()
    end)))
    connect()
    connect()
    local ok, message = pcall(loop.run, loop)
    assert.is_false(ok)
    assert.matches("in accept", message)
    if count == 1 then
      loop:run()
    end
    assert.equal(2, count)
  end)

  it("survives running out of descriptors", function()
    listen_echo()
    local RLIMIT_NOFILE = 7
    local limit = ffi.new("struct spec_fd_limit")
    ffi.C.prlimit(0, RLIMIT_NOFILE, nil, limit)
    local client = connect()
    client:write("late\n")
    local low = ffi.new("struct spec_fd_limit", { 64, limit.hard })
    ffi.C.prlimit(0, RLIMIT_NOFILE, low, nil)
    local held = {}
    repeat
      local fd = ffi.C.dup(0)
      held[#held + 1] = fd >= 0 and fd or nil
    until fd < 0
    -- No busy loop meanwhile: the turns wait for the timer that tries again.
    local turns, until_time = 0, core_loop.now() + 0.25
    while core_loop.now() < until_time do
      loop:turn(50)
      turns = turns + 1
    end
    for _, fd in ipairs(held) do
      ffi.C.close(fd)
    end
    ffi.C.prlimit(0, RLIMIT_NOFILE, limit, nil)
    assert.is_true(#held > 0)
    assert.is_true(turns < 40)
    assert.equal("late", answer(client))
  end)

  it("makes a pair for a child", function()
    local io, fd = sock.pair(loop)
    keep(io)
    ffi.cdef("long write(int fd, const void *bytes, size_t size);")
    ffi.C.write(fd, "from the child\n", 15)
    assert.equal("from the child", answer(io))
    ffi.C.close(fd)
    assert.equal("EOF", select(3, io:read(1)))
  end)
end)
