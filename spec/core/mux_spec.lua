-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local mux = require("farcall.core.mux")
local bit = require("bit")

local OPEN, DATA, END, WINDOW, RESET, ACK, PING, PONG = 1, 2, 3, 4, 5, 6, 7, 8
local FIRST_WINDOW = 65536
local MAX_PAYLOAD = 32768

local function u32(value)
  return string.char(bit.band(bit.rshift(value, 24), 255), bit.band(bit.rshift(value, 16), 255),
    bit.band(bit.rshift(value, 8), 255), bit.band(value, 255))
end

local function frame(id, type, payload, length)
  payload = payload or ""
  return u32(id) .. string.char(type) .. u32(length or #payload):sub(2) .. payload
end

local function number(bytes)
  local value = 0
  for i = 1, #bytes do
    value = value * 256 + bytes:byte(i)
  end
  return value
end

-- The frames of a text: {id, type, payload}.
local function frames(text)
  local list = {}
  while #text > 0 do
    local size = number(text:sub(6, 8))
    list[#list + 1] = { number(text:sub(1, 4)), text:byte(5), text:sub(9, 8 + size) }
    text = text:sub(9 + size)
  end
  return list
end

-- The same numbers for the same seed on every machine.
local function randomness(seed)
  local state = seed * 7919 + 12345
  return function(low, high)
    state = (state * 16807) % 2147483647
    return low + state % (high - low + 1)
  end
end

local TEXT
do
  local random = randomness(1)
  local parts = {}
  for i = 1, 65537 do
    parts[i] = string.char(random(0, 255))
  end
  TEXT = table.concat(parts)
end

-- What stands at `offset` of stream `which`: no two of them are alike.
local function stream_bytes(which, offset, size)
  local from = (which * 4099 + offset) % #TEXT
  local text = TEXT:sub(from + 1, from + size)
  while #text < size do
    text = text .. TEXT:sub(1, size - #text)
  end
  return text
end

describe("mux", function()
  local loop, muxes
  before_each(function()
    loop = assert(core_loop.new())
    muxes = {}
  end)
  after_each(function()
    for _, m in ipairs(muxes) do
      m:close()
      m:close()
    end
    muxes = nil
    collectgarbage()
    collectgarbage()
    for _ = 1, 3 do
      loop:turn(0)
    end
    assert.same({ fds = 0, timers = 0, children = 0, wakes = 0 }, loop:census())
    loop:close()
  end)

  local function new(side, options, events)
    local all = { side = side }
    for name, value in pairs(options or {}) do
      all[name] = value
    end
    local m = assert(mux.new(loop, all, events or {}))
    muxes[#muxes + 1] = m
    return m
  end

  -- All that m has to say.
  local function said(m)
    local parts = {}
    repeat
      local bytes = m:output()
      parts[#parts + 1] = bytes
    until not bytes
    return table.concat(parts)
  end

  local function carry(from, to)
    local any = false
    while true do
      local bytes = from:output()
      if not bytes then
        return any
      end
      assert.is_true(to:feed(bytes))
      any = true
    end
  end

  -- Carries until neither has anything left to say, and the loop nothing to call.
  local function settle(a, b)
    repeat
      loop:turn(0)
      local one, other = carry(a, b), carry(b, a)
    until not one and not other and loop:census().timers == 0
  end

  -- Two that are joined, and what the runner has been asked.
  local function pair(options)
    local asked = {}
    local engine = new("engine", options)
    local runner = new("runner", options, {
      opened = function(channel, request)
        asked[#asked + 1] = { channel = channel, request = request }
      end,
    })
    return engine, runner, asked
  end

  local function joined(engine, runner, asked, request)
    local near = assert(engine:open(request or "x"))
    settle(engine, runner)
    return near, asked[#asked].channel
  end

  local function code(...)
    return (select(3, ...))
  end

  local function until_true(done)
    local deadline = core_loop.now() + 20
    while not done() do
      assert.is_true(core_loop.now() < deadline, "it does not come")
      loop:turn(100)
    end
  end

  describe("what it says", function()
    it("is frames, those that are urgent first", function()
      local m = new("engine", { window = FIRST_WINDOW })
      local a = m:open("one")
      a:write("bytes")
      local b = m:open("two\0")
      b:finish()
      m:ping()
      assert.same({
        { 0, PING, "" }, { 2, OPEN, "one" }, { 4, OPEN, "two\0" }, { 4, END, "" },
        { 2, DATA, "bytes" },
      }, frames(said(m)))
      assert.is_nil(m:output())
      a:write("more")
      a:finish()
      b:close()
      assert.same({ { 4, RESET, "" }, { 2, DATA, "more" }, { 2, END, "" } }, frames(said(m)))
      assert.equal(2, a:id())
      assert.equal(4, b:id())
    end)

    it("has odd numbers when it is the runner, and grants its window at once", function()
      local m = new("runner", { window = 1024 * 1024 })
      m:open("")
      m:open("")
      assert.same({
        { 1, OPEN, "" }, { 1, WINDOW, u32(1024 * 1024 - FIRST_WINDOW) },
        { 3, OPEN, "" }, { 3, WINDOW, u32(1024 * 1024 - FIRST_WINDOW) },
      }, frames(said(m)))
    end)

    it("comes in pieces of at most max bytes", function()
      local m = new("engine", { window = FIRST_WINDOW })
      m:open("0123456789")
      local parts = {}
      for bytes in function() return m:output(7) end do
        assert.is_true(#bytes <= 7)
        parts[#parts + 1] = bytes
      end
      assert.equal(frame(2, OPEN, "0123456789"), table.concat(parts))
    end)

    it("lets small things pass large ones, and large ones take turns", function()
      local m = new("engine", { window = FIRST_WINDOW })
      local large = {}
      for i = 1, 4 do
        large[i] = m:open("")
        m:feed(frame(large[i]:id(), WINDOW, u32(10 * 1024 * 1024)))
        large[i]:write(("x"):rep(1024 * 1024))
      end
      local small = m:open("")
      local first = m:output()
      small:write("small")
      local before = #first
      for _, f in ipairs(frames(said(m))) do
        if f[1] == small:id() then
          break
        end
        before = before + #f[3]
      end
      assert.is_true(before <= 100 * 1024, tostring(before))
      for i = 1, 4 do
        assert.equal(0, large[i]:pending())
      end
    end)

    it("is acknowledged every 64 KiB, and with each sign of life", function()
      local m = new("engine", { window = FIRST_WINDOW })
      assert.is_true(m:feed(frame(0, PING)))
      assert.same({ { 0, PONG, "" }, { 0, ACK, u32(0) .. u32(8) } }, frames(said(m)))
      local a = m:open("")
      said(m)
      assert.is_true(m:feed(frame(2, DATA, ("x"):rep(32000))))
      assert.is_true(m:feed(frame(2, DATA, ("x"):rep(32000))))
      assert.is_nil(m:output())
      assert.is_true(m:feed(frame(2, DATA, ("x"):rep(1536))))
      assert.same({ { 0, ACK, u32(0) .. u32(8 + 3 * 8 + 64000 + 1536) } }, frames(said(m)))
      assert.equal(8 + 3 * 8 + 64000 + 1536, m:received())
      a:close()
    end)

    it("counts signs of life", function()
      local engine, runner = pair()
      engine:ping()
      engine:ping()
      assert.equal(0, engine:pongs())
      settle(engine, runner)
      assert.equal(2, engine:pongs())
    end)
  end)

  describe("calls", function()
    it("of output and opened come from the loop, once each time", function()
      local outputs, opened = 0, {}
      local m = new("runner", nil, {
        output = function()
          outputs = outputs + 1
        end,
        opened = function(channel, request)
          opened[#opened + 1] = { channel:id(), request }
        end,
      })
      m:feed(frame(2, OPEN, "a\0b") .. frame(6, OPEN))
      m:ping()
      m:ping()
      assert.equal(0, outputs + #opened)
      loop:turn(0)
      assert.same({ { 2, "a\0b" }, { 6, "" } }, opened)
      assert.equal(1, outputs)
      loop:turn(0)
      m:ping()
      assert.equal(1, outputs)
      said(m)
      loop:turn(0)
      assert.equal(1, outputs)
      m:ping()
      loop:turn(0)
      assert.equal(2, outputs)
      -- Taken before the loop could tell.
      said(m)
      m:ping()
      said(m)
      loop:turn(0)
      assert.equal(2, outputs)
    end)

    it("of a reader come for as long as there is something", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      near:write("1\n2\n3\nrest")
      settle(engine, runner)
      local lines, calls = {}, 0
      far:on_readable(function()
        calls = calls + 1
        lines[#lines + 1] = far:readline()
      end)
      assert.equal(0, calls)
      for _ = 1, 8 do
        loop:turn(0)
      end
      assert.same({ "1", "2", "3" }, lines)
      assert.equal(4, calls)
      near:write("\n")
      near:finish()
      settle(engine, runner)
      assert.same({ "1", "2", "3", "rest" }, lines)
      -- The end: told once, and once more to whoever asks anew.
      loop:turn(0)
      local now = calls
      loop:turn(0)
      loop:turn(0)
      assert.equal(now, calls)
      local told = 0
      far:on_readable(function()
        told = told + 1
        assert.equal("EOF", code(far:read()))
      end)
      for _ = 1, 4 do
        loop:turn(0)
      end
      assert.equal(1, told)
      far:on_readable(nil)
    end)

    it("can be taken back before they come", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      near:write("x")
      settle(engine, runner)
      far:on_readable(error)
      far:on_readable(nil)
      far:on_drained(error)
      far:on_drained(nil)
      far:on_drained(error)
      far:close()
      loop:turn(0)
    end)

    it("of a writer come once, when all is out", function()
      local engine, runner, asked = pair()
      local near = joined(engine, runner, asked)
      local calls = 0
      local function count()
        calls = calls + 1
      end
      near:on_drained(count)
      loop:turn(0)
      assert.equal(1, calls)
      assert.equal(3, near:write("abc"))
      near:on_drained(count)
      loop:turn(0)
      assert.equal(1, calls)
      settle(engine, runner)
      assert.equal(2, calls)
      assert.equal(0, near:pending())
      near:write("abc")
      settle(engine, runner)
      assert.equal(2, calls)
    end)

    it("may close anything", function()
      local engine, runner, asked = pair()
      local one, far_one = joined(engine, runner, asked)
      local two, far_two = joined(engine, runner, asked)
      one:write("x")
      two:write("x")
      local calls = 0
      local function close_all()
        calls = calls + 1
        far_one:close()
        far_two:close()
        runner:close()
      end
      far_one:on_readable(close_all)
      far_two:on_readable(close_all)
      carry(engine, runner)
      loop:turn(0)
      loop:turn(0)
      assert.equal(1, calls)
      assert.equal("CLOSED", code(far_one:read()))
      assert.equal("CLOSED", code(runner:feed("x")))
      assert.is_nil(runner:output())
    end)

    it("that raise stop the loop and lose nothing of the others", function()
      local engine, runner, asked = pair()
      local one, far_one = joined(engine, runner, asked)
      local two, far_two = joined(engine, runner, asked)
      one:write("x")
      two:write("y")
      far_one:on_readable(function()
        far_one:on_readable(nil)
        error("a bug")
      end)
      local got
      far_two:on_readable(function()
        got = far_two:read()
      end)
      carry(engine, runner)
      assert.has_error(function()
        loop:run()
      end)
      until_true(function()
        return got
      end)
      assert.equal("y", got)
    end)
  end)

  describe("a channel", function()
    it("has two directions that end by themselves", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked, "half")
      assert.equal("half", asked[1].request)
      assert.equal("EAGAIN", code(far:read()))
      near:write("last\nwords")
      near:finish()
      near:finish()
      assert.equal("CLOSED", code(near:write("x")))
      settle(engine, runner)
      assert.equal("last", far:readline())
      assert.equal("EOF", code(far:readline()))
      assert.equal("words", far:read())
      assert.equal("EOF", code(far:read()))
      assert.equal("EOF", code(far:read()))
      far:write("answer")
      settle(engine, runner)
      assert.equal("answer", near:read(100))
      assert.equal("EAGAIN", code(near:read(100)))
      far:finish()
      settle(engine, runner)
      assert.equal("EOF", code(near:read(100)))
      near:close()
      far:close()
      assert.equal("", said(engine) .. said(runner))
    end)

    it("that is closed aborts both directions, behind what has arrived", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      near:write("arrived")
      settle(engine, runner)
      near:write("lost")
      local drained
      far:write("x")
      far:on_drained(function()
        drained = true
      end)
      near:close()
      near:close()
      carry(engine, runner)
      assert.equal("EPIPE", code(far:write("x")))
      assert.equal("arrived", far:read())
      assert.equal("ECONNRESET", code(far:read()))
      assert.equal("ECONNRESET", code(far:readline()))
      loop:turn(0)
      assert.is_true(drained)
      for _, method in ipairs({ "read", "readline" }) do
        assert.equal("CLOSED", code(near[method](near)))
      end
      assert.equal("CLOSED", code(near:write("x")))
      assert.equal(0, near:pending())
      near:finish()
      near:on_readable(error)
      near:on_drained(error)
      loop:turn(0)
    end)

    it("that is closed behind its end delivers all that it has", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      local size = 5 * 1024 * 1024
      near:write(stream_bytes(1, 0, 65536):rep(size / 65536))
      near:finish()
      near:close()
      local got = 0
      -- What comes the other way is nobody's, but must not stand in the way.
      far:write(("x"):rep(3 * 1024 * 1024))
      far:on_readable(function()
        local bytes, _, what = far:read()
        if bytes then
          assert.equal(stream_bytes(1, got % 65536, #bytes):sub(1, 65536 - got % 65536),
            bytes:sub(1, 65536 - got % 65536))
          got = got + #bytes
        elseif what ~= "EAGAIN" then
          assert.equal("EOF", what)
          got = got + 1
          far:on_readable(nil)
        end
      end)
      settle(engine, runner)
      assert.equal(size + 1, got)
      assert.equal("EPIPE", code(far:write("x")))
    end)

    it("that nobody holds any more is closed", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      assert.is_truthy(near)
      near = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      settle(engine, runner)
      assert.equal("ECONNRESET", code(far:read()))
    end)

    it("that nobody holds stays while it has bytes to send or somebody waits", function()
      local engine, runner, asked = pair()
      do
        local near = joined(engine, runner, asked)
        near:write("sent")
        local other = joined(engine, runner, asked)
        other:write("sent")
        other:on_readable(function()
          other:write(other:read() or "")
        end)
        local third = engine:open("")
        third:write("never seen")
        third:on_drained(function() end)
      end
      collectgarbage()
      collectgarbage()
      settle(engine, runner)
      assert.equal("sent", asked[1].channel:read())
      asked[2].channel:write("echo")
      collectgarbage()
      collectgarbage()
      settle(engine, runner)
      assert.equal("ECONNRESET", code(asked[1].channel:read()))
      assert.equal("sent", asked[2].channel:read(4))
      assert.equal("echo", asked[2].channel:read())
      assert.equal("EAGAIN", code(asked[2].channel:read()))
      assert.equal("never seen", asked[3].channel:read())
      assert.equal("ECONNRESET", code(asked[3].channel:read()))
    end)

    it("that nobody looks at is closed after the call", function()
      local engine = new("engine")
      local runner = new("runner", nil, { opened = function() end })
      local near = engine:open("")
      settle(engine, runner)
      collectgarbage()
      collectgarbage()
      settle(engine, runner)
      assert.equal("ECONNRESET", code(near:read()))
    end)

    it("of a mux that is closed is aborted, behind what has arrived", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      near:write("arrived")
      settle(engine, runner)
      local told, drained
      far:write("x")
      far:on_readable(function()
        told = far:read() or told
      end)
      far:on_drained(function()
        drained = true
      end)
      runner:feed(frame(8, OPEN, "nobody will see it"))
      runner:close()
      loop:turn(0)
      loop:turn(0)
      assert.equal("arrived", told)
      assert.is_true(drained)
      assert.equal(1, #asked)
      assert.equal("ECONNRESET", code(far:read()))
      assert.equal("EPIPE", code(far:write("x")))
      assert.equal("CLOSED", code(runner:open("x")))
      assert.equal("CLOSED", code(runner:resume(0)))
      runner:ping()
      runner:suspend()
      assert.is_nil(runner:output())
      far:on_readable(nil)
    end)

    it("is refused when the peer has too many", function()
      local opened = {}
      local m = new("runner", { max_channels = 2, window = FIRST_WINDOW }, {
        opened = function(channel)
          opened[#opened + 1] = channel
        end,
      })
      assert.is_true(m:feed(frame(2, OPEN) .. frame(4, OPEN) .. frame(6, OPEN)))
      assert.is_true(m:feed(frame(6, DATA, "late") .. frame(6, END)))
      loop:turn(0)
      assert.equal(2, #opened)
      assert.same({ { 6, RESET, "" } }, frames(said(m)))
      opened[1]:close()
      assert.is_true(m:feed(frame(8, OPEN)))
      -- Our own do not count.
      assert(m:open("x"))
      loop:turn(0)
      assert.equal(3, #opened)
      assert.equal(8, opened[3]:id())
    end)

    it("has a request of at most 32 KiB", function()
      local engine, runner, asked = pair()
      assert.equal("LIMIT", code(engine:open(("x"):rep(MAX_PAYLOAD + 1))))
      joined(engine, runner, asked, ("x"):rep(MAX_PAYLOAD))
      assert.equal(MAX_PAYLOAD, #asked[1].request)
    end)

    it("takes at most 256 MiB ahead", function()
      local m = new("engine")
      local a = m:open("")
      local bytes = ("x"):rep(64 * 1024 * 1024)
      for i = 1, 4 do
        assert.equal(i * #bytes, a:write(bytes))
      end
      assert.equal("LIMIT", code(a:write("x")))
      assert.equal(4 * #bytes, a:pending())
      a:close()
    end)

    it("ignores what was under way when it was closed", function()
      local m = new("runner", { window = FIRST_WINDOW }, {
        opened = function(channel)
          channel:close()
        end,
      })
      assert.is_true(m:feed(frame(2, OPEN) .. frame(2, DATA, "x")))
      loop:turn(0)
      assert.is_true(m:feed(frame(2, DATA, ("x"):rep(MAX_PAYLOAD)):rep(4)))
      assert.is_true(m:feed(frame(2, WINDOW, u32(1)) .. frame(2, END) .. frame(2, RESET)))
      local own = m:open("")
      own:close()
      assert.is_true(m:feed(frame(1, DATA, "x") .. frame(1, RESET)))
      assert.same({ { 2, RESET, "" }, { 1, OPEN, "" }, { 1, RESET, "" } },
        { unpack(frames(said(m)), 2) })
    end)
  end)

  describe("windows", function()
    it("hold a writer that nobody reads of", function()
      local engine, runner, asked = pair({ window = FIRST_WINDOW })
      local near, far = joined(engine, runner, asked)
      near:write(("x"):rep(200000))
      settle(engine, runner)
      assert.equal(200000 - FIRST_WINDOW, near:pending())
      -- Another one is not held.
      local other, far_other = joined(engine, runner, asked)
      other:write("passes")
      settle(engine, runner)
      assert.equal("passes", far_other:read())
      local got = 0
      while got < 200000 do
        local bytes = far:read(1000)
        got = got + #(bytes or "")
        settle(engine, runner)
        assert.is_true(got + FIRST_WINDOW + near:pending() >= 200000)
      end
      assert.equal(0, near:pending())
    end)

    it("let 8 MiB through each way, on several channels, past slow readers", function()
      local size, window = 8 * 1024 * 1024, 256 * 1024
      local engine, runner, asked = pair({ window = window })
      local done = 0
      local ends = {}
      local function work(which, channel, slow)
        local sent, got = 0, 0
        local function write()
          while sent < size do
            local some = math.min(300000, size - sent)
            sent = sent + some
            if channel:write(stream_bytes(which, sent - some, some)) > 0 then
              return channel:on_drained(write)
            end
          end
          channel:finish()
        end
        local function read()
          local bytes, _, what = channel:read(slow)
          if bytes then
            assert.is_true(bytes == stream_bytes(-which, got, #bytes))
            got = got + #bytes
          elseif what == "EOF" then
            assert.equal(size, got)
            done = done + 1
            channel:on_readable(nil)
          else
            assert.equal("EAGAIN", what)
          end
        end
        ends[#ends + 1] = channel
        write()
        channel:on_readable(read)
      end
      for i = 1, 3 do
        local near, far = joined(engine, runner, asked)
        work(i, near, i == 1 and 10000 or 1000000)
        work(-i, far, i == 2 and 10000 or 1000000)
      end
      repeat
        settle(engine, runner)
      until done == 6
      assert.equal(6, done)
    end)

    it("are no limit for a line", function()
      local engine, runner, asked = pair({ window = FIRST_WINDOW })
      local near, far = joined(engine, runner, asked)
      local size = 3 * 1024 * 1024
      near:write(("x"):rep(size) .. "\n" .. "next\n")
      local lines = {}
      far:on_readable(function()
        lines[#lines + 1] = far:readline(size)
      end)
      settle(engine, runner)
      assert.equal(size, #lines[1])
      assert.equal("next", lines[2])
    end)

    it("let in as much of a line as it may have", function()
      for _, max in ipairs({ 10, FIRST_WINDOW - 1, FIRST_WINDOW, FIRST_WINDOW + 1, 200000 }) do
        local engine, runner, asked = pair({ window = FIRST_WINDOW })
        local near, far = joined(engine, runner, asked)
        near:write(("x"):rep(max) .. "\n")
        near:write(("y"):rep(1000000))
        local function outcome(limit)
          while true do
            local line, _, what = far:readline(limit)
            settle(engine, runner)
            if what ~= "EAGAIN" then
              return line and #line or what
            end
          end
        end
        assert.equal(max, outcome(max))
        assert.equal("LIMIT", outcome(max))
        assert.equal("LIMIT", code(far:readline(max)))
        local allowed = math.max(max + 1, FIRST_WINDOW) + FIRST_WINDOW
        assert.is_true(1000000 - near:pending() <= allowed)
        -- Another reader may allow more.
        assert.equal("LIMIT", outcome(500000))
      end
    end)

    it("of a channel that carries little cost nothing", function()
      local engine, runner, asked = pair()
      local near, far = joined(engine, runner, asked)
      for _ = 1, 100 do
        near:write("ask\n")
        carry(engine, runner)
        assert.equal("ask", far:readline())
        assert.equal("EAGAIN", code(far:readline()))
        far:write("answer\n")
        local answer = said(runner)
        assert.equal(frame(2, DATA, "answer\n"), answer)
        assert.is_true(engine:feed(answer))
        assert.equal("answer", near:readline())
        assert.equal("EAGAIN", code(near:read()))
        assert.is_nil(engine:output())
      end
    end)

    it("stop a side whose peer acknowledges nothing", function()
      local m = new("engine", { max_kept = 200000, window = FIRST_WINDOW })
      local a = m:open("")
      m:feed(frame(2, WINDOW, u32(100 * 1024 * 1024)))
      a:write(("x"):rep(1000000))
      local first = said(m)
      assert.is_true(#first >= 200000 and #first <= 200000 + MAX_PAYLOAD + 100)
      -- What is urgent goes on, up to a limit; acknowledgements beyond that.
      m:ping()
      assert.equal(8, #said(m))
      local requests = ("r"):rep(MAX_PAYLOAD)
      for _ = 1, 100 do
        m:open(requests)
      end
      assert.is_true(#said(m) < 1.1 * 1024 * 1024)
      m:open(requests)
      assert.equal("", said(m))
      m:feed(frame(0, PING))
      assert.same({ 0, PONG, "" }, frames(said(m))[1])
      m:feed(frame(0, ACK, u32(0) .. u32(#first)))
      local next_one = frames(said(m))[1]
      assert.equal(OPEN, next_one[2])
      assert.is_true(next_one[3] == requests)
    end)
  end)

  describe("a peer that breaks the rules", function()
    local function broken(expected, bytes, prepare)
      -- In one piece, and in the smallest.
      for step = 1, 2 do
        local m = new("runner", { window = FIRST_WINDOW })
        if prepare then
          prepare(m)
        end
        local ok, _, what
        if step == 1 then
          ok, _, what = m:feed(bytes)
        else
          for i = 1, #bytes do
            ok, _, what = m:feed(bytes:sub(i, i))
          end
        end
        assert.is_nil(ok)
        assert.equal(expected, what)
        assert.equal(expected, code(m:feed("")))
        assert.equal(expected, code(m:feed(frame(0, PING))))
        assert.equal("CLOSED", code(m:open("")))
        assert.is_nil(m:output())
        m:close()
        assert.equal(expected, code(m:feed("")))
      end
    end
    local open = frame(2, OPEN, "request")

    for name, case in pairs({
      ["a type that is none"] = { "SYNTAX", frame(2, 0) },
      ["a type that is not known"] = { "SYNTAX", frame(2, 9) },
      ["a number of our kind"] = { "SYNTAX", frame(1, OPEN) },
      ["number 0"] = { "SYNTAX", frame(0, OPEN) },
      ["a number twice"] = { "SYNTAX", open .. open },
      ["a number that falls"] = { "SYNTAX", frame(4, OPEN) .. open },
      ["a channel that never was"] = { "SYNTAX", open .. frame(4, DATA, "x") },
      ["a channel of ours that never was"] = { "SYNTAX", frame(1, RESET) },
      ["data without a channel"] = { "SYNTAX", frame(0, DATA, "x") },
      ["a request that is too long"] = { "LIMIT", frame(2, OPEN, "", MAX_PAYLOAD + 1) },
      ["data that are too long"] = { "LIMIT", open .. frame(2, DATA, "", MAX_PAYLOAD + 1) },
      ["more data than the window"] = { "LIMIT",
        open .. frame(2, DATA, ("x"):rep(MAX_PAYLOAD)):rep(2) .. frame(2, DATA, "x") },
      ["data after the end"] = { "SYNTAX", open .. frame(2, END) .. frame(2, DATA, "x") },
      ["a second end"] = { "SYNTAX", open .. frame(2, END) .. frame(2, END) },
      ["an end that has a payload"] = { "SYNTAX", open .. frame(2, END, "x") },
      ["an abort that has a payload"] = { "SYNTAX", open .. frame(2, RESET, "x") },
      ["data after an abort"] = { "SYNTAX", open .. frame(2, RESET) .. frame(2, DATA, "x") },
      ["a window after an abort"] = { "SYNTAX",
        open .. frame(2, RESET) .. frame(2, WINDOW, u32(1)) },
      ["an end after an abort"] = { "SYNTAX", open .. frame(2, RESET) .. frame(2, END) },
      ["a second abort"] = { "SYNTAX", open .. frame(2, RESET) .. frame(2, RESET) },
      ["a window of three bytes"] = { "SYNTAX", open .. frame(2, WINDOW, "\0\0\1") },
      ["a window that is too wide"] = { "LIMIT", open .. frame(2, WINDOW, u32(0x7fffffff)) },
      ["windows that are too wide together"] = { "LIMIT",
        open .. frame(2, WINDOW, u32(0x7ffeffff)) .. frame(2, WINDOW, u32(2)) },
      ["an acknowledgement of a channel"] = { "SYNTAX", open .. frame(2, ACK, ("\0"):rep(8)) },
      ["an acknowledgement of four bytes"] = { "SYNTAX", frame(0, ACK, ("\0"):rep(4)) },
      ["an acknowledgement of what was not sent"] = { "SYNTAX",
        frame(0, ACK, ("\0"):rep(7) .. "\1") },
      ["a sign of life of a channel"] = { "SYNTAX", open .. frame(2, PING) },
      ["a sign of life with a payload"] = { "SYNTAX", frame(0, PING, "x") },
      ["an answer that nobody asked for"] = { "SYNTAX", frame(0, PONG) },
    }) do
      it("is given up: " .. name, function()
        broken(case[1], case[2])
      end)
    end

    it("is given up: an answer more than it was asked for", function()
      broken("SYNTAX", frame(0, PONG):rep(2), function(m)
        m:ping()
        said(m)
      end)
    end)

    it("is given up: thousands of channels, and it reads nothing", function()
      local m = new("runner", { max_channels = 1 })
      local many, what = 0
      repeat
        local parts = {}
        for i = 1, 10000 do
          parts[i] = frame(2 * (many + i), OPEN)
        end
        many = many + 10000
        what = code(m:feed(table.concat(parts)))
      until what
      assert.equal("LIMIT", what)
      assert.is_true(many <= 1000000)
    end)

    it("has its channels told only by close", function()
      local opened
      local m = new("runner", nil, {
        opened = function(channel)
          opened = channel
        end,
      })
      m:feed(open .. frame(2, DATA, "good"))
      assert.is_nil(m:feed("garbage, no frame at all"))
      loop:turn(0)
      local seen = {}
      opened:on_readable(function()
        local bytes, _, what = opened:read()
        seen[#seen + 1] = bytes or what
      end)
      loop:turn(0)
      loop:turn(0)
      assert.equal("good", seen[1])
      m:close()
      loop:turn(0)
      assert.equal("ECONNRESET", seen[#seen])
      opened:on_readable(nil)
    end)

    it("cannot crash it by noise", function()
      for seed = 1, 300 do
        local random = randomness(seed)
        local m = new("runner", { window = FIRST_WINDOW, max_channels = 8 }, {
          opened = function(channel)
            channel:on_readable(function()
              channel:read(random(1, 50000))
              channel:write("echo")
              if random(1, 4) == 1 then
                channel:close()
              end
            end)
          end,
        })
        m:open("own")
        local last = 0
        for _ = 1, 60 do
          local kind = random(1, 8)
          local id = random(0, 6) * 2
          local payload = kind == WINDOW and u32(random(0, 100000))
            or kind == ACK and u32(0) .. u32(random(0, 50))
            or kind <= DATA and TEXT:sub(1, random(0, 20000)) or ""
          if kind == OPEN then
            last = last + 2
            id = last
          elseif kind >= ACK then
            id = 0
          end
          local bytes = frame(random(1, 20) == 1 and random(0, 9) or id, kind, payload)
          local cut = random(0, #bytes)
          if not (m:feed(bytes:sub(1, cut)) and m:feed(bytes:sub(cut + 1))) then
            break
          end
          if random(1, 3) == 1 then
            loop:turn(0)
            m:output(random(1, 1000))
          end
        end
        m:close()
        loop:turn(0)
      end
    end)
  end)

  describe("a lost link", function()
    it("says nothing until there is a new one", function()
      local outputs = 0
      local m = new("engine", nil, {
        output = function()
          outputs = outputs + 1
        end,
      })
      m:open("request")
      local first = said(m)
      m:suspend()
      m:ping()
      loop:turn(0)
      local before = outputs
      assert.is_nil(m:output())
      assert.is_true(m:resume(0))
      loop:turn(0)
      assert.equal(before + 1, outputs)
      assert.equal(first .. frame(0, PING), said(m))
      m:suspend()
      assert.is_true(m:resume(#first))
      assert.equal(frame(0, PING), said(m))
    end)

    it("cannot be resumed where nothing is", function()
      local m = new("engine", { window = FIRST_WINDOW })
      m:open("request")
      local first = said(m)
      assert.is_true(m:feed(frame(0, ACK, u32(0) .. u32(5))))
      m:suspend()
      for _, where in ipairs({ 4, #first + 1, -1, 1.5, 1e300, 0 / 0 }) do
        assert.equal("SYNTAX", code(m:resume(where)))
        assert.is_nil(m:output())
      end
      assert.is_true(m:resume(5))
      assert.equal(first:sub(6), said(m))
    end)

    it("does not end a frame that was under way", function()
      local m = new("runner", nil, { opened = function() end })
      local bytes = frame(2, OPEN, "request") .. frame(2, DATA, "0123456789")
      for cut = 0, #bytes do
        local one = new("runner", nil, { opened = function() end })
        assert.is_true(one:feed(bytes:sub(1, cut)))
        one:suspend()
        assert.equal(cut, one:received())
        assert.is_true(one:resume(0))
        assert.is_true(one:feed(bytes:sub(cut + 1)))
      end
      m:close()
    end)

    -- Two sides with traffic both ways on some channels, over links that are cut anywhere.
    local function torn(seed)
      local random = randomness(seed)
      local options = {
        window = FIRST_WINDOW * random(1, 3), max_kept = random(1, 3) * 100000,
      }
      local engine, runner, asked = pair(options)
      local ends = {}
      local function add(which, channel)
        ends[#ends + 1] = { which = which, channel = channel, sent = 0, got = 0 }
      end
      local total = random(1, 400) * 1000
      local cuts, opened, seen = 0, 0, 0
      local function ship(from, to)
        for _ = 1, random(0, 4) do
          local bytes = from:output(random(1, 100000))
          if not bytes then
            return
          end
          -- A piece on the way may be delivered in parts, or lost with the link from some byte on.
          local lost = random(1, 12) == 1
          local arrives = lost and random(0, #bytes) or #bytes
          local half = random(0, arrives)
          assert.is_true(to:feed(bytes:sub(1, half)))
          assert.is_true(to:feed(bytes:sub(half + 1, arrives)))
          if lost then
            return true
          end
        end
      end
      local function complete()
        for _, e in ipairs(ends) do
          if not e.ended then
            return false
          end
        end
        return opened == 4 and #ends == 8
      end
      local turns = 0
      while not complete() do
        turns = turns + 1
        assert.is_true(turns < 100000, "it does not end")
        if opened < 4 and random(1, 3) == 1 then
          opened = opened + 1
          add(opened, (assert(engine:open(tostring(opened)))))
        end
        for i = seen + 1, #asked do
          add(-tonumber(asked[i].request), asked[i].channel)
          seen = i
        end
        local e = ends[random(1, math.max(#ends, 1))]
        if e then
          local some = math.min(random(1, 60000), total - e.sent)
          if e.channel:pending() < 100000 and some > 0 then
            assert(e.channel:write(stream_bytes(e.which, e.sent, some)))
            e.sent = e.sent + some
          elseif some == 0 then
            e.channel:finish()
          end
        end
        e = ends[random(1, math.max(#ends, 1))]
        if e then
          local bytes, _, what = e.channel:read(random(1, 100000))
          if bytes then
            assert.is_true(bytes == stream_bytes(-e.which, e.got, #bytes), "other bytes")
            e.got = e.got + #bytes
          elseif what ~= "EAGAIN" then
            assert.equal("EOF", what)
            assert.equal(total, e.got)
            e.ended = true
          end
        end
        loop:turn(0)
        local lost = ship(engine, runner)
        lost = ship(runner, engine) or lost
        if lost then
          cuts = cuts + 1
          engine:suspend()
          runner:suspend()
          assert.is_true(engine:resume(runner:received()))
          assert.is_true(runner:resume(engine:received()))
        end
      end
      return cuts
    end

    it("loses no byte and repeats none, wherever it is cut", function()
      local cuts = 0
      for seed = 1, 60 do
        cuts = cuts + torn(seed)
      end
      assert.is_true(cuts > 500, cuts)
    end)

    it("may be cut at every single byte", function()
      local function talk(cut)
        local engine, runner, asked = pair()
        local got, answered = {}, {}
        local near = engine:open("request")
        near:write("hello\n")
        near:finish()
        local left = cut
        local function ship(from, to)
          while true do
            local bytes = from:output()
            if not bytes then
              return
            end
            if left and #bytes > left then
              to:feed(bytes:sub(1, left))
              left = nil
              engine:suspend()
              runner:suspend()
              assert.is_true(engine:resume(runner:received()))
              assert.is_true(runner:resume(engine:received()))
            else
              left = left and left - #bytes
              assert.is_true(to:feed(bytes))
            end
          end
        end
        for _ = 1, 10 do
          loop:turn(0)
          ship(engine, runner)
          loop:turn(0)
          local far = asked[1] and asked[1].channel
          local line = far and far:readline()
          if line then
            got[#got + 1] = line
            far:write("answer\n")
            far:finish()
          end
          ship(runner, engine)
          local answer = near:readline()
          answered[#answered + 1] = answer
        end
        assert.same({ "hello" }, got)
        assert.same({ "answer" }, answered)
        assert.equal("request", asked[1].request)
        assert.equal("EOF", code(near:readline()))
        assert.equal("EOF", code(asked[1].channel:readline()))
        return left == nil
      end
      local cut = 0
      while talk(cut) do
        cut = cut + 1
      end
      assert.is_true(cut > 60)
    end)
  end)

  describe("misuse", function()
    it("is an error", function()
      for _, arguments in ipairs({
        {}, { loop }, { loop, {} }, { loop, { side = "engine" } }, { loop, { side = "both" }, {} },
        { loop, { side = "engine", windows = 1 }, {} },
        { loop, { side = "engine", window = 0 }, {} },
        { loop, { side = "engine" }, { opens = print } },
        { loop, { side = "engine" }, { opened = 1 } },
      }) do
        assert.has_error(function()
          mux.new(unpack(arguments))
        end)
      end
      local m = new("engine")
      local a = m:open("")
      for _, call in ipairs({
        function() m:feed() end, function() m:open() end, function() m:output(0) end,
        function() m:resume("x") end, function() a:read(0) end, function() a:readline(-1) end,
        function() a:write() end, function() a:on_readable(1) end, function() a:on_drained({}) end,
        function() a.id(m) end, function() m.open(a, "") end,
      }) do
        assert.has_error(call)
      end
      assert.is_truthy(tostring(m):find("^farcall.mux: "))
      assert.is_truthy(tostring(a):find("^farcall.mux.channel: "))
    end)
  end)
end)
