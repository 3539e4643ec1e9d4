-- SPDX-License-Identifier: MIT
local literal = require("farcall.literal")
local stub = require("farcall.stub")

local function template(files)
  return {
    language = "test", extensions = { "t" }, interpreter = { "t" },
    render = function(tools, options)
      return type(files) == "function" and files(tools, options) or files
    end,
  }
end

local TOOL = {
  name = "one", summary = "s", parameters = { type = "object", required = { "z", "b" },
    properties = { a = {}, b = {}, z = {}, c = {} } },
}

describe("stub", function()
  it("tells a template the tools in order, with their parameters in order", function()
    local told
    assert(stub.render(template(function(tools, options)
      told = { tools = tools, options = options }
      return {}
    end), { TOOL, { name = "all", parameters = {}, order = {} } }))
    assert.same({ "all", "one" }, { told.tools[1].name, told.tools[2].name })
    local names = {}
    for i, parameter in ipairs(told.tools[2].parameters) do
      names[i] = parameter.name
    end
    assert.same({ "z", "b", "a", "c" }, names)
    assert.is_true(told.tools[1].ordered)
    assert.is_false(told.tools[2].ordered)
    assert.same({ module = "farcall", errors = "raise" }, told.options)
  end)

  it("takes a toolset as well as a list", function()
    local set = { names = function() return { "one" } end, get = function() return TOOL end }
    assert.same({}, stub.render(template({}), set))
  end)

  it("refuses names that are none", function()
    for _, name in ipairs({ "", "a b", "1a", "a\n", 'a"', "ä", ("a"):rep(65) }) do
      local files, err = stub.render(template({}), { { name = name, parameters = {} } })
      assert.is_nil(files)
      assert.equal("config", err.kind)
    end
    for _, module in ipairs({ "", "a.b", "a b", "../x", "a;b" }) do
      assert.is_nil((stub.render(template({}), {}, { module = module })))
    end
    assert.is_nil((stub.render(template({}), {}, { modul = "x" })))
    assert.is_nil((stub.render(template({}), {}, { errors = "x" })))
  end)

  it("refuses files that are none", function()
    for _, files in ipairs({
      { { name = "../x", text = "" } }, { { name = "token", text = "" } }, { { name = "a" } },
      { { name = "a", text = "" }, { name = "a", text = "" } }, { "x" }, { { text = "" } },
    }) do
      local rendered, err = stub.render(template(files), {})
      assert.is_nil(rendered)
      assert.equal("config", err.kind)
    end
    local _, err = stub.render(template(function()
      error("my mistake")
    end), {})
    assert.truthy(err.msg:find("stub_spec.lua:%d+: my mistake"))
  end)
end)

describe("literal.escape", function()
  local function astral(point)
    return ("\\U%08x"):format(point)
  end

  it("leaves printable ASCII but for quotes and backslashes", function()
    for byte = 0, 255 do
      local out = literal.escape(string.char(byte), astral)
      assert.truthy(out:find("^[ -~]+$"))
      if byte >= 0x20 and byte < 0x7F and byte ~= 0x22 and byte ~= 0x5C then
        assert.equal(string.char(byte), out)
      else
        assert.equal("\\", out:sub(1, 1))
      end
    end
  end)

  it("writes code points and mends what is none", function()
    assert.equal("\\u00e4\\u20ac\\U0001f600", literal.escape("ä€😀", astral))
    assert.equal("\\ufffda", literal.escape("\195a", astral))
    assert.equal("\\ufffd\\ufffd\\ufffd", literal.escape("\237\160\128", astral))
    assert.equal("\\ufffd\\ufffd", literal.escape("\192\128", astral))
  end)
end)
