-- SPDX-License-Identifier: MIT
local file_answer = require("farcall.transports.file_answer")
local far = require("farcall.transports.file_sh")

local MARK = ("0123456789abcdef"):rep(2)

local function line(words)
  return "\n" .. MARK .. " " .. words .. "\n"
end

-- What a reader makes of it, when it comes in pieces of so many bytes.
local function read(text, size)
  local reader = file_answer.reader(MARK)
  for at = 1, #text, size do
    reader.feed(text:sub(at, at + size - 1))
  end
  return reader
end

describe("the answer of a cycle", function()
  local REQUEST = '{"id":1}\n\n' .. MARK:sub(1, 20) .. "\n \nno header"

  it("is the same however it comes", function()
    local text = "banner\nof a shell" .. line("put") .. "noise" .. line("request 1.req") .. REQUEST
      .. line("request 2.req") .. line("fail 7") .. line("end") .. "a trap's last words"
    for _, size in ipairs({ 1, 2, 7, 33, 34, 35, 100, #text }) do
      local reader = read(text, size)
      assert.same({ { name = "1.req", text = REQUEST }, { name = "2.req", text = "" } },
        reader.brought)
      assert.same({ [7] = true }, reader.failed)
      assert.is_true(reader.put and reader["end"])
      assert.is_nil(reader.gone)
    end
  end)

  it("holds no request whose end has not come", function()
    local reader = read(line("put") .. line("request 1.req") .. '{"id":1', 5)
    assert.same({}, reader.brought)
    assert.is_nil(reader["end"])
  end)

  it("says what the script has spoiled, in our words", function()
    assert.equal("requests", read(line("spoiled request"), 9).spoiled)
    assert.equal("files", read(line("spoiled \27[31m"), 9).spoiled)
  end)

  it("means nothing with another mark, or a word of no cycle", function()
    local other = line("end"):gsub("0123", "3210")
    local unknown = line("END") .. line("") .. line("brought 1.req") .. line("feed")
    local reader = read(other .. unknown, 4)
    assert.same({}, reader.brought)
    assert.is_nil(reader["end"])
    assert.equal("function", type(reader.feed))
  end)

  it("brings no more requests than an exec does", function()
    local reader = read(line("request 1.req"):rep(far.MOST + 10) .. line("end"), 1000)
    assert.equal(far.MOST, #reader.brought)
    assert.is_true(reader["end"])
  end)

  it("does not wait for a header without end", function()
    local reader = read("\n" .. MARK .. " " .. ("x"):rep(5000) .. line("end"), 100)
    assert.is_true(reader["end"])
    assert.same({}, reader.brought)
  end)
end)
