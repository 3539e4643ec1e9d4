-- SPDX-License-Identifier: MIT
-- The resolver: layers over layers, each value with its origin.
local config = require("farcall.config")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local function place()
  local dir = assert(fs.realpath(helper.scratch()))
  assert(fs.mkdir(dir .. "/config/farcall", 448, true))
  assert(fs.mkdir(dir .. "/runtime", 448))
  return dir
end

-- Loads with the user's configuration and one that -C names; either may be nil.
local function load(dir, user, named, options)
  options = options or {}
  local environ = {
    HOME = dir, XDG_CONFIG_HOME = dir .. "/config", XDG_STATE_HOME = dir .. "/state",
    XDG_RUNTIME_DIR = dir .. "/runtime", FARCALL_SUPERVISOR = "/bin/true",
  }
  for name, value in pairs(options.environ or {}) do
    environ[name] = value
  end
  if user then
    helper.write(dir .. "/config/farcall/config.lua", user)
  end
  return config.load({
    environ = environ, flags = options.flags,
    file = named and helper.write(dir .. "/conf.lua", named) or nil,
  })
end

local function refused(text, ...)
  local dir = place()
  local cfg, err = load(dir, nil, text)
  assert.is_nil(cfg, text)
  assert.equal("config", err.kind)
  for _, pattern in ipairs({ ... }) do
    assert.matches(pattern, tostring(err))
  end
end

describe("config", function()
  it("has defaults that run a script with the built-in tools", function()
    local dir = place()
    local cfg = assert(load(dir))
    assert.same({ "patch", "read_file", "search_files", "terminal", "write_file" },
      cfg.enabled_tools)
    assert.same({ 300, 50, 50000, 10000 }, {
      cfg.limits.timeout, cfg.limits.max_calls, cfg.limits.stdout_bytes, cfg.limits.stderr_bytes,
    })
    assert.equal(dir .. "/state/farcall", cfg.state_dir)
    assert.equal(dir .. "/runtime/farcall", cfg.runtime_dir)
    assert.equal("farcall", cfg.stub_options.module)
    assert.same({}, cfg.policies)
    assert.is_false(cfg.max_calls_fixed)
  end)

  it("puts files over defaults, variables over files, flags over variables", function()
    local dir = place()
    local user, named = "limits { timeout = 1 }\ndefault_backend \"a\"", "limits { timeout = 2 }"
    assert.equal(1, assert(load(dir, user)).limits.timeout)
    local cfg = assert(load(dir, user, named))
    assert.equal(2, cfg.limits.timeout)
    assert.equal("a", cfg.default_backend)
    assert.equal(dir .. "/conf.lua:1", cfg.origins["limits.timeout"])
    assert.equal(dir .. "/config/farcall/config.lua:2", cfg.origins.default_backend)
    local environ = { FARCALL_TIMEOUT = "3", FARCALL_BACKEND = "b" }
    cfg = assert(load(dir, user, named, { environ = environ }))
    assert.same({ 3, "b" }, { cfg.limits.timeout, cfg.default_backend })
    assert.equal("FARCALL_TIMEOUT", cfg.origins["limits.timeout"])
    cfg = assert(load(dir, user, named, { environ = environ, flags = { timeout = 4 } }))
    assert.equal(4, cfg.limits.timeout)
    assert.equal("--timeout", cfg.origins["limits.timeout"])
  end)

  it("lets an operator's budget only be lowered", function()
    local dir = place()
    assert.equal(100, assert(load(dir, nil, nil, { flags = { max_calls = 100 } })).limits.max_calls)
    local user = "limits { max_calls = 10 }"
    for _, case in ipairs({
      { "limits { max_calls = 20 }", nil, nil, 10 }, { "limits { max_calls = 5 }", nil, nil, 5 },
      { nil, "20", nil, 10 }, { nil, "4", nil, 4 }, { nil, nil, 20, 10 }, { nil, nil, 3, 3 },
      { "policy \"budget\" { max_calls = 7 }", nil, 20, 7 },
    }) do
      local cfg = assert(load(place(), user, case[1], {
        environ = { FARCALL_MAX_CALLS = case[2] }, flags = { max_calls = case[3] },
      }))
      assert.equal(case[4], cfg.limits.max_calls)
      assert.is_true(cfg.max_calls_fixed)
    end
  end)

  it("lets later layers narrow the list of tools, never widen it", function()
    local first = "tools { \"terminal\", \"patch\" }"
    local cfg = assert(load(place(), first, "tools { \"patch\", \"read_file\" }"))
    assert.same({ "patch" }, cfg.enabled_tools)
    assert.same({}, assert(load(place(), "tools {}", first)).enabled_tools)
    cfg = assert(load(place(), nil, [[
tool "mine" { summary = "s", parameters = { type = "object" }, handler = function() end }]]))
    table.sort(cfg.enabled_tools)
    assert.equal("mine", cfg.enabled_tools[1])
    assert.equal(6, #cfg.enabled_tools)
  end)

  it("adds policies and directories up, in the order of the layers", function()
    local dir = place()
    assert(fs.mkdir(dir .. "/config/farcall/t", 448))
    local cfg = assert(load(dir, "policy \"allow\" { tools = {} }\ntool_path { \"t\" }",
      "policy \"./p.lua\" {}\npolicy \"budget\" { max_calls = 1 }\ntool_path { \"/usr\" }"))
    assert.equal("allow", cfg.policies[1].name)
    assert.equal(dir .. "/p.lua", cfg.policies[2].path)
    assert.equal("budget", cfg.policies[3].name)
    assert.equal(dir .. "/conf.lua:2", cfg.policies[3].origin)
    assert.same({ dir .. "/config/farcall/t", "/usr" }, cfg.tool_path)
  end)

  it("takes a backend's options as they are written, with where", function()
    local dir = place()
    local cfg = assert(load(dir, nil, "\nbackend \"box\" { use = \"local\", cwd = \"/\" }"))
    assert.equal("local", cfg.backends.box.use)
    assert.same({ cwd = "/" }, cfg.backends.box.options)
    assert.equal(dir .. "/conf.lua:2", cfg.backends.box.origin)
  end)

  it("tells a mistake with file, line and what was meant", function()
    refused("\nbakend \"x\" {}", "conf%.lua:2: ", "did you mean '?backend")
    refused("limits { timeot = 1 }", "conf%.lua:1: ", "did you mean '?timeout")
    refused("\n\nlimits { timeout = 0 }", "conf%.lua:3: ", "timeout")
    refused("limits { timeout = 1e99 }", "conf%.lua:1: ", "at most 1000000000")
    refused("limits { max_calls = \"many\" }", "conf%.lua:1: ", "max_calls")
    refused("tools { 3 }", "conf%.lua:1: ")
    refused("default_backend {}", "conf%.lua:1: ", "got a table")
    refused("tool_path { \"none\" }", "conf%.lua:1: ", "/none: no such directory")
    refused("x = 1", "conf%.lua:1: ", "no globals")
    refused("backend {", "conf%.lua:1: ")
    refused("backend \"x\"", "conf%.lua:1: ")
    refused("journal_sync \"sometimes\"", "conf%.lua:1: ", "end, call")
    refused("stub_errors \"throw\"", "conf%.lua:1: ", "raise, return")
    refused("\27LJ", "compiled")
  end)

  it("refuses variables that it does not know and values that make no sense", function()
    for name, value in pairs({
      FARCALL_TIMEOT = "1", FARCALL_TIMEOUT = "soon", FARCALL_MAX_CALLS = "-1",
    }) do
      local cfg, err = load(place(), nil, nil, { environ = { [name] = value } })
      assert.is_nil(cfg)
      assert.equal("config", err.kind)
      assert.matches(name, tostring(err), 1, true)
    end
  end)

  it("has directories even where nothing is set", function()
    local cfg, err = config.load({ environ = { FARCALL_SUPERVISOR = "/bin/true" } })
    assert.is_nil(err)
    assert.equal("/", cfg.state_dir:sub(1, 1))
    assert.equal(448, fs.stat(cfg.runtime_dir).mode % 512)
  end)

  it("says which file -C named is not there", function()
    local cfg, err = config.load({ environ = {}, file = "/no/such.lua" })
    assert.is_nil(cfg)
    assert.matches("/no/such.lua: no such configuration file", tostring(err), 1, true)
  end)
end)
