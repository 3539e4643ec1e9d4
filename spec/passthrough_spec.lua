-- SPDX-License-Identifier: MIT
-- What the operator lets through reaches whatever runs in any environment.

local cli = require("spec.support.cli")
local helper = require("spec.helper")

local BED = (os.getenv("FARCALL_TESTBED") or "/var/tmp/farcall-testbed") .. "/ssh/"
-- As whoever quotes it wrongly would not have it.
local VALUE = "it's \"$HOME\" `id`"

local PLACES = {
  ["local"] = {}, bubblewrap = {},
  docker = { "image=farcall-spec/debian", "env=SET=here" },
  ssh = {
    "host=127.0.0.1", "user=farcall-far", "port=" .. helper.read(BED .. "port.main"):match("%d+"),
    "config=none", "identity=" .. BED .. "ed25519", "known_hosts=" .. BED .. "known_hosts",
  },
}

local SCRIPT = [[
import os
from farcall import terminal
print(os.environ.get("LET_TOKEN"), os.environ.get("KEPT_TOKEN"))
print(terminal('printf %s "$LET_TOKEN"')["output"])
]]

describe("passthrough", function()
  for backend, options in pairs(PLACES) do
    it("lets a variable through to " .. backend .. ", by each transport", function()
      local home = cli.home()
      home:write("work/conf.lua", 'passthrough { "LET_TOKEN", "SET" }')
      local environment = { env = { LET_TOKEN = VALUE, KEPT_TOKEN = "x", SET = "operator's" } }
      local words = { "-C", "conf.lua", "-b", backend }
      for _, option in ipairs(options) do
        words[#words + 1] = "-o"
        words[#words + 1] = option
      end
      for _, transport in ipairs({ "stream", "file" }) do
        local got = home:run({ "run", "--transport", transport, "-c", SCRIPT, unpack(words) },
          environment)
        assert.equal(("%s None\n%s\n"):format(VALUE, VALUE), got.out, got.err)
      end
      local got = home:run({ "exec", "-c", 'echo "$LET_TOKEN $SET"', unpack(words) }, environment)
      -- What is set for a backend counts over it.
      assert.equal(("%s %s\n"):format(VALUE, backend == "docker" and "here" or "operator's"),
        got.out, got.err)
    end)
  end
end)
