-- SPDX-License-Identifier: MIT
local helper = require("spec.helper")
local plugin = require("farcall.plugin")

local GOOD = {
  backend = "return { name = 'x', summary = 's', api = 1, open = function() end }",
  tool = "return { summary = 's', handler = function() end }",
  stub = [[return { language = "x", extensions = {}, interpreter = {}, render = function() end }]],
}

describe("plugin", function()
  it("finds the operator's file before the built-in one of the same name", function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/terminal.lua", GOOD.tool)
    assert.equal(path, plugin.find("tool", "terminal", { dir }))
    assert.matches("/tools/terminal%.lua$", plugin.find("tool", "terminal", {}))
    local count = 0
    for _, entry in ipairs(plugin.all("tool", { dir, "/no/such/directory" })) do
      if entry.name == "terminal" then
        count = count + 1
        assert.same({ name = "terminal", path = path, built_in = false }, entry)
      end
    end
    assert.equal(1, count)
  end)

  it("says where it looked and which name is near", function()
    local path, err = plugin.find("policy", "bugdet", { "/some/where" })
    assert.is_nil(path)
    assert.equal("not_found", err.kind)
    assert.matches("/some/where", tostring(err), 1, true)
    assert.matches("did you mean budget?", tostring(err), 1, true)
  end)

  it("takes no name for a path", function()
    for _, name in ipairs({ "../tools/terminal", "/etc/passwd", "", ".", "a/b", "terminal\0" }) do
      assert.is_nil((plugin.find("backend", name, {})))
    end
  end)

  it("loads each kind, and a policy not at all", function()
    local dir = helper.scratch()
    for kind, text in pairs(GOOD) do
      local value = assert(plugin.load(kind, helper.write(dir .. "/x.lua", text)))
      assert.equal("x", value.name)
    end
    local path = helper.write(dir .. "/x.lua", "error('run')")
    assert.same({ path = path }, plugin.load("policy", path))
    assert.equal("config", select(2, plugin.load("policy", dir .. "/none.lua")).kind)
  end)

  it("tells what is wrong with file, line and reason", function()
    local dir = helper.scratch()
    local path = dir .. "/x.lua"
    for kind in pairs(GOOD) do
      for text, expected in pairs({
        ["return {\n  oops oops\n}"] = path .. ":2: ",
        ["\n\nerror('no good')"] = path .. ":3: no good",
        ["error({ 1 })"] = path .. ": table",
        ["error(nil)"] = path .. ": nil",
        ["return nil"] = path .. ":1: the file must return a table, it returned nil",
        ["return {}"] = path .. ":1: ",
        ["\27LJ"] = path .. ": this is compiled Lua",
        [""] = path .. ":1: the file must return a table",
      }) do
        helper.write(path, text)
        local value, err = plugin.load(kind, path)
        assert.is_nil(value)
        assert.equal("config", err.kind)
        assert.is_truthy(tostring(err):find(expected, 1, true), tostring(err))
      end
      local _, err = plugin.load(kind, dir .. "/none.lua")
      assert.matches("none.lua", tostring(err), 1, true)
    end
  end)

  it("names the field that is missing or of the wrong type", function()
    local dir = helper.scratch()
    local path = helper.write(dir .. "/x.lua", "return { summary = 3, handler = print }")
    assert.matches("summary must be a string, it is a number",
      tostring(select(2, plugin.load("tool", path))), 1, true)
    helper.write(path, "return { summary = 's' }")
    assert.matches("handler must be a function, it is missing",
      tostring(select(2, plugin.load("tool", path))), 1, true)
    helper.write(path, GOOD.backend:gsub("api = 1", "api = 2"))
    assert.matches("api 2, this farcall has api 1",
      tostring(select(2, plugin.load("backend", path))), 1, true)
  end)

  it("keeps the compiler off in what it runs, so that a watchdog can stop it", function()
    local path = helper.write(helper.scratch() .. "/x.lua",
      "return function() local n = 0 while true do n = n + 1 end end")
    local ok, endless = plugin.run(path)
    assert.is_true(ok)
    local turns = 0
    debug.sethook(function()
      turns = turns + 1
      if turns > 100 then
        debug.sethook()
        error("stopped")
      end
    end, "", 10000)
    local ended, message = pcall(endless)
    debug.sethook()
    assert.is_false(ended)
    assert.matches("stopped", message, 1, true)
  end)
end)
