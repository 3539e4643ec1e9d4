-- SPDX-License-Identifier: MIT
-- core/pattern.c, seen through a box's string library: it agrees with Lua's own, and it ends.

local sandbox = require("farcall.core.sandbox")

-- Each gives what the library gave as one text, the same in the box as outside.
local SOURCE = [[
  local function shown(ok, ...)
    if not ok then
      local message = tostring((...))
      return message:find("unfinished capture", 1, true) and "unfinished" or "an error"
    end
    local parts = {}
    for i = 1, select("#", ...) do
      parts[i] = ("%q"):format(tostring((select(i, ...))))
    end
    return table.concat(parts, " ")
  end
  local function all(s, p)
    local rows = {}
    for a, b, c in string.gmatch(s, p) do
      rows[#rows + 1] = shown(true, a, b, c)
      if #rows == 40 then break end
    end
    return table.concat(rows, "|")
  end
  local function joined(a, b)
    return b and a .. b or nil
  end
  local map = { a = "X", b = false, ["1"] = 7, ab = "yes" }
  return {
    problem = function(s, p) return select(2, pcall(string.find, s, p)) end,
    find = function(...) return shown(pcall(string.find, ...)) end,
    match = function(...) return shown(pcall(string.match, ...)) end,
    gmatch = function(s, p) return shown(pcall(all, s, p)) end,
    gsub = function(...) return shown(pcall(string.gsub, ...)) end,
    gsub_table = function(s, p, n) return shown(pcall(string.gsub, s, p, map, n)) end,
    gsub_function = function(s, p) return shown(pcall(string.gsub, s, p, joined)) end,
  }
]]

-- The same functions over LuaJIT's library.
local reference = loadstring(SOURCE)()

local function choose(list, most)
  local parts = {}
  for i = 1, math.random(0, most) do
    parts[i] = list[math.random(#list)]
  end
  return table.concat(parts)
end

local PIECES = {
  "a", "b", "c", "1", ".", "%a", "%d", "%w", "%s", "%p", "%A", "%x", "%g", "%c", "%l", "%U", "%%",
  "[ab]", "[^a]", "[%w_]", "[a-c]", "[]a]", "[^]]", "[a-]", "[%]]", "[^%s]", "[%a-z]", "*", "+",
  "-", "?", "*", "(", ")", "()", "%1", "%2", "%b()", "%bab", "%bxx", "%f[%w]", "%f[^a]", "^", "$",
  "%", "[", "\200", "%z", "x", "%.",
}
local BYTES = { "a", "a", "b", "c", "1", "(", ")", " ", "_", "\200", "\0", "%", "-", ".", "x" }
local REPLACEMENTS = { "x", "%0", "%1", "%2", "%%", "%", "y%a" }

describe("patterns of a box", function()
  local box

  before_each(function()
    box = assert(sandbox.new({ instructions = 20000000, milliseconds = 60000 }))
    assert(box:load(SOURCE, "=patterns"))
  end)

  after_each(function()
    box:close()
  end)

  -- An unfinished capture is always an error in a box; Lua's gsub lets some go.
  local function compare(name, ...)
    local ok, ours = box:call(name, ...)
    assert.is_true(ok, ours)
    local theirs = reference[name](...)
    if ours ~= theirs and ours ~= "unfinished" then
      assert.equal(theirs, ours, ("%s %q %q"):format(name, (...), (select(2, ...))))
    end
  end

  it("agree with Lua's on random patterns and subjects", function()
    for seed = 1, 12000 do
      math.randomseed(seed)
      local pattern, subject = choose(PIECES, 7), choose(BYTES, 12)
      local start = math.random(-5, 14)
      compare("find", subject, pattern, start)
      compare("find", subject, pattern, start, true)
      compare("match", subject, pattern, start)
      compare("gmatch", subject, pattern)
      compare("gsub", subject, pattern, choose(REPLACEMENTS, 3), math.random(0, 5))
      compare("gsub_table", subject, pattern)
      compare("gsub_function", subject, pattern)
    end
  end)

  it("agree with Lua's on every byte against every class", function()
    local every = {}
    for byte = 0, 255 do
      every[#every + 1] = string.char(byte)
    end
    every = table.concat(every)
    for class in ("acdglpsuwxzACDGLPSUWXZ"):gmatch(".") do
      compare("gsub", every, "%" .. class, "")
      compare("gsub", every, "[^%" .. class .. "]", "")
    end
  end)

  it("agree with Lua's on texts that people match", function()
    local text = "From: A. Person <a.person@example.org>\nDate: 2024-03-01T12:00:00Z\n[x] = "
      .. "'y' -- 1e5\n"
    for _, pattern in ipairs({
      "(%w+)%s*=%s*(%w+)", "<([^>]+)>", "(%d%d%d%d)-(%d%d)-(%d%d)", "^From:%s*(.-)\n", "%b<>",
      "%f[%w]%w+%f[%W]", "([%w.]+)@([%w.]+)", "(['\"])(.-)%1", "\n$", "()%s+()", "[^\n]*\n?",
        "%-%-.*$",
    }) do
      compare("find", text, pattern)
      compare("gmatch", text, pattern)
      compare("gsub", text, pattern, "<%0>")
    end
  end)

  local function overruns(source)
    box:close()
    box = assert(sandbox.new({ milliseconds = 60000 }))
    assert(box:load("return { go = function() " .. source .. " end }", "@slow.lua"))
    local began = os.clock()
    local ok, message, code = box:call("go")
    assert.is_nil(ok)
    assert.equal("INSTRUCTIONS", code)
    assert.is_truthy(message:find("^slow.lua:"), message)
    assert.is_true(os.clock() - began < 30)
  end

  it("end although they would run for ever", function()
    overruns("local s = ('a'):rep(30000); local x = s:find(('a-'):rep(8) .. 'b')")
    overruns("local s = ('a'):rep(30000); local x = s:match(('.*'):rep(8) .. 'b')")
    overruns("local s = ('a'):rep(300000); local x = s:gsub('.-.-.-b', '')")
    overruns("local s = ('a'):rep(300000); for x in s:gmatch('a-a-a-b') do end")
    overruns("local s = ('('):rep(300000); local x = s:find('%b()')")
    overruns("local s = ('a'):rep(30000); local x = s:find(('a?'):rep(90) .. ('a'):rep(90) .. 'b')")
    overruns("local s = ('a'):rep(100000); local x = s:find('(.+).-%1b')")
  end)

  it("finds plain text in linear time", function()
    assert(box:load([[
      local hay, needle = ("a"):rep(1e6), ("a"):rep(5e5) .. "b"
      return {
        absent = function() return (hay:find(needle, 1, true)) or "none" end,
        there = function() return ((hay .. "b"):find(needle, 1, true)) end,
      }
    ]], "=plain"))
    local began = os.clock()
    assert.same({ true, "none" }, { box:call("absent") })
    assert.same({ true, 500001 }, { box:call("there") })
    assert.is_true(os.clock() - began < 30)
  end)

  it("refuse more parts than there is room for, and say what is malformed", function()
    local function problem(subject, pattern)
      local _, message = box:call("problem", subject, pattern)
      return message
    end
    assert.equal("pattern too complex", problem("a", ("a?"):rep(300)))
    assert.equal("pattern too complex", problem("a", ("[a]"):rep(50)))
    assert.equal("too many captures", problem("", ("()"):rep(33)))
    assert.equal("malformed pattern (missing ']')", problem("a", "[a"))
    assert.equal("malformed pattern (ends with '%')", problem("a", "a%"))
    assert.equal("invalid capture index", problem("a", "%1"))
    assert.equal("invalid pattern capture", problem("a", "a)%s?"))
  end)
end)
