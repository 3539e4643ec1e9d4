-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local helper = require("spec.helper")
local ffi = require("ffi")

ffi.cdef([[
int pipe(int fds[2]);
int close(int fd);
int getpid(void);
int kill(int pid, int signal);
int raise(int signal);
struct spec_pollfd { int fd; short events, revents; };
int poll(struct spec_pollfd *fds, unsigned long count, int timeout);
long write(int fd, const void *bytes, size_t size);
long read(int fd, void *bytes, size_t size);
]])

local function blocked_signals()
  return helper.read("/proc/thread-self/status"):match("SigBlk:%s*(%x+)")
end

describe("loop", function()
  local loop, pipes
  before_each(function()
    loop = assert(core_loop.new())
    pipes = {}
  end)
  after_each(function()
    loop:close()
    loop:close()
    for _, fd in ipairs(pipes) do
      ffi.C.close(fd)
    end
  end)

  -- A pipe's two ends; written: with a byte in it.
  local function pipe(written)
    local ends = ffi.new("int[2]")
    assert.equal(0, ffi.C.pipe(ends))
    pipes[#pipes + 1] = ends[0]
    pipes[#pipes + 1] = ends[1]
    if written then
      ffi.C.write(ends[1], "x", 1)
    end
    return ends[0], ends[1]
  end

  local function none()
    return { fds = 0, timers = 0, children = 0, wakes = 0 }
  end

  describe("timers", function()
    it("come in the order of their time, then of their start", function()
      local order = {}
      for i, ms in ipairs({ 6, 2, 4, 2, 0, 6, 0 }) do
        loop:timer(ms, function()
          order[#order + 1] = i
        end)
      end
      assert.equal(7, loop:census().timers)
      loop:run()
      assert.same({ 5, 7, 2, 4, 3, 1, 6 }, order)
      assert.same(none(), loop:census())
    end)

    it("do not come early", function()
      local started = core_loop.now()
      loop:timer(20, function() end)
      loop:run()
      assert.is_true(core_loop.now() - started >= 0.02)
    end)

    it("can be closed by any callback, also twice", function()
      local called = {}
      local timers = {}
      for i = 1, 50 do
        timers[i] = loop:timer(1, function()
          called[#called + 1] = i
          timers[i]:close()
          timers[(i % 50) + 1]:close()
        end)
      end
      loop:run()
      for i = 2, #called do
        assert.is_true(called[i] ~= called[i - 1] + 1)
      end
      timers[1]:close()
      assert.same(none(), loop:census())
    end)

    it("run again, from within and from outside", function()
      local count = 0
      local timer
      timer = loop:timer(0, function()
        count = count + 1
        if count < 3 then
          timer:again(0)
        end
      end)
      loop:run()
      assert.equal(3, count)
      timer:again(5)
      timer:again(0)
      assert.equal(1, loop:census().timers)
      loop:run()
      assert.equal(4, count)
    end)

    it("of any number keep their order", function()
      math.randomseed(7)
      local last, count = 0, 0
      local timers = {}
      for i = 1, 2000 do
        local ms = math.random(0, 20)
        local due = core_loop.now() + ms / 1000
        timers[i] = loop:timer(ms, function()
          -- The loop has read the clock a little later than this spec.
          assert.is_true(due >= last - 0.005)
          last = due
          count = count + 1
        end)
      end
      for i = 1, 2000, 3 do
        timers[i]:close()
      end
      loop:run()
      assert.equal(2000 - 667, count)
    end)

    it("that start each other leave room for descriptors", function()
      local timer
      timer = loop:timer(0, function()
        timer:again(0)
      end)
      local fd = pipe(true)
      local seen
      local watch
      watch = loop:watch(fd, "r", function()
        seen = true
        watch:close()
        timer:close()
      end)
      loop:run()
      assert.is_true(seen)
    end)

    it("refuse what is no time", function()
      assert.has_error(function()
        loop:timer(-1, print)
      end)
      assert.has_error(function()
        loop:timer(0 / 0, print)
      end)
      assert.has_error(function()
        loop:timer(1, "print")
      end)
    end)

    it("that nobody holds are kept while they run and collected afterwards", function()
      local weak = setmetatable({}, { __mode = "k" })
      local called = false
      do
        local timer
        timer = loop:timer(1, function()
          called = timer ~= nil
        end)
        weak[timer] = true
      end
      collectgarbage()
      collectgarbage()
      loop:run()
      assert.is_true(called)
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(weak))
    end)
  end)

  describe("watches", function()
    it("tell what is ready, for as long as it is", function()
      local fd, other = pipe()
      local seen = {}
      local reading, writing
      writing = loop:watch(other, "w", function(ready)
        seen[#seen + 1] = ready
        ffi.C.write(other, "x", 1)
        writing:close()
      end)
      reading = loop:watch(fd, "r", function(ready)
        seen[#seen + 1] = ready
        if #seen == 4 then
          reading:close()
        end
      end)
      assert.equal(2, loop:census().fds)
      loop:run()
      assert.same({ "w", "r", "r", "r" }, seen)
      assert.same(none(), loop:census())
    end)

    it("change what they want", function()
      local fd = pipe(true)
      local count = 0
      local watch = loop:watch(fd, "", function()
        count = count + 1
      end)
      loop:run() -- ends at once: nothing can call
      loop:turn(0)
      assert.equal(0, count)
      watch:want("r")
      loop:turn(0)
      loop:turn(0)
      assert.equal(2, count)
      watch:want("")
      for _ = 1, 3 do
        loop:turn(0)
      end
      assert.equal(2, count)
      watch:want("r")
      loop:turn(0)
      assert.equal(3, count)
      watch:close()
      assert.equal("CLOSED", select(3, watch:want("r")))
    end)

    it("hear of a hangup, but not while they want nothing", function()
      local fd, other = pipe()
      local seen = {}
      local watch
      watch = loop:watch(fd, "r", function(ready)
        seen[#seen + 1] = ready
        watch:want("")
      end)
      ffi.C.close(other)
      pipes[2] = nil
      loop:run()
      assert.same({ "r" }, seen)
      -- No busy turn: this one waits for its timer.
      local late = false
      loop:timer(10, function()
        late = true
      end)
      local turns = 0
      while not late do
        loop:turn(-1)
        turns = turns + 1
      end
      assert.is_true(turns <= 3)
      watch:close()
    end)

    it("that one callback closes are not called by events of the same turn", function()
      local watches, calls = {}, 0
      for i = 1, 20 do
        watches[i] = loop:watch(pipe(true), "r", function()
          calls = calls + 1
          for _, watch in ipairs(watches) do
            watch:close()
          end
        end)
      end
      loop:run()
      assert.equal(1, calls)
    end)

    it("that take the place of a closed one do not get its events", function()
      local empty = pipe()
      local first, second, fresh = pipe(true), pipe(true), nil
      local wrong = false
      local watches = {}
      local function replace()
        for _, watch in ipairs(watches) do
          watch:close()
        end
        fresh = fresh or loop:watch(empty, "r", function()
          wrong = true
        end)
      end
      watches[1] = loop:watch(first, "r", replace)
      watches[2] = loop:watch(second, "r", replace)
      loop:turn(0)
      loop:turn(0)
      assert.is_false(wrong)
      fresh:close()
    end)

    it("are one a descriptor, and not for files", function()
      local fd = pipe()
      local watch = loop:watch(fd, "r", print)
      assert.equal("EEXIST", select(3, loop:watch(fd, "r", print)))
      watch:close()
      assert.equal("EBADF", select(3, loop:watch(-1, "r", print)))
      local path = helper.write(helper.scratch() .. "/f", "")
      ffi.cdef("int open(const char *path, int flags, ...);")
      local file = ffi.C.open(path, 0)
      pipes[#pipes + 1] = file
      assert.equal("EPERM", select(3, loop:watch(file, "r", print)))
      assert.same(none(), loop:census())
    end)

    it("all get their turn, however many are ready", function()
      local counts, watches = {}, {}
      for i = 1, 150 do
        counts[i] = 0
        watches[i] = loop:watch(pipe(true), "r", function()
          counts[i] = counts[i] + 1
        end)
      end
      for _ = 1, 6 do
        loop:turn(0)
      end
      for i = 1, 150 do
        assert.is_true(counts[i] >= 1)
        watches[i]:close()
      end
    end)
  end)

  describe("errors", function()
    it("of a callback are raised by run, with a traceback, and the loop goes on", function()
      local other = false
      loop:timer(0, function()
        error("boom")
      end)
      loop:timer(0, function()
        other = true
      end)
      local ok, message = pcall(loop.run, loop)
      assert.is_false(ok)
      assert.matches("boom", message)
      assert.matches("traceback", message)
      assert.is_false(other)
      loop:run()
      assert.is_true(other)
    end)

    it("that are objects stay what they are, and turn raises too", function()
      local object = {}
      loop:timer(0, function()
        error(object)
      end)
      local ok, got = pcall(loop.turn, loop, 100)
      assert.is_false(ok)
      assert.equal(object, got)
    end)
  end)

  describe("signals", function()
    it("arrive by name, and the mask is restored", function()
      local before = blocked_signals()
      local names = {}
      local signals
      signals = assert(loop:signals({ "USR1", "USR2" }, function(name)
        names[#names + 1] = name
        if #names == 2 then
          signals:close()
        end
      end))
      assert.not_equal(before, blocked_signals())
      ffi.C.kill(ffi.C.getpid(), 10)
      ffi.C.kill(ffi.C.getpid(), 12)
      loop:run()
      table.sort(names)
      assert.same({ "USR1", "USR2" }, names)
      assert.equal(before, blocked_signals())
      signals:close()
    end)

    it("of two objects do not undo each other", function()
      local before = blocked_signals()
      local first = loop:signals({ "USR1", "HUP" }, print)
      local second = loop:signals({ "HUP", "USR2" }, print)
      first:close()
      second:close()
      second:close()
      local left = tonumber(blocked_signals(), 16) - tonumber(before, 16)
      assert.equal(0, left)
    end)

    it("must have names", function()
      assert.has_error(function()
        loop:signals({ "NOPE" }, print)
      end)
      assert.has_error(function()
        loop:signals({ {} }, print)
      end)
    end)
  end)

  it("can sit in another loop", function()
    local fd = assert(loop:pollfd())
    local wait = ffi.new("struct spec_pollfd[1]", { { fd = fd, events = 1 } })
    assert.equal(0, ffi.C.poll(wait, 1, 0))
    local count = 0
    local timer
    timer = loop:timer(5, function()
      count = count + 1
      if count < 3 then
        timer:again(1)
      end
    end)
    while count < 3 do
      assert.equal(1, ffi.C.poll(wait, 1, 5000))
      loop:turn(0)
    end
    assert.equal(0, ffi.C.poll(wait, 1, 0))
    loop:timer(0, function() end):close()
    assert.equal(0, ffi.C.poll(wait, 1, 5))
  end)

  it("stops in the middle of a turn and finds the rest again", function()
    local calls = 0
    local watches = {}
    for i = 1, 3 do
      watches[i] = loop:watch(pipe(true), "r", function()
        calls = calls + 1
        watches[i]:close()
        loop:stop()
      end)
    end
    loop:run()
    assert.equal(1, calls)
    loop:run()
    loop:run()
    assert.equal(3, calls)
    loop:stop()
    loop:timer(0, function()
      calls = calls + 1
    end)
    loop:run()
    assert.equal(4, calls)
  end)

  it("can be closed with everything still started", function()
    local timer = loop:timer(1000, print)
    local watch = loop:watch(pipe(), "r", print)
    local signals = loop:signals({ "USR1" }, print)
    loop:close()
    assert.equal("CLOSED", select(3, timer:again(1)))
    timer:close()
    watch:close()
    signals:close()
    for _, method in ipairs({ "run", "turn", "stop", "census", "pollfd" }) do
      assert.has_error(function()
        loop[method](loop)
      end, "the loop is closed")
    end
  end)

  it("is not closed by its own callback", function()
    loop:timer(0, function()
      loop:close()
    end)
    assert.is_false(pcall(loop.run, loop))
  end)

  it("turns inside a callback", function()
    local order = {}
    loop:timer(0, function()
      order[#order + 1] = "outer"
      loop:timer(0, function()
        order[#order + 1] = "inner"
      end)
      loop:turn(1000)
      order[#order + 1] = "after"
    end)
    loop:run()
    assert.same({ "outer", "inner", "after" }, order)
  end)

  it("serves coroutines that have died since", function()
    local called = false
    coroutine.wrap(function()
      loop:timer(1, function()
        called = true
      end)
    end)()
    collectgarbage()
    coroutine.wrap(function()
      loop:run()
    end)()
    assert.is_true(called)
  end)
end)
