-- SPDX-License-Identifier: MIT
local base64 = require("farcall.core.base64")

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local best = base64.level()

-- Numbers that are the same in every run.
local function random_from(seed)
  return function(n)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return math.floor(seed / 65536) % n
  end
end

local function random_bytes(random, length)
  local bytes = {}
  for i = 1, length do
    bytes[i] = string.char(random(256))
  end
  return table.concat(bytes)
end

-- The levels that this processor has.
local function each_level(fn)
  for _, level in ipairs({ "scalar", "avx2", "avx512vbmi" }) do
    if base64.force(level) then
      fn(level)
    end
  end
end

-- RFC 4648 done slowly, in bits.
local function slow_encode(bytes)
  local text = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local group = a * 65536 + (b or 0) * 256 + (c or 0)
    for place = 0, 3 do
      local index = math.floor(group / 64 ^ (3 - place)) % 64
      text[#text + 1] = alphabet:sub(index + 1, index + 1)
    end
    if not c then
      text[#text] = "="
    end
    if not b then
      text[#text - 1] = "="
    end
  end
  return table.concat(text)
end

-- Asserts that decoding fails at this byte (from 1), on every level.
local function fails_at(byte, text)
  each_level(function(level)
    local bytes, message, code, at = base64.decode(text)
    assert.is_nil(bytes, level .. " accepted " .. ("%q"):format(text))
    assert.equal("SYNTAX", code)
    assert.equal(byte, at, level .. ": " .. message)
    assert.truthy(message:find("at byte " .. byte, 1, true), message)
  end)
end

describe("base64", function()
  after_each(function()
    assert(base64.force(best))
  end)

  it("knows the vectors of RFC 4648", function()
    local vectors = {
      [""] = "",
      f = "Zg==",
      fo = "Zm8=",
      foo = "Zm9v",
      foob = "Zm9vYg==",
      fooba = "Zm9vYmE=",
      foobar = "Zm9vYmFy",
    }
    each_level(function()
      for bytes, text in pairs(vectors) do
        assert.equal(text, base64.encode(bytes))
        assert.equal(bytes, base64.decode(text))
      end
    end)
  end)

  it("agrees with a slow one on every length up to 300, on every level", function()
    local random = random_from(1)
    for length = 0, 300 do
      local bytes = random_bytes(random, length)
      local text = slow_encode(bytes)
      each_level(function(level)
        assert.equal(text, base64.encode(bytes), level)
        assert.equal(bytes, base64.decode(text), level)
      end)
    end
  end)

  it("agrees with itself on large random buffers, on every level", function()
    local random = random_from(2)
    for _ = 1, 40 do
      local bytes = random_bytes(random, 1000 + random(6000))
      base64.force("scalar")
      local text = base64.encode(bytes)
      each_level(function(level)
        assert.is_true(base64.encode(bytes) == text, level)
        assert.is_true(base64.decode(text) == bytes, level)
      end)
    end
  end)

  it("agrees with the base64 command", function()
    local path = os.tmpname()
    local bytes = random_bytes(random_from(3), 100000)
    local file = assert(io.open(path, "wb"))
    file:write(bytes)
    file:close()
    local pipe = assert(io.popen("base64 -w0 " .. path))
    local text = pipe:read("*a")
    pipe:close()
    os.remove(path)
    each_level(function(level)
      assert.is_true(base64.encode(bytes) == text, level)
      assert.is_true(base64.decode(text) == bytes, level)
    end)
  end)

  it("carries all 256 byte values at every place", function()
    local all = {}
    for byte = 0, 255 do
      all[#all + 1] = string.char(byte):rep(100)
    end
    local bytes = table.concat(all)
    each_level(function()
      assert.equal(bytes, base64.decode(base64.encode(bytes)))
    end)
  end)

  it("carries 20 MB", function()
    local bytes = ("\0\255binary"):rep(2500000)
    assert.is_true(base64.decode(base64.encode(bytes)) == bytes)
  end)

  it("refuses every byte that is not in the alphabet, wherever it stands, and says where",
    function()
    local good = base64.encode(random_bytes(random_from(4), 300))
    for byte = 0, 255 do
      local character = string.char(byte)
      if not alphabet:find(character, 1, true) then
        local at = 1 + (byte * 37) % 396
        fails_at(at, good:sub(1, at - 1) .. character .. good:sub(at + 1))
      end
    end
    for at = 1, 396 do
      fails_at(at, good:sub(1, at - 1) .. "\n" .. good:sub(at + 1))
    end
  end)

  it("says where the first of several bad bytes is", function()
    fails_at(2, "A?B=" .. ("A"):rep(400) .. "!!!!")
    fails_at(201, ("A"):rep(200) .. "\200" .. ("A"):rep(99) .. "-AAA")
  end)

  it("requires padding, in the last group and only there", function()
    fails_at(3, "QQ")
    fails_at(4, "QUI")
    fails_at(4, "QQ=")
    fails_at(2, "Q")
    fails_at(3, "QQ==QUJD")
    fails_at(4, "QUI=QUJD")
    fails_at(1, "====")
    fails_at(2, "Q===")
    fails_at(5, "QUJD=")
    fails_at(5, "QUJD====")
    fails_at(3, "QQ===")
    fails_at(4, "QQ=Q")
    fails_at(1, "=")
  end)

  it("refuses unused bits that are not zero", function()
    for index = 0, 63 do
      local character = alphabet:sub(index + 1, index + 1)
      if index % 16 == 0 then
        assert.equal(1, #base64.decode("Q" .. character .. "=="))
      else
        fails_at(2, "Q" .. character .. "==")
      end
      if index % 4 == 0 then
        assert.equal(2, #base64.decode("QU" .. character .. "="))
      else
        fails_at(3, "QU" .. character .. "=")
      end
    end
  end)

  it("accepts no white space", function()
    fails_at(5, "QUJD\n")
    fails_at(1, " QUJD")
    fails_at(77, base64.encode(("x"):rep(57)) .. "\n" .. base64.encode("abc"))
  end)

  it("decodes only what it would have encoded", function()
    local random = random_from(5)
    for _ = 1, 3000 do
      local size = random(13)
      local text = {}
      for i = 1, size do
        local index = random(66)
        text[i] = index < 64 and alphabet:sub(index + 1, index + 1) or "="
      end
      text = table.concat(text)
      base64.force("scalar")
      local want = base64.decode(text)
      each_level(function(level)
        assert.equal(want, base64.decode(text), level)
      end)
      if want then
        assert.equal(text, base64.encode(want))
      end
    end
  end)

  it("raises on misuse and fails on a level that is not there", function()
    assert.has_error(function()
      base64.encode(nil)
    end)
    assert.has_error(function()
      base64.force("mmx")
    end)
    assert.is_true(base64.force("scalar"))
    assert.equal("scalar", base64.level())
  end)
end)
