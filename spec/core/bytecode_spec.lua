-- SPDX-License-Identifier: MIT
-- The compiled modules beside the Lua tree: used when they are right, never in place of a newer
-- source.

local build = require("spec.support.build")
local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local PROBE = "core/lua_bytecode.h"

-- A copy of the Lua tree with bytecode as new as `when` (for touch); returns how to run the program
-- on it.
local function copy(when)
  local home = cli.home()
  local line = "cp -RL %s/lua %s/lua && rm -f %s/lua/farcall.bytecode"
    .. " && cp %s/lua/farcall.bytecode %s/lua && touch -d '%s' %s/lua/farcall.bytecode"
  local root, dir = assert(fs.realpath(build.dir)), home.dir
  assert(os.execute(line:format(root, dir, dir, root, dir, when, dir)) == 0)
  local function run(...)
    return home:run({ ... }, { env = { FARCALL_LUA = dir .. "/lua" } })
  end
  return run, dir .. "/lua/"
end

describe("bytecode", function()
  it("is there for every module that require can be asked for", function()
    local list = helper.read(build.dir .. "/lua/farcall.bytecode"):match("^(.-)\n\n")
    local names = { n = 0 }
    for name in list:gmatch("\n(%S+) %d+") do
      names[name], names.n = true, names.n + 1
    end
    for _, name in ipairs({ "errors.lua", "cli/init.lua", "engine.lua", "tools/patch.lua" }) do
      assert.is_true(names[name], name)
    end
    assert.is_true(names.n >= 50, names.n)
    assert.is_truthy(helper.read(PROBE):find("farcall bytecode 1", 1, true))
  end)

  it("is used when it is newer than the source, and names the source in errors", function()
    local run, tree = copy("next year")
    helper.write(tree .. "farcall/cli/version.lua", "error('the source')")
    local got = run("version")
    assert.equal(0, got.code, got.err)
    helper.write(tree .. "farcall/core.lua", "")
    assert(fs.unlink(tree .. "farcall/cli/ui.lua"))
    got = run("version")
    assert.equal(125, got.code)
    assert.is_truthy(got.err:find(tree .. "farcall/cli/init.lua:", 1, true), got.err)
  end)

  it("is not used when the source is newer", function()
    local run, tree = copy("last year")
    helper.write(tree .. "farcall/cli/version.lua", "\nerror('the source')")
    local got = run("version")
    assert.equal(125, got.code)
    assert.is_truthy(got.err:find("farcall/cli/version.lua:2: the source", 1, true), got.err)
  end)

  it("does no harm when it is damaged or not there", function()
    local run, tree = copy("next year")
    local path = tree .. "farcall.bytecode"
    local good = helper.read(path)
    local list, code = good:match("^(.-\n\n)(.*)$")
    for _, bad in ipairs({
      "", "x", "farcall bytecode 1\n", "farcall bytecode 2\n" .. good:sub(20), list,
      list .. code:sub(1, #code / 2), list:gsub(" %d+\n", " 99999999999\n") .. code,
      list:gsub(" %d+\n", " -1\n") .. code, list:gsub(" %d+\n", "\n") .. code,
      list .. ("\0"):rep(#code), list .. code:gsub("\27LJ", "\27LK"),
    }) do
      helper.write(path, bad)
      local got = run("version")
      assert.equal(0, got.code, ("%q: %s"):format(bad:sub(1, 60), got.err))
      assert.matches("^farcall %d", got.out)
    end
    assert(fs.unlink(path))
    assert.equal(0, run("version").code)
  end)
end)
