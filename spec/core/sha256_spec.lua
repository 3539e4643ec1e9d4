-- SPDX-License-Identifier: MIT
local sha256 = require("farcall.core.sha256")

-- What coreutils say, all inputs in one go: a process a hash would be slow.
local function sha256sums(texts)
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir -m 700 " .. dir))
  for i, text in ipairs(texts) do
    local file = assert(io.open(("%s/%04d"):format(dir, i), "wb"))
    file:write(text)
    file:close()
  end
  local pipe = assert(io.popen("cd " .. dir .. " && sha256sum *"))
  local sums = {}
  for line in pipe:lines() do
    sums[#sums + 1] = line:match("^%x+")
  end
  pipe:close()
  os.execute("rm -r " .. dir)
  return sums
end

describe("sha256.hex", function()
  it("knows the vectors of FIPS 180", function()
    local vectors = {
      [""] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      ["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"] =
        "248d6a61d20638b8e5c026930c3e6039"
        .. "a33ce45964ff2167f6ecedd419db06c1",
      [("a"):rep(1000000)] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    }
    for text, digest in pairs(vectors) do
      assert.equal(digest, sha256.hex(text))
    end
  end)

  it("agrees with sha256sum on every length up to four blocks, NUL and all", function()
    local texts = {}
    for length = 0, 257 do
      local bytes = {}
      for i = 1, length do
        bytes[i] = string.char((i * 7 + length) % 256)
      end
      texts[#texts + 1] = table.concat(bytes)
    end
    local sums = sha256sums(texts)
    assert.equal(#texts, #sums)
    for i, text in ipairs(texts) do
      assert.equal(sums[i], sha256.hex(text))
    end
  end)

  it("raises on what is not a string", function()
    assert.has_error(function()
      sha256.hex({})
    end)
  end)
end)
