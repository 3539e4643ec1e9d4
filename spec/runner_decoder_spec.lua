-- SPDX-License-Identifier: MIT
-- The Python runner's decoder by itself: frames that are mutated, thousands of times, in pieces.
-- What the whole runner does with such is in runner_python_spec.lua; the decoder in C is in
-- fuzz/mux.c.

local fs = require("farcall.core.fs")
local helper = require("spec.helper")

describe("the Python runner's decoder, fed with mutated frames,", function()
  it("raises its own error or none, whatever comes and in whatever pieces", function()
    local dir = helper.scratch()
    assert(fs.mkdir(dir .. "/here", 448))
    local pipe = io.popen(("/usr/bin/python3 spec/support/runner_decoder.py 1 20000 %s 2>&1")
      :format(dir))
    local said = pipe:read("*a")
    pipe:close()
    assert.equal("20000 True True\n", said)
    -- What it was asked to make went with its channels.
    assert.same({}, fs.list(dir .. "/here"))
  end)
end)
