-- SPDX-License-Identifier: MIT
-- Adding without recompiling: one Lua file dropped into a directory is used at once, by the program
-- that is already built; with a mistake in it, its file, line and reason are told.
local cli = require("spec.support.cli")
local helper = require("spec.helper")
local json = require("farcall.core.json")

local CONFIG = [[
backend_path { "./more" }
policy_path { "./more" }
tool_path { "./more" }
stub_path { "./more" }
]]

-- kind -> a file that is right, how to use it and what that prints.
local GOOD = {
  backend = {
    text = [[
local this_machine = require("farcall.backends.local")
return {
  name = "dropped", summary = "dropped in", api = 1, caps = this_machine.caps,
  options = { greeting = { type = "string", required = true, doc = "what to say" } },
  open = function(options, ctx)
    local env = this_machine.open({ shell = "/bin/sh", tree = "auto", grace = 1,
      env = { GREETING = options.greeting } }, ctx)
    return env
  end,
}]],
    argv = { "exec", "-b", "dropped", "-o", "greeting=ahoy", "-c", "echo $GREETING" },
    out = "ahoy\n",
  },
  policy = {
    text = [[
return { name = "dropped", summary = "dropped in",
  options = { word = { type = "string", default = "w", doc = "the answer" } },
  before = function(call, ctx) return answer({ output = ctx.options.word }) end }]],
    argv = {
      "run", "--policy", "dropped:word=ahoy", "-c",
      "from farcall import terminal\nprint(terminal('rm -rf /')['output'])",
    },
    out = "ahoy\n",
  },
  tool = {
    text = [[
return { name = "dropped", summary = "dropped in",
  parameters = { type = "object", properties = { n = { type = "integer" } }, required = { "n" } },
  handler = function(args) return args.n + 1 end }]],
    config = 'tools { "dropped" }\n',
    argv = { "run", "-c", "from farcall import dropped\nprint(dropped(n=41))" },
    out = "42\n",
  },
  stub = {
    text = [[
return { language = "dropped", extensions = { "dropped" }, interpreter = { "/bin/sh" },
  render = function(tools, options)
    local lines = {}
    for i, tool in ipairs(tools) do
      lines[i] = tool.name
    end
    return { { name = "tools.txt", text = table.concat(lines, "\n") .. "\n" } }
  end }]],
    argv = { "run", "script.dropped" },
    out = "write_file\n",
  },
}

-- Mistakes, whatever the kind: the file's text and what is said of it. FILE stands for its name.
local MISTAKES = {
  { "return {\n  name = \"dropped\",\n  oops\n  = = 3\n}", "FILE:4: " },
  { "local x\n\nerror(\"no good\")", "FILE:3: .*no good" },
  { "local x = nil\nreturn x.y", "FILE:2: " },
  { "return 7", "FILE.*table" },
  { "return {}", "FILE.*" },
  { "\27LJ\2", "FILE.*compiled" },
}

local function drop(kind, text)
  local home = cli.home()
  home:write("work/more/dropped.lua", text)
  home:write("work/conf.lua", CONFIG .. (GOOD[kind].config or ""))
  home:write("work/script.dropped", "tail -n 1 $FARCALL_RUN_DIR/tools.txt\n")
  return home
end

local function use(home, kind, ...)
  local argv = { GOOD[kind].argv[1], "-C", "conf.lua", unpack(GOOD[kind].argv, 2) }
  for _, word in ipairs({ ... }) do
    argv[#argv + 1] = word
  end
  return home:run(argv)
end

local PLURAL = { backend = "backends", policy = "policies", tool = "tools", stub = "stubs" }

for kind, good in pairs(GOOD) do
  describe("a " .. kind .. " that is dropped in", function()
    it("is used at once", function()
      local home = drop(kind, good.text)
      assert.same({ code = 0, out = good.out, err = "" }, use(home, kind))
    end)

    it("is listed, described and checked", function()
      local home = drop(kind, good.text)
      local list = home:run({ PLURAL[kind], "-C", "conf.lua" })
      assert.equal(0, list.code)
      assert.matches("\ndropped +%S+/more/dropped%.lua", "\n" .. list.out)
      local one = home:run({ PLURAL[kind], "dropped", "-C", "conf.lua", "--json" })
      local row = json.decode(one.out)
      assert.equal("dropped", row.name)
      assert.is_false(row.built_in)
      assert.matches("/more/dropped%.lua$", row.path)
      -- A policy file is no tool and so on: each kind has a directory of its own in real life.
      home:write("work/conf.lua", ("%s_path { \"./more\" }\n%s"):format(kind, good.config or ""))
      local checked = home:run({ "check", "-C", "conf.lua" })
      assert.equal(0, checked.code, checked.err)
    end)

    it("tells its mistakes with file, line and reason", function()
      for _, mistake in ipairs(MISTAKES) do
        local text, pattern = unpack(mistake)
        local home = drop(kind, text)
        local expected = pattern:gsub("FILE", "more/dropped%%.lua")
        local got = use(home, kind)
        local told = ("%s\n%d: %s%s"):format(text, got.code, got.out, got.err)
        assert.equal(125, got.code, told)
        assert.equal("", got.out, told)
        assert.is_truthy(got.err:find(expected), told)
        assert.is_nil(got.err:find("this is a bug", 1, true), told)
        local as_json = json.decode(use(home, kind, "--json").out)
        assert.is_truthy(as_json and as_json.error:find(expected), told)
        local checked = home:run({ "check", "-C", "conf.lua" })
        assert.equal(125, checked.code)
        assert.is_truthy(checked.err:find(expected), checked.err)
        local listed = home:run({ PLURAL[kind], "-C", "conf.lua" })
        assert.equal(125, listed.code)
        assert.is_truthy(listed.err:find(expected), listed.err)
      end
    end)
  end)

  describe("farcall new " .. kind, function()
    it("writes a file that works as it is, once", function()
      local home = cli.home()
      local got = home:run({ "new", kind, "fresh", "-d", "made/here" })
      assert.equal(0, got.code, got.err)
      assert.equal(home.work .. "/made/here/fresh.lua\n", got.out)
      home:write("work/fresh.txt", got.err)
      local again = home:run({ "new", kind, "fresh", "-d", "made/here" })
      assert.equal(2, again.code)
      assert.matches("is there already", again.err, 1, true)
      -- What it says to put into a configuration is a configuration.
      local told = json.decode(home:run({ "new", kind, "other", "-d", "made/there", "--json" }).out)
      home:write("work/farcall.lua", told.config)
      assert.equal(0, home:run({ "trust" }).code)
      assert.same({ code = 0, out = "", err = "nothing is wrong\n" }, home:run({ "check" }))
      local described = home:run({ PLURAL[kind], "other", "-C", "farcall.lua" })
      if kind == "policy" then
        described = home:run({ "run", "-c", "print(1)" })
      end
      assert.equal(0, described.code, described.err)
    end)
  end)
end

describe("what farcall new wrote", function()
  it("runs a script: backend, policy, tool and stub together", function()
    local home = cli.home()
    local config = {}
    for _, kind in ipairs({ "backend", "policy", "tool", "stub" }) do
      local told = home:run({ "new", kind, "my_" .. kind, "-d", kind, "--json" })
      config[#config + 1] = json.decode(told.out).config
    end
    home:write("work/farcall.lua", table.concat(config, "\n"):gsub('"08", "18"', '"00", "24"'))
    home:write("work/try.my_stub", [[
from farcall import call
print(call("my_tool", who="world", shout=True)["greeting"])
print(call("terminal", command="nice")["output"].strip())
]])
    assert.equal(0, home:run({ "trust" }).code)
    assert.same({ code = 0, out = ("HELLO, WORLD\n%d\n"):format(helper.niceness(5)), err = "" },
      home:run({ "run", "try.my_stub" }))
  end)
end)
