-- SPDX-License-Identifier: MIT
-- core/lua_box*.c and core/lua_sandbox.c: what is in a box stays in it, and ends.

local json = require("farcall.core.json")
local sandbox = require("farcall.core.sandbox")

-- A box with `body` as the body of its function go. Limits are small and time is ample, so that
-- a slow machine changes nothing.
local function box_with(body, options)
  local own = { instructions = 2000000, milliseconds = 60000 }
  for key, value in pairs(options or {}) do
    own[key] = value
  end
  local box = assert(sandbox.new(own))
  assert(box:load("return {\ngo = function(...)\n" .. body .. "\nend,\nfine = function() "
    .. "return 'fine' end }",
    "@box.lua"))
  return box
end

-- Runs body in a box of its own, and checks that the box still answers, or says that it does not.
local function run(body, options)
  local box = box_with(body, options)
  local results = { box:call("go") }
  local ok, answer, code = box:call("fine")
  if ok then
    assert.equal("fine", answer)
  else
    assert.equal("MEMORY", code)
    assert.is_true(box:usage().dead)
  end
  box:close()
  return unpack(results, 1, 3)
end

local function refused(code, body, options)
  local ok, message, got = run(body, options)
  assert.is_nil(ok, "it was let through: " .. body)
  assert.equal(code, got, tostring(message) .. "\n" .. body)
  return message
end

local function fine(expected, body, options)
  local ok, value = run(body, options)
  assert.is_true(ok, tostring(value) .. "\n" .. body)
  assert.same(expected, value)
end

describe("a sandbox", function()
  it("has nothing that reaches out of it", function()
    fine("", [[
      local found = {}
      for _, name in ipairs({ "io", "os", "debug", "ffi", "jit", "package", "require", "load",
        "loadstring", "loadfile", "dofile", "module", "getfenv", "setfenv", "collectgarbage",
        "newproxy", "coroutine", "print", "gcinfo", "bit", "arg" })
      do
        if _G[name] ~= nil then found[#found + 1] = name end
      end
      for _, name in ipairs({ "dump", "gfind" }) do
        if string[name] or (""):len() ~= 0 or getmetatable("").__index[name] then
          found[#found + 1] = "string." .. name
        end
      end
      if math.random or math.randomseed then found[#found + 1] = "math.random" end
      return table.concat(found, " ")]])
  end)

  it("has just the globals that are listed", function()
    fine("_G _VERSION array assert error getmetatable ipairs math next null pairs pcall "
      .. "rawequal rawget "
      .. "rawset select setmetatable string table tonumber tostring type unpack xpcall", [[
      local names = {}
      for name in pairs(_G) do names[#names + 1] = name end
      table.sort(names)
      return table.concat(names, " ")]])
  end)

  it("refuses compiled code and the numbers that would bring the ffi", function()
    local box = assert(sandbox.new())
    local ok, message = box:load(string.dump(function() return {} end), "@code.lua")
    assert.is_nil(ok)
    assert.equal("code.lua:1: this is compiled code; only text is loaded", message)
    for _, literal in ipairs({ "1LL", "0x1fULL", "2i" }) do
      ok, message = box:load("local x = " .. literal .. " return {}", "@code.lua")
      assert.is_nil(ok)
      assert.is_truthy(message:find("^code.lua:1: "))
    end
    box:close()
  end)

  it("runs its code interpreted: the count holds in hot loops", function()
    for _, body in ipairs({
      "for i = 1, 1e12 do end",
      "while true do end",
      "local i = 0 repeat i = i + 1 until i < 0",
      "local function f(n) return f(n + 1) end return f(0)",
      "::top:: goto top",
      "for _ in function() return 1 end do end",
    }) do
      assert.is_truthy(refused("INSTRUCTIONS", body):find("^box.lua:%d+: ran more than 2000000"),
        body)
    end
  end)

  it("lets nobody swallow a strike", function()
    for _, body in ipairs({
      "while true do pcall(function() while true do end end) end",
      "while true do xpcall(function() while true do end end, function() while true do end "
        .. "end) end",
      "xpcall(function() while true do end end, function() while true do end end) return 1",
      "xpcall(error, function() while true do end end) return 1",
      "xpcall(error, function() xpcall(error, function() while true do end end) end) return 1",
      "while true do pcall(pcall, pcall, error) end",
      "local t = setmetatable({}, { __index = function(t, k) while true do end end }) return t.x",
      "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) "
        .. "pcall(function() "
        .. "return t[1] end) while true do end",
      "local t = setmetatable({}, { __tostring = function() while true do end end }) tostring(t)",
      "local t = setmetatable({}, { __tostring = function() while true do end end }) "
        .. "pcall(error, t) "
        .. "return ('%s'):format(t)",
      "local t = setmetatable({}, { __lt = function() while true do end end }) table.sort({ t, "
        .. "t })",
      "table.sort({ 1, 2, 3 }, function() while true do end end)",
      "local x = ('abc'):gsub('.', function() while true do end end)",
      "getmetatable('').__index = function() while true do end end return ('x').y",
      "getmetatable('').__add = function() while true do end end return ('x') + {}",
      "local function f() pcall(f) pcall(f) end f()",
      "local function f() xpcall(f, f) xpcall(f, f) end f()",
    }) do
      refused("INSTRUCTIONS", body)
    end
  end)

  it("ends functions in C that could take time out of proportion", function()
    refused("INSTRUCTIONS", "table.move({}, 1, 1e9, 2)")
    refused("INSTRUCTIONS", "local t = {} for i = 1, 2e5 do t[i] = -i end table.sort(t)")
    refused("RAISED", "local t = {} table.insert(t, -2^31, 1)")
    refused("RAISED", "return table.concat({}, '', 1, 1e9)")
    refused("RAISED", "return unpack({}, 1, 1e9)")
    refused("RAISED", "return unpack({}, -2^31, 2^31 - 1)")
    refused("RAISED", "return ('x'):rep(1e6):byte(1, -1)")
    refused("RAISED", "return ('%99999d'):format(1)")
    refused("MEMORY", "return ('x'):rep(1e9)")
    refused("MEMORY", "return (''):rep(1e9, 'x')")
    fine("", "return (''):rep(1e9)")
    fine("", "return (''):rep(1e9, '')")
    fine(false, "return (pcall(string.rep))")
    fine(true, "local t = {} for i = 1, 3000 do t[i] = i end "
      .. "table.sort(t, function() return true end) return true")
  end)

  it("counts time where one instruction does much", function()
    for _, body in ipairs({
      "local a, b = ('x'):rep(4e6) .. 'a', ('x'):rep(4e6) .. 'b' while true do local x = a < b end",
      "local t = {} for i = 1, 4e5 do t[i] = i end for i = 1, 4e5 do t[i] = nil end "
        .. "while true do next(t) end",
      "local s = ('1'):rep(4e6) while true do local x = tonumber(s) end",
      "local s = ('x'):rep(4e6) while true do local x = s:reverse() end",
      "local s = ('x'):rep(4e6) while true do local x = s .. 'y' end",
    }) do
      local ok, _, code = run(body, { instructions = 100000000, milliseconds = 50 })
      assert.is_nil(ok)
      assert.is_truthy(code == "TIMEOUT" or code == "INSTRUCTIONS", code)
    end
  end)

  it("bounds memory, however it is eaten", function()
    for _, body in ipairs({
      "local t = {} while true do t[#t + 1] = {} end",
      "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
      "local s = 'x' while true do s = s .. s end",
      "local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end",
      "local t = {} while true do xpcall(function() while true do t[{}] = 1 end end, "
        .. "function() end) end",
      "local t = {} for i = 1, 1e4 do t[i] = ('x'):rep(1e5) end return #table.concat(t)",
      "return (('x'):rep(1e6):gsub('x', ('y'):rep(100)))",
    }) do
      local ok, _, code = run(body, { memory_bytes = 4000000, instructions = 20000000 })
      assert.is_nil(ok)
      assert.equal("MEMORY", code)
    end
  end)

  it("is out of service when its memory does not come back", function()
    local box = box_with("kept = kept or {} while true do kept[#kept + 1] = {} end",
      { memory_bytes = 1000000 })
    local ok, message, code = box:call("go")
    assert.is_nil(ok)
    assert.equal("MEMORY", code)
    assert.is_truthy(message:find("^box.lua:3: needed more than 1000000 bytes"), message)
    ok, message, code = box:call("fine")
    assert.is_nil(ok)
    assert.equal("MEMORY", code)
    assert.is_truthy(message:find("out of service"))
    box:close()
  end)

  it("goes on after a strike when its memory comes back", function()
    local box = box_with("local t = {} while true do t[#t + 1] = {} end",
      { memory_bytes = 1000000 })
    for _ = 1, 20 do
      local ok, _, code = box:call("go")
      assert.is_nil(ok)
      assert.equal("MEMORY", code)
      assert.same({ true, "fine" }, { box:call("fine") })
    end
    box:close()
  end)

  it("can be made in any memory, or not", function()
    local made = 0
    for bytes = 1, 80000, 331 do
      local box, _, code = sandbox.new({ memory_bytes = bytes, callbacks = { f = print } })
      if box then
        made = made + 1
        local ok, value, problem = box:load("return { go = function() return {} end }",
          "@small.lua")
        assert.is_truthy(ok or problem == "MEMORY", tostring(value))
        if ok then
          ok, value, problem = box:call("go")
          assert.is_truthy(ok or problem == "MEMORY", tostring(value))
        end
        box:close()
      else
        assert.equal("MEMORY", code)
      end
    end
    assert.is_true(made > 10)
  end)

  it("strikes at any allocation without harm", function()
    local body = [[
      local t = {}
      for i = 1, 200 do
        t[i] = { tostring(i), ("x"):rep(i), ("a b c"):gsub("%w", function(c) return c .. i end) }
      end
      table.sort(t, function(a, b) return a[1] < b[1] end)
      for a, b in ("k=v, x=y"):gmatch("(%w+)=(%w+)") do t[#t + 1] = a .. b end
      return pcall(error, t), #t, t]]
    local reached = 0
    for bytes = 40000, 200000, 1013 do
      local box = sandbox.new({ memory_bytes = bytes })
      if box and box:load("return { go = function() " .. body .. " end }", "@any.lua") then
        local ok, message, code = box:call("go")
        assert.is_truthy(ok or code == "MEMORY", tostring(message))
        reached = reached + (ok and 1 or 0)
      end
    end
    assert.is_true(reached > 0)
  end)

  it("survives deep recursion, in Lua and in C", function()
    assert.is_truthy(refused("RAISED", "local function f() return 1 + f() end return f()")
      :find("stack overflow"))
    refused("RAISED", "local function f(s) return (s:gsub('.', f)) end return f('a')")
    refused("RAISED", "local function f() table.sort({ 3, 2, 1 }, function() f() end) end f()")
    refused("RAISED", "local t t = setmetatable({}, { __tostring = function() "
      .. "return ('%s'):format(t) end }) return tostring(t)")
    fine(false, "local function f() return (pcall(f)) and false end return f()")
    refused("RAISED", "local t = {} t = setmetatable(t, { __index = t }) setmetatable(t, { "
      .. "__index = "
      .. "function(_, k) return t[k] + 1 end }) return t.x")
  end)

  it("says what was raised, whatever it is", function()
    assert.equal("box.lua:3: no", refused("RAISED", "error('no')"))
    assert.is_truthy(refused("RAISED", "error({ 'no' })"):find("a table, not a message"))
    assert.is_truthy(refused("RAISED", "error()"):find("nil, not a message"))
    assert.is_truthy(refused("RAISED", "error(setmetatable({}, { __tostring = function() "
      .. "while true do end end }))"):find("a table, not a message"))
    assert.is_true(#refused("RAISED", "error(('x'):rep(1e6))") <= 2000)
    local box = assert(sandbox.new())
    local ok, message, code = box:load("return {\n  go = = 1 }", "@syntax.lua")
    assert.is_nil(ok)
    assert.equal("RAISED", code)
    assert.is_truthy(message:find("^syntax.lua:2: "), message)
    assert.is_nil((box:load("return 1", "@number.lua")))
    assert.is_nil((box:call("go")))
    box:close()
  end)

  it("keeps pcall and xpcall as they are for ordinary errors", function()
    fine({ false, "box.lua:3: x", 7 }, "local ok, e = pcall(function() error('x') end) return "
      .. "{ ok, e, 7 }")
    fine({ true, 1, 2 }, "return { pcall(function(...) return ... end, 1, 2) }")
    fine({ false, "box.lua:3: x!" }, "return { xpcall(function() error('x') end, function(e) "
      .. "return e .. '!' end) }")
    fine({ true, 3 }, "return { xpcall(function(a, b) return a + b end, print, 1, 2) }")
    fine(false, "return (pcall(pcall))")
    fine(false, "return (select(2, pcall(pcall, error)))")
  end)

  it("sorts and inserts as Lua does", function()
    math.randomseed(7)
    for n = 0, 60 do
      local list = {}
      for i = 1, n do
        list[i] = math.random(20)
      end
      local source = "{" .. table.concat(list, ",") .. "}"
      table.sort(list)
      fine(list, "local t = " .. source .. " table.sort(t) return t")
      local down = {}
      for i = 1, n do
        down[i] = list[n + 1 - i]
      end
      fine(down, "local t = " .. source .. " table.sort(t, function(a, b) return a > b end) "
        .. "return t")
    end
    fine({ "z", "a", "m", "b", "e" }, "local t = { 'a', 'b' } table.insert(t, 'e') "
      .. "table.insert(t, 1, 'z') "
      .. "table.insert(t, 3, 'm') return t")
    refused("RAISED", "table.sort({ 1, 'x' })")
    refused("RAISED", "table.insert({}, 5, 1)")
  end)

  it("copies values both ways, marks and null kept", function()
    local box = box_with("return ...")
    local value = {
      list = json.array({ 1, 2, json.array({}) }), empty = {}, object = json.object({}),
      null = json.null, yes = true, text = "\0\255", number = 0.1, [3] = "three",
    }
    local ok, copy = box:call("go", value)
    assert.is_true(ok, copy)
    assert.same(value, copy)
    assert.is_true(copy ~= value and copy.list ~= value.list)
    assert.is_true(json.is_array(copy.list))
    assert.is_true(json.is_array(copy.list[3]))
    assert.equal(json.null, copy.null)
    assert.equal("[[],{},[]]", json.encode((select(2, box:call("go",
      json.array({ json.array({}), json.object({}), json.array({}) }))))))
    box:close()
    fine(json.encode({ json.array({}), json.null }), [[return "[[],null]"]])
    box = box_with("return array(), null == (...), array({ 1 })")
    assert.equal("[]", json.encode((select(2, box:call("go")))))
    assert.is_true((select(3, box:call("go", json.null))))
    box:close()
  end)

  it("does not let a value grow or run away on its way", function()
    refused("DEPTH", "local t = {} t.t = t return t")
    refused("DEPTH", "local t = {} for _ = 1, 100 do t = { t } end return t")
    refused("LIMIT", "local t = {} for _ = 1, 40 do t = { t, t } end return t")
    refused("LIMIT", "local s = ('x'):rep(1e6) local t = {} for i = 1, 100 do t[i] = s end "
      .. "return t")
    refused("LIMIT", "return unpack({}, 1, 200)")
    refused("TYPE", "return function() end")
    refused("TYPE", "return { pcall }")
    refused("TYPE", "return { [{}] = 1 }")
    refused("TYPE", "return { [true] = 1 }")
    fine({ x = 1 }, "return setmetatable({ x = 1 }, { __index = function() error('no') end, "
      .. "__pairs = error, __len = error })")
    local box = box_with("return 1")
    local loop = {}
    loop.loop = loop
    for _, bad in ipairs({ loop, { print }, { [{}] = 1 }, io.stdout }) do
      local ok, message, code = box:call("go", bad)
      assert.is_nil(ok)
      assert.is_truthy(message:find("cannot be passed"), message)
      assert.is_truthy(code == "DEPTH" or code == "TYPE")
    end
    assert.same({ true, 1 }, { box:call("go") })
    box:close()
  end)

  it("keeps boxes apart from each other and from the host", function()
    local first = box_with([[
      getmetatable("").__index = nil
      rawset(_G, "pcall", nil)
      rawset(string, "format", nil)
      rawset(table, "concat", nil)
      setmetatable(_G, { __index = error, __newindex = error })
      return 1]])
    local second = box_with("return ('%d'):format(7) .. table.concat({ 'x' }) .. "
      .. "tostring(pcall(error))")
    assert.same({ true, 1 }, { first:call("go") })
    assert.same({ true, "7xfalse" }, { second:call("go") })
    assert.equal("7", ("%d"):format(7))
    assert.is_nil((first:call("nothing")))
    first:close()
    second:close()
  end)

  it("calls functions of the host with copies", function()
    local kept, box = {}, nil
    box = assert(sandbox.new({ callbacks = {
      set = function(key, value)
        kept[key] = value
      end,
      get = function(key)
        return kept[key]
      end,
      fail = function()
        error("not today", 0)
      end,
      odd = function()
        return print
      end,
      again = function()
        return pcall(box.call, box, "fine")
      end,
    } }))
    assert(box:load([[
      return {
        go = function()
          local t = { 1, { 2 } }
          set("t", t)
          t[2][1] = "changed"
          return get("t"), get("none")
        end,
        fail = function() return pcall(function() fail() end) end,
        odd = function() return pcall(odd) end,
        again = function() return again() end,
        spin = function() while true do pcall(fail) end end,
        fine = function() return "fine" end,
      }]], "@host.lua"))
    assert.same({ true, { 1, { 2 } } }, { box:call("go") })
    assert.same({ 1, { 2 } }, kept.t)
    assert.same({ true, false, "host.lua:8: not today" }, { box:call("fail") })
    assert.same({ true, false, "cannot be passed: a function" }, { box:call("odd") })
    assert.same({ true, false }, { box:call("again") })
    assert.equal("INSTRUCTIONS", (select(3, box:call("spin"))))
    assert.same({ true, "fine" }, { box:call("fine") })
    box:close()
  end)

  it("raises on misuse", function()
    assert.has_error(function()
      sandbox.new({ memory = 1 })
    end)
    assert.has_error(function()
      sandbox.new({ instructions = 0 })
    end)
    assert.has_error(function()
      sandbox.new({ callbacks = { f = 1 } })
    end)
    local box = assert(sandbox.new())
    assert.has_error(function()
      box:load("return {}", "no mark")
    end)
    box:close()
    box:close()
    assert.has_error(function()
      box:call("go")
    end)
    assert.is_truthy(tostring(box):find("^farcall.sandbox"))
  end)

  it("is freed when it is forgotten", function()
    for _ = 1, 200 do
      box_with("return 1")
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") < 200000)
  end)
end)
