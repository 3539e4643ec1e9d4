-- SPDX-License-Identifier: MIT
local cjson = require("cjson").new()
local ffi = require("ffi")
local json = require("farcall.core.json")

cjson.decode_invalid_numbers(false)

local function rejects(text, code, at, options)
  local value, message, name, offset = json.decode(text, options)
  local shown = #text > 60 and text:sub(1, 60) .. "..." or text
  assert.is_nil(value, shown)
  assert.equal(code, name, shown .. " -> " .. tostring(message))
  if at then
    assert.equal(at, offset, shown .. " -> " .. tostring(message))
  end
  assert.equal((": at byte %d"):format(offset), message:match(": at byte %d+$"))
  -- The other ways in say the same.
  assert.same({ nil, message, name, offset }, { json.check(text, options) })
  assert.same({ nil, message, name, offset }, { json.raw(text, options) })
  assert.same({ nil, message, name, offset }, { json.fields(text, options) })
end

local function accepts(text, expected)
  assert.is_true(json.check(text))
  local value = json.decode(text)
  if expected ~= nil then
    assert.same(expected, value, text)
  end
  return value
end

-- The bits of a double, so that -0 and neighbours are told apart.
local cell = ffi.new("union { double number; uint64_t bits; uint32_t words[2]; }")

local function bits(number)
  cell.number = number
  return tostring(cell.bits)
end

ffi.cdef([[
  double strtod(const char *, char **);
  int snprintf(char *, size_t, const char *, ...);
]])

-- How many digits it takes to tell a double from all others.
local function digits_needed(number)
  local text = ffi.new("char[64]")
  for digits = 1, 17 do
    ffi.C.snprintf(text, 64, "%.*e", ffi.new("int", digits - 1), number)
    if ffi.C.strtod(text, nil) == number then
      return digits
    end
  end
end

local function double_of(high, low)
  cell.words[0], cell.words[1] = low, high
  return cell.number
end

-- A generator of its own, so that a failure comes again.
local function generator(seed)
  local state = ffi.new("uint64_t", seed)
  return function(limit)
    state = state * 6364136223846793005ULL + 1442695040888963407ULL
    return tonumber(bit.rshift(state, 33) % limit)
  end
end

describe("json.decode", function()
  it("takes every kind of value", function()
    accepts("null", json.null)
    accepts("true", true)
    accepts("false", false)
    accepts("0", 0)
    accepts('""', "")
    accepts(" \t\r\n[ ] \n", {})
    accepts("{}", {})
    accepts('{"":0}', { [""] = 0 })
    accepts('[1,"a",[2,{"b":[]}],null]', { 1, "a", { 2, { b = {} } }, json.null })
    accepts('{"1":"a","01":"b","1.0":"c"}', { ["1"] = "a", ["01"] = "b", ["1.0"] = "c" })
    accepts('{"a":{"b":{"c":[{"d":null}]}},"e":-1.5e2}',
      { a = { b = { c = { { d = json.null } } } }, e = -150 })
    accepts('"\127"', "\127")
    accepts('{"a":1,"A":2,"\\u0061 ":3}', { a = 1, A = 2, ["a "] = 3 })
    assert.equal(cjson.null, json.null)
  end)

  it("keeps arrays, empty arrays and empty objects apart", function()
    local value = json.decode('{"list":[],"map":{},"full":[0]}')
    assert.is_true(json.is_array(value.list))
    assert.is_false(json.is_array(value.map))
    assert.is_true(json.is_array(value.full))
    assert.is_false(json.is_array(value))
    assert.equal("[]", json.encode(value.list))
    assert.equal("{}", json.encode(value.map))
  end)

  it("unescapes to the letter", function()
    accepts([["\"\\\/\b\f\n\r\t"]], '"\\/\b\f\n\r\t')
    accepts([["\u0041\u00e9\u20AC\uD83D\uDE00"]], "A\195\169\226\130\172\240\159\152\128")
    accepts([["a\u0000b"]], "a\0b")
    accepts([["\uDBFF\uDFFF\uD7FF\uE000\uFFFF"]],
      "\244\143\191\191\237\159\191\238\128\128\239\191\191")
    accepts([=[["x\ny","\u0031","plain","\\"]]=], { "x\ny", "1", "plain", "\\" })
    accepts([[{"k\u0065y":"v\u0061l"}]], { key = "val" })
  end)

  it("takes valid UTF-8 of every length and refuses every other", function()
    for _, good in ipairs({
      "\194\128", "\223\191", "\224\160\128", "\237\159\191", "\238\128\128", "\239\191\191",
      "\240\144\128\128", "\244\143\191\191",
    }) do
      accepts('"' .. good .. '"', good)
      accepts('"1234567' .. good .. '"', "1234567" .. good)
    end
    for _, bad in ipairs({
      "\128", "\191", "\192\128", "\193\191", "\194", "\194x", "\224\159\191", "\224\160",
      "\237\160\128", "\237\191\191", "\240\143\191\191", "\240\144\128", "\244\144\128\128",
      "\245\128\128\128", "\248\136\128\128\128", "\254", "\255", "\195\40", "\226\40\161",
    }) do
      rejects('"' .. bad .. '"', "UTF8", 2)
      rejects('"12345678' .. bad .. '"', "UTF8", 10)
      rejects('{"ab' .. bad .. '":1}', "UTF8", 5)
      rejects('"\\n' .. bad .. '"', "UTF8", 4)
    end
    rejects('"\194', "UTF8", 2)
  end)

  it("refuses what is no JSON, with the offset", function()
    for text, at in pairs({
      [""] = 1, ["  "] = 3, ["["] = 2, ["[1"] = 3, ["[1,"] = 4, ["[1,]"] = 4, ["[,1]"] = 2,
      ["[1 2]"] = 4, ["]"] = 1, ["[1]]"] = 4, ["[1}"] = 3, ["{"] = 2, ["{]"] = 2, ["}"] = 1,
      ['{"a"'] = 5, ['{"a"}'] = 5, ['{"a":'] = 6, ['{"a":}'] = 6, ['{"a":1'] = 7,
      ['{"a":1,'] = 8, ['{"a":1,}'] = 8, ['{"a" 1}'] = 6, ["{a:1}"] = 2, ["{'a':1}"] = 2,
      ["{1:2}"] = 2, ['{"a":1 "b":2}'] = 8, ['{"a":1]'] = 7, ['{,"a":1}'] = 2, ["'a'"] = 1,
      ['"'] = 2, ['"a'] = 3, ['"a\\'] = 4, ['"\\x41"'] = 3, ['"\\u'] = 4, ['"\\u00'] = 6,
      ['"\\u00g0"'] = 6, ['"\\u 041"'] = 4, ['"\\U0041"'] = 3, ['"\\\n"'] = 3, ["nul"] = 4,
      ["nulL"] = 4, ["True"] = 1, ["tru e"] = 4, ["nullx"] = 5, ["truefalse"] = 5, ["1 2"] = 3,
      ["1,"] = 2, ["//"] = 1, ["/**/1"] = 1, ["1 //"] = 3, ["undefined"] = 1,
      ["\239\187\191{}"] = 1,
      ["\0"] = 1, ["1\0"] = 2, ["[\0]"] = 2, ["\11\49"] = 1, ["\12\49"] = 1, ["\194\160\49"] = 1,
      ["[1\226\128\168]"] = 3, ["#"] = 1, ["=1"] = 1, ["[1;2]"] = 3, ["(1)"] = 1, ["`a`"] = 1,
      ['"a"b'] = 4, ['"a""b"'] = 4, ["{}{}"] = 3, ["{}\n{}"] = 4, ['["a":1]'] = 5, ["[1:2]"] = 3,
      ['{"a":1,"b"}'] = 11, ['{"a"::1}'] = 6, ["1a"] = 2, ["-"] = 2, ["1."] = 3, ["1e"] = 3,
      ["1e+"] = 4, ["[*]"] = 2, ['{"a":b}'] = 6, ["1_000"] = 2, ["12l"] = 3, ['{{}:1}'] = 2,
    }) do
      rejects(text, "SYNTAX", at)
    end
  end)

  it("refuses control characters in strings", function()
    for byte = 0, 31 do
      rejects('"a' .. string.char(byte) .. '"', "SYNTAX", 3)
      rejects('"123456789\\n' .. string.char(byte) .. '"', "SYNTAX", 13)
    end
  end)

  it("refuses what only looks like a number", function()
    for text, at in pairs({
      ["01"] = 2, ["-01"] = 3, ["00"] = 2, ["[-a]"] = 3, ["+1"] = 1, [".5"] = 1, ["[1.]"] = 4,
      ["[1.e1]"] = 4, ["[1e]"] = 4, ["[1e+]"] = 5, ["[1E-x]"] = 5, ["NaN"] = 1, ["Infinity"] = 1,
      ["-Infinity"] = 2, ["-NaN"] = 2, ["--1"] = 2, ["[+0]"] = 2, ["- 1"] = 2, ["1e400"] = 1,
      ["[0,-1e309]"] = 4, ["1.8e308"] = 1, ["1e99999999999999999999"] = 1, ["-.1"] = 2,
    }) do
      rejects(text, "NUMBER", at)
    end
    rejects("0x10", "SYNTAX", 2)
    rejects("1e5.5", "SYNTAX", 4)
    rejects("1.5.5", "SYNTAX", 4)
    rejects("1" .. ("0"):rep(400) .. ".0", "NUMBER", 1)
  end)

  it("refuses half a surrogate pair", function()
    rejects([["\ud800"]], "UTF8", 2)
    rejects([["ab\uDC00"]], "UTF8", 4)
    rejects([["\ud800\u0041"]], "UTF8", 2)
    rejects([["\ud800\ud800"]], "UTF8", 2)
    rejects([["\udc00\ud800"]], "UTF8", 2)
    rejects([["\ud800x\udc00"]], "UTF8", 2)
    rejects([["\ud800]], "UTF8", 2)
    rejects([["\ud83d\u"]], "SYNTAX", 10)
  end)

  it("refuses the same key twice, however it is written", function()
    rejects('{"a":1,"a":1}', "DUPLICATE", 8)
    rejects('{"a":1,"\\u0061":2}', "DUPLICATE", 8)
    rejects('[{"b":{"":1,"x":2,"":3}}]', "DUPLICATE", 19)
    rejects('{"\\ud83d\\ude00":1,"\240\159\152\128":1}', "DUPLICATE", 19)
    accepts('[{"a":1},{"a":1}]')
    accepts('{"a":{"a":{"a":1}}}')
    accepts('{"a\\u0000":1,"a":2,"a\\u0000b":3}')
  end)

  it("finds a key twice among very many, in no time", function()
    for _, count in ipairs({ 12, 13, 14, 1000, 100000 }) do
      local parts = {}
      for i = 1, count do
        parts[i] = ('"key%06d":{"x":%d}'):format(i, i)
      end
      local good = "{" .. table.concat(parts, ",") .. "}"
      local value = accepts(good)
      assert.equal(count, value[("key%06d"):format(count)].x)
      parts[count + 1] = '"key000007":0'
      rejects("{" .. table.concat(parts, ",") .. "}", "DUPLICATE", #good + 1)
      parts[count + 1] = '"key00000\\u0037":0'
      rejects("{" .. table.concat(parts, ",") .. "}", "DUPLICATE", #good + 1)
    end
  end)

  it("reads numbers to the last bit", function()
    for text, expected in pairs({
      ["-0"] = -0.0, ["-0.0"] = -0.0, ["0e999999999999"] = 0, ["0.0e-5"] = 0, ["1E2"] = 100,
      ["1.0"] = 1, ["9007199254740991"] = 2 ^ 53 - 1, ["9007199254740992"] = 2 ^ 53,
      ["-9007199254740992"] = -2 ^ 53, ["0.1"] = 0.1, ["1e22"] = 1e22, ["1e23"] = 1e23,
      ["8.5e-5"] = 8.5e-5, ["1.7976931348623157e308"] = 1.7976931348623157e308,
      ["4.9e-324"] = 4.9406564584124654e-324, ["2.2250738585072014e-308"] = 2 ^ -1022,
      ["2.2250738585072011e-308"] = 2.2250738585072011e-308, ["1e-400"] = 0,
      ["123456789012345678.0"] = 123456789012345678, ["3.141592653589793238462643"] = math.pi,
      -- Halfway between two doubles, and just beside it.
      ["9007199254740993.0"] = 2 ^ 53, ["9007199254740993.0000000000000000000000001"] = 2 ^ 53 + 2,
      ["9007199254740995.0"] = 2 ^ 53 + 4, ["5e-324"] = 4.9406564584124654e-324,
      ["2.4703282292062327e-324"] = 0, ["2.4703282292062328e-324"] = 4.9406564584124654e-324,
      ["0." .. ("0"):rep(400) .. "1e401"] = 1, ["1" .. ("0"):rep(300) .. "e-300"] = 1,
      ["1" .. ("0"):rep(1000) .. "e-1000"] = 1, ["0.5" .. ("0"):rep(5000)] = 0.5,
      ["9007199254740993." .. ("0"):rep(3000) .. "1"] = 2 ^ 53 + 2,
    }) do
      assert.equal(bits(expected), bits(json.decode(text)), text)
      assert.equal(bits(expected), bits(json.decode("[" .. text .. "]")[1]), text)
    end
  end)

  it("reads numbers as the C library does", function()
    local random = generator(1)
    for _ = 1, 5000 do
      local digits = {}
      for i = 1, 1 + random(22) do
        digits[i] = random(10)
      end
      local text = ("%d.%se%d"):format(random(10), table.concat(digits), random(3) == 0
        and random(660) - 340 or random(60) - 30)
      local expected = ffi.C.strtod(text, nil)
      if expected < math.huge then
        assert.equal(bits(expected), bits(json.decode(text)), text)
      end
    end
  end)

  it("hands over integers beyond 2^53 as their digits", function()
    for _, text in ipairs({
      "9007199254740993", "-9007199254740993", "18446744073709551615", "1152921504606846976",
      "1" .. ("0"):rep(500), "9999999999999999", "123456789012345678901234567890",
    }) do
      accepts(text, text)
      accepts("[" .. text .. "]", { text })
    end
  end)

  it("bounds depth, size and number of values", function()
    local function nest(depth)
      return ("["):rep(depth) .. ("]"):rep(depth)
    end
    accepts(nest(64))
    rejects(nest(65), "DEPTH", 65)
    rejects(("["):rep(100000), "DEPTH", 65)
    rejects(('{"a":'):rep(100000), "DEPTH", 64 * 5 + 1)
    assert.is_table(json.decode(nest(1000), { max_depth = 1000 }))
    rejects(nest(1001), "DEPTH", 1001, { max_depth = 1e9 })
    rejects("[]", "DEPTH", 1, { max_depth = 0 })
    assert.equal(1, json.decode("1", { max_depth = 0 }))
    rejects("[1,2]", "LIMIT", 5, { max_bytes = 4 })
    assert.same({ 1, 2 }, json.decode("[1,2]", { max_bytes = 5 }))
    rejects("[1,2,[3]]", "LIMIT", 7, { max_values = 4 })
    assert.is_table(json.decode("[1,2,[3]]", { max_values = 5 }))
    rejects("[" .. ("0,"):rep(1048576) .. "0]", "LIMIT", 2 + 2 * 1048575)
  end)

  it("takes very large strings and arrays", function()
    local big = ("0123456789\195\164"):rep(200000)
    accepts('"' .. big .. '"', big)
    accepts('["' .. big .. '\\n"]', { big .. "\n" })
    local list = accepts("[" .. ("7,"):rep(299999) .. "7]")
    assert.equal(300000, #list)
    assert.equal(7, list[300000])
  end)

  it("is told wrong arguments", function()
    assert.has_error(function() json.decode() end)
    assert.has_error(function() json.decode(5) end)
    assert.has_error(function() json.decode("1", { max_dept = 1 }) end)
    assert.has_error(function() json.decode("1", { max_depth = "1" }) end)
    assert.has_error(function() json.decode("1", { max_depth = -1 }) end)
    assert.has_error(function() json.decode("1", { max_bytes = 0 / 0 }) end)
    assert.has_error(function() json.decode("1", 64) end)
  end)

  it("survives a collector that decodes in between", function()
    local counted = 0
    local function spawn()
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function()
        counted = counted + 1
        assert(json.encode(json.decode('{"in":["a collector\\n",1.5]}')))
      end
    end
    local parts = {}
    for i = 1, 3000 do
      parts[i] = ('{"n%d":["\\u0041 %d",{}]}'):format(i, i)
    end
    local text = "[" .. table.concat(parts, ",") .. "]"
    for _ = 1, 10 do
      for _ = 1, 20 do
        spawn()
      end
      local value = json.decode(text)
      for i = 1, 3000 do
        assert.equal("A " .. i, value[i]["n" .. i][1])
      end
      assert.equal(text:gsub("\\u0041", "A"), json.encode(value))
    end
    collectgarbage()
    assert.is_true(counted > 100)
  end)
end)

describe("json.encode", function()
  local function refuses(value, code, message, options)
    local text, said, name = json.encode(value, options)
    assert.is_nil(text)
    assert.equal(code, name)
    assert.equal(message, said)
  end

  it("writes every kind of value", function()
    assert.equal("null", json.encode(json.null))
    assert.equal("null", json.encode(nil))
    assert.equal("true", json.encode(true))
    assert.equal('"a"', json.encode("a"))
    assert.equal("{}", json.encode({}))
    assert.equal("[]", json.encode(json.array({})))
    assert.equal("{}", json.encode(json.object({})))
    assert.equal("[1,[2],{\"a\":[]}]", json.encode({ 1, { 2 }, { a = json.array({}) } }))
    assert.equal('{"1":2}', json.encode({ ["1"] = 2 }))
    assert.equal("[null,1]", json.encode({ json.null, 1 }))
    assert.equal("{\"a\":1}", json.encode(setmetatable({ a = 1 }, { __index = { b = 2 } })))
  end)

  it("escapes what must be, and nothing else", function()
    for byte = 0, 127 do
      local char = string.char(byte)
      local text = json.encode("12345678" .. char .. "9")
      assert.equal("12345678" .. char .. "9", json.decode(text))
      assert.is_nil(text:find("%c") and byte ~= 127 or nil)
    end
    assert.equal([["\b\t\n\f\r\"\\/\u0000\u001f]] .. '\127"',
      json.encode("\b\t\n\f\r\"\\/\0\31\127"))
    assert.equal('"\195\164\226\128\168\240\159\152\128"',
      json.encode("\195\164\226\128\168\240\159\152\128"))
  end)

  it("writes the shortest number that reads the same", function()
    for text, number in pairs({
      ["0"] = 0, ["-0"] = -0.0, ["1"] = 1, ["-17"] = -17, ["0.1"] = 0.1, ["0.5"] = 0.5,
      ["9007199254740992"] = 2 ^ 53, ["-9007199254740991"] = -(2 ^ 53 - 1),
      ["9.007199254740994e15"] = 2 ^ 53 + 2, ["1e17"] = 1e17, ["1.152921504606847e18"] = 2 ^ 60,
      ["1e308"] = 1e308, ["1.7976931348623157e308"] = 1.7976931348623157e308,
      ["5e-324"] = 2 ^ -1074,
      ["2.2250738585072014e-308"] = 2 ^ -1022, ["0.30000000000000004"] = 0.1 + 0.2,
      ["3.141592653589793"] = math.pi, ["1e23"] = 1e23, ["1e-7"] = 1e-7, ["0.000001"] = 1e-6,
      ["123456.789"] = 123456.789, ["1732312345.123456"] = 1732312345.123456,
      ["2251799813685249.5"] = 2251799813685249.5, ["9.5367431640625e-7"] = 2 ^ -20,
    }) do
      assert.equal(text, json.encode(number))
      assert.equal(bits(number), bits(json.decode(text)))
    end
  end)

  it("writes any double so that it reads the same, in no more digits than needed", function()
    local random = generator(2)
    for i = 1, 5000 do
      local number = double_of(i % 2 == 0 and random(2 ^ 31) or 0x3a000000 + random(0x0a000000),
        random(2 ^ 31) * 2 + random(2))
      if number == number and number < math.huge then
        local text = json.encode(number)
        assert.equal(bits(number), bits(tonumber(text)), text)
        assert.equal(bits(number), bits(json.decode(text)), text)
        if i % 10 == 0 then
          local digits = #text:gsub("e.*", ""):gsub("%.", ""):gsub("^0+", "")
          assert.is_true(digits <= digits_needed(number), text)
        end
      end
    end
  end)

  it("does not follow the locale", function()
    local before = os.setlocale(nil)
    for _, name in ipairs({ "de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "C" }) do
      os.setlocale(name)
      assert.equal("[1.5,2.5e-300]", json.encode({ 1.5, 2.5e-300 }))
      assert.equal(2.5 * 10 ^ -1, json.decode("0.25"))
      assert.equal(1.7976931348623157e308, json.decode("1.7976931348623157e308"))
    end
    os.setlocale(before)
  end)

  it("refuses what JSON does not have, and names the place", function()
    refuses(0 / 0, "NUMBER", "the value: not a number that JSON has")
    refuses({ a = { math.huge } }, "NUMBER", "a[1]: not a number that JSON has")
    refuses({ a = { b = print } }, "TYPE", "a.b: a function has no JSON")
    refuses({ io.stdout }, "TYPE", "[1]: a userdata has no JSON")
    refuses({ coroutine.create(print) }, "TYPE", "[1]: a thread has no JSON")
    refuses({ ffi.new("int64_t", 5) }, "TYPE", "[1]: a cdata has no JSON")
    refuses({ result = { items = { 1, 2, { name = "a\255" } } } }, "UTF8",
      "result.items[3].name: not valid UTF-8")
    refuses({ ["b\228"] = 1 }, "UTF8", '["b\\xE4"]: not valid UTF-8')
    refuses({ ["two words"] = { 0 / 0 } }, "NUMBER", '["two words"][1]: not a number that JSON has')
    refuses({ a = { [("k"):rep(100)] = print } }, "TYPE",
      'a["' .. ("k"):rep(40) .. '..."]: a function has no JSON')
  end)

  it("refuses tables that are neither array nor object", function()
    refuses({ a = { 1, 2, x = 3 } }, "TYPE", "a: an array that also has other keys")
    refuses({ 1, nil, 3 }, "TYPE", "the value: an array with holes")
    refuses({ [2] = 1 }, "TYPE", "the value: an array with holes")
    refuses({ [0] = 1 }, "TYPE", "the value: an array that also has other keys")
    refuses({ [1.5] = 1 }, "TYPE", "the value: an array that also has other keys")
    refuses({ [-1] = 1 }, "TYPE", "the value: an array that also has other keys")
    refuses({ [2 ^ 40] = 1 }, "TYPE", "the value: an array that also has other keys")
    refuses({ [true] = 1 }, "TYPE", "the value: a key that is not a string")
    refuses(json.array({ a = 1 }), "TYPE", "the value: an array that also has other keys")
    refuses(json.object({ 1 }), "TYPE", "the value: a number as the key of an object")
    local backward = {}
    for i = 20, 1, -1 do
      backward[i] = i
    end
    assert.equal("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]", json.encode(backward))
  end)

  it("bounds depth and size, so that cycles and copies of copies end", function()
    local cycle = {}
    cycle.again = cycle
    local _, message, code = json.encode(cycle)
    assert.equal("DEPTH", code)
    assert.matches("^again%.again%..*%.%.%.: nested too deeply, or in itself$", message)
    assert.is_true(#message < 200)
    local doubled = { "x" }
    for _ = 1, 60 do
      doubled = { doubled, doubled }
    end
    _, _, code = json.encode(doubled, { max_bytes = 100000 })
    assert.equal("LIMIT", code)
    assert.equal("[[[1]]]", json.encode({ { { 1 } } }, { max_depth = 3 }))
    refuses({ { { 1 } } }, "DEPTH", "[1][1]: nested too deeply, or in itself", { max_depth = 2 })
    assert.equal('"abc"', json.encode("abc", { max_bytes = 5 }))
    refuses("abc", "LIMIT", "the value: larger than the limit that was set", { max_bytes = 4 })
    refuses({ 1, 2 }, "LIMIT", "the value: larger than the limit that was set", { max_bytes = 4 })
    assert.has_error(function() json.encode(1, { max_values = 1 }) end)
    assert.has_error(function() json.encode() end)
  end)
end)

describe("json.raw and json.fields", function()
  it("hand over text as it is", function()
    assert.equal('{"a":{"b" : 9007199254740993}}',
      json.encode({ a = json.raw('{"b" : 9007199254740993}') }))
    assert.equal("1.00", tostring(json.raw("1.00")))
    assert.equal("[[ 1, 2]]", json.encode({ json.raw("[\n1,\r2]") }))
    assert.is_nil((json.raw("[1")))
    assert.is_nil((json.encode({ json.raw("[[]]") }, { max_depth = 2 })))
    assert.equal("[[[]]]", json.encode({ json.raw("[[]]") }, { max_depth = 3 }))
    assert.is_nil((json.encode(json.raw("[1,2,3]"), { max_bytes = 6 })))
  end)

  it("cut an object's values out of the text", function()
    assert.same({}, json.fields(" { } "))
    assert.same({
      a = "1.50", b = '"x\\ny"', ["c d"] = "[ 1, {\"a\":2} ]", e = "{ }", f = "null",
      g = "12345678901234567890", ["\195\169"] = '""',
    }, json.fields([[ {"a" : 1.50 ,"b":"x\ny" , "c\u0020d" : [ 1, {"a":2} ],"e":{ },
      "f" : null,"g":12345678901234567890,"\u00e9":""}]]))
    local fields, message, code, at = json.fields(" [1]")
    assert.same({ nil, "not an object: at byte 2", "TYPE", 2 }, { fields, message, code, at })
    assert.equal("TYPE", select(3, json.fields('"a"')))
  end)
end)

describe("json.is_array, array and object", function()
  it("tell and mark what a table is", function()
    assert.is_true(json.is_array({ 1 }))
    assert.is_false(json.is_array({}))
    assert.is_false(json.is_array({ a = 1 }))
    assert.is_false(json.is_array("a"))
    assert.is_false(json.is_array(json.null))
    local list = {}
    assert.equal(list, json.array(list))
    assert.is_true(json.is_array(list))
    assert.is_false(json.is_array(json.object(list)))
    assert.has_error(function() json.array("a") end)
    assert.has_error(function() json.object() end)
    assert.has_error(function() json.is_array() end)
  end)
end)

describe("json beside lua-cjson", function()
  local random = generator(3)
  local letters = {
    "a", "Z", "0", " ", '"', "\\", "/", "\n", "\1", "\127", "\195\164", "\226\130\172",
    "\240\159\152\128", "plain words",
  }

  local function some_string()
    local parts = {}
    for i = 1, random(12) do
      parts[i] = letters[1 + random(#letters)]
    end
    return table.concat(parts)
  end

  local function some_value(depth)
    local kind = random(depth > 0 and 8 or 6)
    if kind == 0 then
      return json.null
    elseif kind == 1 then
      return random(2) == 0
    elseif kind == 2 then
      return random(2 ^ 31) * (random(2) == 0 and 1 or -1)
    elseif kind == 3 then
      return (random(20001) - 10000) / 64
    elseif kind <= 5 then
      return some_string()
    elseif kind == 6 then
      local list = {}
      for i = 1, 1 + random(5) do
        list[i] = some_value(depth - 1)
      end
      return list
    end
    local map = {}
    for i = 1, 1 + random(20) do
      map[some_string() .. i] = some_value(depth - 1)
    end
    return map
  end

  it("reads and writes the same values", function()
    for _ = 1, 400 do
      local value = some_value(5)
      local text = json.encode(value)
      assert.same(value, json.decode(text))
      assert.same(value, cjson.decode("[" .. text .. "]")[1])
      assert.same(value, json.decode(cjson.encode({ value }))[1])
      assert.equal(text, tostring(json.raw(text)))
    end
  end)

  it("says no or yes to any damage, and never more", function()
    local text = json.encode({
      id = 1, tool = "caf\195\169",
      args = { path = "a\nb", list = { 1.5, -2e-9, json.null, true } },
    })
    local accepted = 0
    for _ = 1, 5000 do
      local at = 1 + random(#text)
      local damaged = text:sub(1, at - 1) .. string.char(random(256)) .. text:sub(at + random(3))
      local value, _, _, offset = json.decode(damaged)
      if value ~= nil then
        accepted = accepted + 1
        local again = assert(json.encode(value))
        assert.same(value, json.decode(again))
      else
        assert.is_true(offset >= 1 and offset <= #damaged + 1)
      end
      assert.equal(value ~= nil, json.check(damaged) == true)
    end
    assert.is_true(accepted > 25)
  end)
end)
