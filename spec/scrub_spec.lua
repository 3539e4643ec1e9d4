-- SPDX-License-Identifier: MIT
local scrub = require("farcall.scrub")

describe("scrub", function()
  it("lets through what programs need", function()
    local environ = {
      PATH = "/bin", HOME = "/h", USER = "u", LOGNAME = "u", SHELL = "/bin/sh", LANG = "C.UTF-8",
      LC_ALL = "C", TERM = "xterm", TMPDIR = "/t", XDG_RUNTIME_DIR = "/r", PYTHONPATH = "/p",
      VIRTUAL_ENV = "/v", CONDA_PREFIX = "/c", TZ = "UTC",
    }
    assert.same(environ, scrub.environment(environ))
  end)

  it("drops the rest", function()
    assert.same({}, scrub.environment({
      FOO = "1", LD_PRELOAD = "x.so", PATHX = "1", FARCALL_CONFIG = "x", BASH_ENV = "x",
    }))
  end)

  it("drops what looks secret even with an allowed prefix", function()
    assert.same({}, scrub.environment({
      XDG_API_KEY = "1", LC_token = "2", CONDA_PASSWORD = "3", XDG_AUTH = "4",
    }))
    for _, name in ipairs({ "OPENAI_API_KEY", "github_token", "Db_Password", "SENTRY_DSN" }) do
      assert.is_true(scrub.looks_secret(name))
    end
    assert.is_false(scrub.looks_secret("PATH"))
    assert.is_false(scrub.looks_secret("TMPDIR"))
  end)

  it("lets through what the operator names", function()
    assert.same({ MY_TOKEN = "t", FOO = "1" },
      scrub.environment({ MY_TOKEN = "t", FOO = "1", BAR = "2" }, { "MY_TOKEN", "FOO", "ABSENT" }))
  end)
end)
