-- SPDX-License-Identifier: MIT
-- The words of a configuration file, and what of Lua it may and may not use.

local config_file = require("farcall.config_file")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

-- Loads a file of this text, with others beside it.
local function load(text, others, environ)
  local dir = assert(fs.realpath(helper.scratch()))
  for path, other in pairs(others or {}) do
    assert(fs.mkdir((dir .. "/" .. path):match("^(.*)/"), 448, true))
    helper.write(dir .. "/" .. path, other)
  end
  local layer, err = config_file.load(helper.write(dir .. "/conf.lua", text), { environ = environ })
  return layer, err, dir
end

local function refused(text)
  local layer, err = load(text)
  assert.is_nil(layer, text)
  assert.equal("config", err.kind)
  return tostring(err)
end

describe("a configuration file", function()
  it("notes what is declared, each with file and line", function()
    local layer, _, dir = load([[
default_backend "box"
backend "box" { use = "local", cwd = "/" }
policy "redact"
policy "./own.lua" { a = 1 }
tools { "terminal" }
limits { timeout = 3, max_calls = 0 }
passthrough { "A" }
passthrough { "B" }
]])
    local where = dir .. "/conf.lua:"
    assert.same({ value = "box", origin = where .. 1 }, layer.values.default_backend)
    assert.same({ use = "local", options = { cwd = "/" }, origin = where .. 2, dir = dir },
      layer.backends.box)
    assert.same({
      { name = "redact", options = {}, origin = where .. 3 },
      { path = dir .. "/own.lua", options = { a = 1 }, origin = where .. 4 },
    }, layer.policies)
    assert.same({ names = { "terminal" }, origin = where .. 5 }, layer.tool_list)
    assert.same({ value = 0, origin = where .. 6 }, layer.limits.max_calls)
    assert.same({ "A", "B" }, layer.values.passthrough.value)
    assert.same({ dir .. "/own.lua" }, layer.loads)
  end)

  it("takes names relative to the file that has them, and notes what it loads", function()
    local layer, _, dir = load('include "sub/more.lua"\ntool_path { "here", "/usr" }', {
      ["here/x.lua"] = "", ["sub/t/x.lua"] = "",
      ["sub/more.lua"] = 'tool_path { "./t" }\npolicy "../p.lua"\nstate_dir "state"\n'
        .. 'tool "ls" { summary = "s", command = { "sh", "./ls.sh", "x/y" } }\n'
        .. 'backend "b" { use = "local", cwd = "data" }',
    })
    assert.same({ dir .. "/sub/t", dir .. "/here", "/usr" }, layer.values.tool_path.value)
    assert.equal(dir .. "/sub/../p.lua", layer.policies[1].path)
    assert.equal(dir .. "/sub/state", layer.values.state_dir.value)
    assert.same({ "sh", dir .. "/sub/ls.sh", "x/y" }, layer.tools.ls.command)
    assert.equal(dir .. "/sub", layer.backends.b.dir)
    assert.equal(dir .. "/sub/more.lua:5", layer.backends.b.origin)
    assert.same({
      dir .. "/sub/more.lua", dir .. "/sub/t", dir .. "/sub/../p.lua", dir .. "/sub/ls.sh",
      dir .. "/here", "/usr",
    }, layer.loads)
  end)

  it("reads the environment only by env", function()
    local text = 'backend "b" { key = env "KEY", other = env("OTHER", "none") }'
    local layer = load(text, nil, { KEY = "k" })
    assert.same({ key = "k", other = "none" }, layer.backends.b.options)
    assert.matches('conf.lua:1: env "KEY": there is no such', refused(text), 1, true)
  end)

  it("has what is safe of Lua, in copies, and nothing else", function()
    local layer = load([[
local names = {}
for i, name in ipairs({ "b", "a" }) do names[i] = name:upper():lower() end
table.sort(names)
limits { timeout = math.floor(3.7) + tonumber("1") + bit.band(7, 4) }
passthrough(names)
stub_module(os.date("x"))
string.format = nil
]])
    assert.equal(8, layer.limits.timeout.value)
    assert.same({ "a", "b" }, layer.values.passthrough.value)
    assert.equal("function", type(string.format))
    for _, name in ipairs({
      "io", "require", "dofile", "loadfile", "load", "loadstring", "debug", "package", "_G",
      "getfenv", "setfenv", "getmetatable", "setmetatable", "rawget", "rawset", "jit", "print",
      "collectgarbage", "module", "newproxy", "coroutine", "gcinfo",
    }) do
      assert.matches(name .. " is not there in a configuration", refused("local x = " .. name), 1,
        true)
    end
    for _, name in ipairs({ "execute", "getenv", "remove", "rename", "exit", "tmpname" }) do
      assert.matches("os." .. name .. " is not there", refused("local x = os." .. name), 1, true)
    end
  end)

  it("tells every mistake with file, line and what was meant", function()
    for text, expected in pairs({
      ['\npolcy "x" {}'] = "conf.lua:2: unknown word 'polcy': did you mean 'policy'?",
      ['backend "box"'] = 'conf.lua:1: expected backend "name" { use = "..."',
      ['tool "t"'] = 'conf.lua:1: expected tool "name" {',
      ["backend {}"] = 'conf.lua:1: expected backend "name" {',
      ['backend "a" "b"'] = 'conf.lua:1: expected backend "name" {',
      ['backend "a" { use = 5 }'] = "conf.lua:1: use: expected the name of a backend",
      ['backend "a" {}\nbackend "a" {}'] = "conf.lua:2: backend 'a' is there already, at ",
      ['tool "a" {}\ntool "a" {}'] = "conf.lua:2: tool 'a' is there already, at ",
      ['tool "a" { sumary = "" }'] = "conf.lua:1: unknown field of a tool 'sumary': did you mean",
      ["limits { timeot = 3 }"] = "conf.lua:1: unknown limit 'timeot': did you mean 'timeout'?",
      ["limits { timeout = 0/0 }"] = "conf.lua:1: limit timeout must be a number",
      ["limits { timeout = 1/0 }"] = "conf.lua:1: limit timeout must be a number",
      ["limits { max_calls = 1.5 }"] = "conf.lua:1: limit max_calls must be a whole number",
      ["limits { parallel_calls = 0 }"] = "conf.lua:1: limit parallel_calls must be",
      ["limits(3)"] = "conf.lua:1: expected limits {",
      ['tools "terminal"'] = "conf.lua:1: expected tools {",
      ["timeout = 3"] = "conf.lua:1: write limits { timeout = 3 }",
      ['default_backend = "x"'] = 'conf.lua:1: write default_backend "x", without =',
      ["x = 1"] = "conf.lua:1: a configuration sets no globals",
      ['default_backend ""'] = "conf.lua:1: default_backend: expected a string, got an empty one",
      ['tool_path "x"'] = "conf.lua:1: tool_path: expected a list",
      ['tool_path { "tolls" }'] = "/tolls: no such directory",
      ['include "none.lua"'] = "none.lua\": no such file",
      ['include "conf.lua"'] = "conf.lua:1: the files include one another without end",
      ["include(3)"] = 'conf.lua:1: include "FILE"',
      ['\n\nerror("mine")'] = "conf.lua:3: mine",
      ["x x"] = "conf.lua:1: ",
      ["\27LJ"] = "conf.lua: this is compiled Lua",
    }) do
      assert.is_truthy(refused(text):find(expected, 1, true), text .. "\n" .. refused(text))
    end
  end)

  it("names the included file in a mistake that is there", function()
    local layer, err = load('include "b.lua"', { ["b.lua"] = "\n\nlimit {}" })
    assert.is_nil(layer)
    assert.matches("/b.lua:3: unknown word 'limit': did you mean 'limits'?", tostring(err), 1, true)
  end)
end)
