-- SPDX-License-Identifier: MIT
local core_loop = require("farcall.core.loop")
local watchdog = require("farcall.core.watchdog")

describe("watchdog", function()
  local loop, dog, reports
  before_each(function()
    loop = assert(core_loop.new())
    reports = {}
  end)
  after_each(function()
    dog:close()
    dog:close()
    assert.is_nil((debug.gethook()))
    loop:close()
  end)

  local function watch(options)
    dog = assert(watchdog.new(loop, options, function(where, held_ms, stopped)
      reports[#reports + 1] = { where = where, held_ms = held_ms, stopped = stopped }
    end))
  end

  -- An operator's code, with the compiler off as such code is loaded.
  local function chunk(text, name)
    local fn = assert(loadstring(text, "@" .. (name or "operator.lua")))
    jit.off(fn, true)
    return fn
  end

  local function run(fn)
    loop:timer(0, fn)
    return pcall(loop.run, loop)
  end

  local wait_text = [[
    local clock = require("farcall.core.loop").now
    local until_time = clock() + 0.3
    while clock() < until_time do
    end
  ]]

  it("names the line that holds the loop, and lets it go on", function()
    watch({ warn_ms = 60 })
    assert.is_true(run(chunk(wait_text)))
    assert.equal(1, #reports)
    assert.matches("^operator.lua:[34]$", reports[1].where)
    assert.is_false(reports[1].stopped)
    assert.is_true(reports[1].held_ms >= 250)
  end)

  it("looks into coroutines", function()
    watch({ warn_ms = 60 })
    local inner = chunk(wait_text, "inner.lua")
    assert.is_true(run(chunk("coroutine.wrap(...)()", "outer.lua")) == false)
    assert.is_true(run(function()
      coroutine.wrap(inner)()
    end))
    assert.matches("^inner.lua:[34]$", reports[1].where)
  end)

  it("says nothing of callbacks that are quick, however many", function()
    watch({ warn_ms = 500, stop_ms = 1000 })
    local count = 0
    local timer
    local until_time = core_loop.now() + 1.5
    timer = loop:timer(0, function()
      count = count + 1
      if core_loop.now() < until_time then
        timer:again(0)
      end
    end)
    loop:run()
    assert.is_true(count > 100)
    assert.same({}, reports)
  end)

  local endless = {
    ["a loop"] = "while true do\nend",
    ["a loop under pcall"] = "while true do\npcall(function() while true do end end)\nend",
    ["a loop of failing calls"] =
      "local pcall, error = pcall, error while true do\npcall(error)\nend",
    ["a loop under xpcall with a handler that loops"] =
      "while true do\nxpcall(function() while true do end end, function() return 1 end)\nend",
    ["a loop of coroutines that loop"] =
      "while true do\ncoroutine.resume(coroutine.create(function() while true do end end))\nend",
    ["endless recursion without a stack"] = "local function f() return f() end\nf()",
  }
  for name, text in pairs(endless) do
    it("stops " .. name, function()
      watch({ warn_ms = 50, stop_ms = 150 })
      local ok, message = run(chunk(text))
      assert.is_false(ok)
      assert.matches("held the loop for 150 ms at operator.lua:%d", message)
      assert.is_true(reports[1].stopped)
      assert.matches("^operator.lua:%d$", reports[1].where)
      -- And nothing of it is left.
      assert.is_true(run(chunk("for _ = 1, 1000 do end")))
      assert.equal(1, #reports)
    end)
  end

  it("stops a task that loops, and only that", function()
    local results = {}
    local function start(body)
      -- As tasks are: the body under pcall in a coroutine, and farcall's own code around it, which
      -- is not struck and tells the outcome.
      local thread = coroutine.create(function()
        results[#results + 1] = { pcall(body) }
      end)
      loop:timer(0, function()
        if not coroutine.resume(thread) then
          error("the task's thread died")
        end
      end)
    end
    local source = debug.getinfo(1, "S").source
    watch({ warn_ms = 50, stop_ms = 150, own = source:sub(2) })
    start(chunk("while true do\nend"))
    start(chunk("return 1"))
    assert.is_true(pcall(loop.run, loop))
    assert.is_false(results[1][1])
    assert.matches("held the loop", results[1][2])
    assert.same({ true, 1 }, results[2])
  end)

  it("blames the innermost code that is not farcall's own", function()
    local source = debug.getinfo(1, "S").source
    watch({ warn_ms = 50, own = source:sub(2) })
    local function own_wait()
      local until_time = core_loop.now() + 0.2
      while core_loop.now() < until_time do
      end
    end
    jit.off(own_wait)
    local caller = chunk("local wait = ...\n\nwait()\nreturn 1", "caller.lua")
    run(function()
      caller(own_wait)
    end)
    assert.equal("caller.lua:3", reports[1].where)
  end)

  it("reports what C held, when it is over", function()
    watch({ warn_ms = 50 })
    run(chunk("local x = 1\nos.execute('sleep 0.2')\nreturn x"))
    assert.equal(1, #reports)
    assert.matches("^operator.lua:%d$", reports[1].where)
  end)

  it("is off when the loop is idle", function()
    watch({ warn_ms = 40, stop_ms = 100 })
    assert.is_false(dog:armed())
    run(chunk("return 1"))
    assert.is_true(dog:armed())
    local until_time = core_loop.now() + 10
    repeat
      loop:turn(20)
    until not dog:armed() or core_loop.now() > until_time
    assert.is_false(dog:armed())
    -- And on again with the next callback.
    assert.is_false(run(chunk("while true do end")))
    assert.equal(1, #reports)
  end)

  it("restores the hook of somebody else", function()
    watch({ warn_ms = 50 })
    local function hook() end
    debug.sethook(hook, "", 1000000)
    run(chunk(wait_text))
    local now, _, count = debug.gethook()
    debug.sethook()
    assert.equal(hook, now)
    assert.equal(1000000, count)
    assert.equal(1, #reports)
  end)

  it("may be closed by its own report", function()
    dog = assert(watchdog.new(loop, { warn_ms = 50 }, function(where)
      reports[#reports + 1] = where
      dog:close()
      collectgarbage()
    end))
    run(chunk(wait_text))
    run(chunk(wait_text))
    assert.equal(1, #reports)
  end)

  it("is one a state, and checks its options", function()
    watch({})
    for _, options in ipairs({ {}, { warn_ms = 0 }, { warn = 1 }, { stop_ms = -1 } }) do
      assert.has_error(function()
        watchdog.new(loop, options, print)
      end)
    end
  end)
end)
