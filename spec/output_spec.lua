-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local output = require("farcall.output")
local system = require("farcall.core.system")
local child = require("spec.support.child")
local helper = require("spec.helper")

-- Feeds text in pieces of so many bytes.
local function collect(options, text, piece)
  local o = output.new(options)
  for at = 1, #text, piece or 4096 do
    o:feed(text:sub(at, at + (piece or 4096) - 1))
  end
  return o:finish()
end

local function split(text)
  return text:match("^(.-)\n?%[%.%.%. ([%d,]+) of ([%d,]+) bytes left out here %.%.%.%]\n(.*)$")
end

local function number(text)
  return tonumber((text:gsub(",", "")))
end

describe("output", function()
  it("keeps what fits as it is", function()
    for _, text in ipairs({ "", "x", ("line\n"):rep(20) }) do
      for _, piece in ipairs({ 1, 7, 4096 }) do
        local r = collect({ max_bytes = 100 }, text, piece)
        assert.equal(text, r.text)
        assert.is_false(r.truncated)
        assert.same({ #text, #text, 0 }, { r.bytes_total, r.bytes_captured, r.bytes_omitted })
        assert.is_nil(r.spill_path)
      end
    end
  end)

  it("keeps 40 % of the beginning and 60 % of the end of what does not", function()
    local text = {}
    for i = 1, 10000 do
      text[i] = ("%06d\n"):format(i)
    end
    text = table.concat(text)
    for _, piece in ipairs({ 1, 3, 1000, 4096, 100000 }) do
      local r = collect({ max_bytes = 1000 }, text, piece)
      local head, omitted, total, tail = split(r.text)
      assert.is_true(r.truncated)
      assert.is_true(text:sub(1, 400) == head or text:sub(1, 399) == head)
      assert.equal(text:sub(-600), tail)
      assert.equal(70000, number(total))
      assert.equal(69000, number(omitted))
      assert.same({ 70000, 1000, 69000 }, { r.bytes_total, r.bytes_captured, r.bytes_omitted })
    end
  end)

  it("cuts one byte too many, and no other", function()
    local r = collect({ max_bytes = 10 }, "abcd1234567")
    assert.equal("abcd\n[... 1 of 11 bytes left out here ...]\n234567", r.text)
    r = collect({ max_bytes = 0 }, "abc")
    assert.equal("[... 3 of 3 bytes left out here ...]\n", r.text)
  end)

  it("cuts between characters", function()
    local text = ("aé€😀"):rep(200)
    for max = 20, 60 do
      for _, piece in ipairs({ 1, 5, 4096 }) do
        local r = collect({ max_bytes = max }, text, piece)
        local head, _, _, tail = split(r.text)
        assert.equal(text:sub(1, #head), head)
        assert.equal(text:sub(-#tail), tail)
        -- Whole characters: what is left of a head or tail after whole ones is nothing.
        local rest = (head .. tail):gsub("[\240-\247][\128-\191][\128-\191][\128-\191]", "")
        rest = rest:gsub("[\224-\239][\128-\191][\128-\191]", "")
        rest = rest:gsub("[\192-\223][\128-\191]", ""):gsub("[%z\1-\127]", "")
        assert.equal("", rest)
        assert.is_true(r.bytes_captured <= max and r.bytes_captured > max - 7)
        assert.equal(r.bytes_total, r.bytes_captured + r.bytes_omitted)
      end
    end
  end)

  it("cleans before it cuts, and hands on clean text as it comes", function()
    local heard = {}
    local o = output.new({ max_bytes = 1000, on_text = function(bytes)
      assert.is_true(bytes ~= "")
      heard[#heard + 1] = bytes
    end })
    o:feed("\27[31mred\27[0m ")
    assert.matches("^red", table.concat(heard))
    o:feed("bro\255ken\n")
    local r = o:finish()
    assert.equal("red bro\239\191\189ken\n", r.text)
    assert.equal(r.text, table.concat(heard))
    assert.equal(#r.text, r.bytes_total)
  end)

  it("redacts unless told not to", function()
    local secret = "ghp_" .. ("a1B2c3D4e5"):rep(4):sub(1, 36)
    local text = "token " .. secret .. " end\n"
    for piece = 1, 50, 7 do
      local r = collect({}, text, piece)
      assert.is_nil(r.text:find(secret, 1, true))
      assert.matches("^token .+ end\n$", r.text)
    end
    assert.equal(text, collect({ redact = false }, text).text)
  end)

  it("writes all of it to the spill file when it does not fit", function()
    local dir = helper.scratch()
    local text = {}
    for i = 1, 30000 do
      text[i] = "é" .. i .. "\27[0m\n"
    end
    text = table.concat(text)
    local clean = text:gsub("\27%[0m", "")
    for _, piece in ipairs({ 11, 4096, 1000000 }) do
      local path = dir .. "/spill-" .. piece
      local r = collect({ max_bytes = 500, spill_path = path }, text, piece)
      assert.equal(path, r.spill_path)
      assert.is_true(clean == helper.read(path))
      assert.equal(#clean, r.spill_bytes)
      assert.equal(0x180, fs.stat(path).mode)
    end
    local path = dir .. "/small"
    assert.is_nil(collect({ max_bytes = 500, spill_path = path }, "small").spill_path)
    assert.is_nil(fs.stat(path))
  end)

  it("ends the spill file at its cap, between characters", function()
    local path = helper.scratch() .. "/spill"
    local r = collect({ max_bytes = 100, spill_path = path, spill_max = 1001 }, ("é"):rep(5000), 97)
    assert.equal(("é"):rep(500), helper.read(path))
    assert.equal(1000, r.spill_bytes)
    assert.equal(10000, r.bytes_total)
    assert.is_nil(r.spill_error)
  end)

  it("goes on when the spill file cannot be written", function()
    local r = collect({ max_bytes = 10, spill_path = "/dev/null/none" }, ("x"):rep(100))
    assert.is_true(r.truncated)
    assert.is_nil(r.spill_path)
    assert.is_string(r.spill_error)
    local path = helper.scratch() .. "/spill"
    local how, code = child.run(function()
      child.limit_file_size(200000)
      r = collect({ max_bytes = 10, spill_path = path }, ("x"):rep(500000))
      return r.bytes_total == 500000 and r.spill_error and 7 or 1
    end)
    assert.same({ "exit", 7 }, { how, code })
  end)

  it("takes 100 MB in the memory of a few buffers", function()
    local o = output.new({ spill_path = helper.scratch() .. "/spill" })
    local piece = ("0123456789abcde\n"):rep(4096)
    for _ = 1, 100 do
      o:feed(piece)
    end
    collectgarbage()
    local before = system.rss_bytes()
    for _ = 101, 1600 do
      o:feed(piece)
    end
    collectgarbage()
    assert.is_true(system.rss_bytes() - before < 20e6)
    local r = o:finish()
    assert.equal(1600 * 65536, r.bytes_total)
    assert.is_true(r.bytes_captured <= 50000)
    assert.is_true(r.spill_bytes <= 5000000)
  end)

  it("keeps within its bound when bytes come one by one", function()
    local o = output.new({ max_bytes = 1000 })
    for i = 1, 300000 do
      o:feed(i % 10 == 0 and "\n" or "x")
    end
    local r = o:finish()
    assert.equal(300000, r.bytes_total)
    assert.equal(1000, r.bytes_captured)
  end)

  it("refuses what is not an option", function()
    assert.has_error(function() output.new({ max = 1 }) end)
    assert.has_error(function() output.new({ max_bytes = "1" }) end)
  end)
end)
