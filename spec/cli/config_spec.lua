-- SPDX-License-Identifier: MIT
-- Configuration and trust as the program shows them: layers, origins, mistakes.
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")

local function settings(home, options, ...)
  local got = home:run({ "config", "--json", ... }, options)
  assert.equal(0, got.code, got.err)
  local by_name = {}
  for _, row in ipairs(json.decode(got.out).settings) do
    by_name[row.name] = row
  end
  return by_name
end

describe("farcall config", function()
  it("says where each value comes from: default, file, variable", function()
    local home = cli.home()
    home:write("config/farcall/config.lua", "\nlimits { timeout = 10, max_calls = 7 }\n")
    home:write("work/conf.lua", "limits { timeout = 20 }\nbackend \"b\" { use = \"local\" }\n")
    local rows = settings(home)
    assert.equal("10", rows["limits.timeout"].value)
    assert.equal(home.dir .. "/config/farcall/config.lua:2", rows["limits.timeout"].origin)
    assert.equal("default", rows["limits.stdout_bytes"].origin)
    rows = settings(home, nil, "-C", "conf.lua")
    assert.equal("20", rows["limits.timeout"].value)
    assert.matches("/conf.lua:1$", rows["limits.timeout"].origin)
    assert.equal("7", rows["limits.max_calls"].value)
    assert.matches("/conf.lua:2$", rows["backend b"].origin)
    local listed = home:run({ "backends", "-C", "conf.lua" })
    assert.matches("\nb +%S+conf.lua:2 +local, configured\n", "\n" .. listed.out)
    local described = home:run({ "backends", "b", "-C", "conf.lua" })
    assert.matches("^local: ", described.out)
    assert.matches("b is local as configured in %S+conf.lua:2", described.err)
    rows = settings(home, { env = { FARCALL_TIMEOUT = "30", FARCALL_BACKEND = "b" } }, "-C",
      "conf.lua")
    assert.equal("30", rows["limits.timeout"].value)
    assert.equal("FARCALL_TIMEOUT", rows["limits.timeout"].origin)
    assert.equal("b", rows.default_backend.value)
  end)

  it("tells every mistake with file, line and what was meant, and exits with 125", function()
    local home = cli.home()
    for text, expected in pairs({
      ["\nbakend \"x\" {}"] = "conf.lua:2: .*did you mean '?backend",
      ["limits { timeot = 3 }"] = "conf.lua:1: .*did you mean '?timeout",
      ["limits { timeout = -3 }"] = "conf.lua:1: .*timeout.*number",
      ["limits { timeout = '3' }"] = "conf.lua:1: .*timeout",
      ["\n\ntools 3"] = "conf.lua:3: ",
      ["tools { 'terminal', x = 1 }"] = "conf.lua:1: ",
      ["default_backend(3)"] = "conf.lua:1: ",
      ["timeout = 3"] = "conf.lua:1: ",
      ["backend \"x\" { "] = "conf.lua:1: ",
      ["journal_sync \"never\""] = "conf.lua:1: .*journal_sync.*end, call",
      ["error('no')"] = "conf.lua:1: no",
      ["policy \"x\" 3"] = "conf.lua:1: ",
    }) do
      home:write("work/conf.lua", text)
      for _, argv in ipairs({
        { "config", "-C", "conf.lua" }, { "run", "-C", "conf.lua", "-c", "print(1)" },
        { "check", "-C", "conf.lua" },
      }) do
        local got = home:run(argv)
        local told = ("%s\n%s %d: %s%s"):format(text, argv[1], got.code, got.out, got.err)
        assert.equal(125, got.code, told)
        assert.equal("", got.out, told)
        assert.is_truthy(got.err:find(expected), told)
      end
    end
  end)

  it("takes no unknown variable for a known one", function()
    local got = cli.home():run({ "config" }, { env = { FARCALL_TIMEOT = "3" } })
    assert.equal(125, got.code)
    assert.matches("FARCALL_TIMEOT.*did you mean FARCALL_TIMEOUT", got.err)
    -- What scripts are given is no mistake: they may use farcall too.
    got = cli.home():run({ "config" }, { env = { FARCALL_RUN_DIR = "/tmp", FARCALL_MARK = "1" } })
    assert.same({ 0, "" }, { got.code, got.err })
    got = cli.home():run({ "config" }, { env = { FARCALL_TIMEOUT = "soon" } })
    assert.equal(125, got.code)
    assert.matches("FARCALL_TIMEOUT.*must be a number", got.err)
  end)

  it("lets flags and jobs narrow tools and calls, never widen", function()
    local home = cli.home()
    home:write("work/conf.lua", "tools { \"read_file\" }\nlimits { max_calls = 1 }\n")
    local got = home:run({ "run", "-C", "conf.lua", "--allow", "terminal", "-c", "print(1)" })
    assert.equal(2, got.code)
    assert.matches("no listed tool is called terminal", got.err, 1, true)
    got = home:run({ "run", "-C", "conf.lua", "--max-calls", "100", "-c", [[
from farcall import read_file, ToolError
read_file("conf.lua")
try:
    read_file("conf.lua")
except ToolError as error:
    print(error.kind)
]] })
    assert.equal("limit\n", got.out, got.err)
    home:write("work/none.lua", "tools {}\n")
    got = home:run({ "run", "-C", "none.lua", "-c", "from farcall import read_file" })
    assert.equal(1, got.code)
  end)

  it("adds the policies of all layers up", function()
    local home = cli.home()
    home:write("config/farcall/config.lua", "policy \"budget\" { max_calls = 2 }\n")
    home:write("work/conf.lua", "policy \"allow\" { tools = { \"read_file\" } }\n")
    local got = home:run({
      "run", "-C", "conf.lua", "--policy", "budget:max_calls=1", "-c", [[
from farcall import read_file, terminal, ToolError
read = lambda: read_file("conf.lua")
for call in (lambda: terminal("true"), read, read):
    try:
        call()
        print("done")
    except ToolError as error:
        print(error.kind)
]] })
    assert.equal("refused\n", got.out:match("^[^\n]*\n"), got.err)
    assert.is_nil(got.out:find("done\n.*done"), got.out)
  end)

  it("shows no secret", function()
    local home = cli.home()
    home:write("work/more/vault.lua", [[
return { name = "vault", summary = "s", api = 1, caps = {}, open = function() end,
  options = { key = { type = "string", secret = true, doc = "d" } } }]])
    home:write("work/conf.lua", [[
backend_path { "more" }
backend "v" { use = "vault", key = "hunter2hunter2" }
]])
    local got = home:run({ "config", "-C", "conf.lua" })
    assert.equal(0, got.code)
    assert.is_nil((got.out .. got.err):find("hunter2", 1, true))
    assert.is_nil(home:run({ "config", "-C", "conf.lua", "--json" }).out:find("hunter2", 1, true))
  end)

  it("uses a runtime directory only when it is private", function()
    local home = cli.home()
    assert(fs.mkdir(home.dir .. "/runtime/farcall", 493))
    assert(fs.chmod(home.dir .. "/runtime/farcall", 493))
    local got = home:run({ "run", "-c", "print(1)" })
    assert.equal(125, got.code)
    assert.matches("mode 0700", got.err, 1, true)
  end)
end)

describe("farcall trust", function()
  it("is asked for before ./farcall.lua is run, and again when anything of it changes", function()
    local home = cli.home()
    local function uses()
      local got = home:run({ "run", "-c", "print(1)" })
      assert.equal(got.out == "1\n" and 0 or 125, got.code, got.err)
      return got.code == 0, got.err
    end
    home:write("work/farcall.lua", "policy \"./p.lua\" {}\ntool_path { \"./tools\" }\n")
    home:write("work/p.lua", "return { name = 'p', summary = 's', before = allow }")
    home:write("work/tools/t.lua", "return { summary = 's', handler = function() end }")
    local used, err = uses()
    assert.is_false(used)
    assert.matches("farcall.lua: it is not trusted.*`farcall trust`", err)
    local got = home:run({ "trust" })
    assert.equal(0, got.code)
    for _, name in ipairs({ "farcall.lua", "p.lua", "tools/t.lua" }) do
      assert.is_truthy(got.err:find(home.work .. "/" .. name, 1, true), got.err)
    end
    assert.is_true(uses())

    local function changes(what, expected)
      what()
      used, err = uses()
      assert.is_false(used)
      assert.is_truthy(err:find(expected), err)
      assert.equal(0, home:run({ "trust" }).code)
      assert.is_true(uses())
    end
    changes(function()
      home:write("work/tools/new.lua", "return { summary = 's', handler = function() end }")
    end, "tools/new.lua: it is new")
    changes(function()
      home:write("work/p.lua", "return { name = 'p', summary = 's2', before = allow }")
    end, "p.lua: it has changed")
    changes(function()
      assert(fs.unlink(home.work .. "/tools/t.lua"))
    end, "tools/t.lua: it is gone")
    changes(function()
      home:write("work/farcall.lua", "policy \"./p.lua\" {}\ntool_path { \"./tools\" }\n--\n")
    end, "farcall.lua: it has changed")
  end)

  it("does not run what it does not trust", function()
    local home = cli.home()
    home:write("work/farcall.lua", "limits { timeout = 1 }\n")
    assert.equal(0, home:run({ "trust" }).code)
    home:write("work/farcall.lua", "local file = io.open('ran', 'w') file:close()\n")
    for _, command in ipairs({ "run", "config", "check", "tools", "doctor" }) do
      local argv = command == "run" and { "run", "-c", "print(1)" } or { command }
      assert.equal(125, home:run(argv).code, command)
    end
    assert.is_nil(fs.stat(home.work .. "/ran"))
  end)

  it("is not needed for what -C names, and says nothing of other directories", function()
    local home = cli.home()
    home:write("work/farcall.lua", "limits { timeout = 7 }\n")
    assert.equal("7", settings(home, nil, "-C", "farcall.lua")["limits.timeout"].value)
    assert.equal(0, home:run({ "trust" }).code)
    home:write("other/farcall.lua", "limits { timeout = 7 }\n")
    local got = home:run({ "config" }, { cwd = home.dir .. "/other" })
    assert.equal(125, got.code)
    assert.is_truthy(helper.read(home.dir .. "/state/farcall/trust.json"))
  end)

  it("tells what it trusts as JSON", function()
    local home = cli.home()
    home:write("work/farcall.lua", "limits { timeout = 7 }\n")
    local got = home:run({ "trust", "--json" })
    assert.same({ trusted = { home.work .. "/farcall.lua" } }, json.decode(got.out))
  end)
end)
