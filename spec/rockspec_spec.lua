-- SPDX-License-Identifier: MIT
-- The rock is built and installed offline, from a copy of the sources, and works from where it is.

local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local SOURCES = "CMakeLists.txt LICENSE core lua rockspec runner vendor"

-- Runs a command line with a clean environment.
---@return string text what it printed, errors included
---@return integer code
local function sh(dir, line)
  local script = helper.write(dir .. "/line.sh", line .. "\n")
  local clean = "env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME="
  local pipe = assert(io.popen(("%s%s sh %s 2>&1; echo $?"):format(clean, dir, script)))
  local text, code = pipe:read("*a"):match("^(.-)(%d+)\n$")
  pipe:close()
  return text, tonumber(code)
end

describe("the rockspec", function()
  local dir, tree

  -- Once for all: it takes a while. Not helper.scratch, which lasts for one test.
  lazy_setup(function()
    dir = assert(fs.mkdtemp("/tmp/farcall-rock-"))
    tree = dir .. "/tree"
    local text, code = sh(dir, ([[
set -e
mkdir %s/source
cp -R %s %s/source
cd %s/source
export CMAKE_BUILD_PARALLEL_LEVEL=2
export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9
luarocks --lua-version 5.1 make --tree %s rockspec/farcall-scm-1.rockspec]])
      :format(dir, SOURCES, dir, dir, tree))
    assert(code == 0, text)
  end)

  lazy_teardown(function()
    fs.rmtree(dir)
  end)

  it("installs a program that finds its Lua files", function()
    local text, code = sh(dir, "cd / && " .. tree .. "/bin/farcall version")
    assert.equal(0, code, text)
    assert.matches("^farcall %d+%.%d+%.%d+\n", text)
  end)

  it("installs what a script needs to run", function()
    local text, code = sh(dir, ("cd / && %s/bin/farcall run -c 'from farcall import terminal\n"
      .. "print(terminal(\"echo served\")[\"output\"])'"):format(tree))
    assert.equal("served\n\n", text)
    assert.equal(0, code)
  end)

  it("installs modules for host programs, the supervisor found from them", function()
    local text, code = sh(dir, ("cd / && LUA_PATH='%s/share/lua/5.1/?.lua;;' "
      .. "LUA_CPATH='%s/lib/lua/5.1/?.so;;' luajit -e '"
      .. "require(\"farcall.engine\") "
      .. "print(assert(require(\"farcall.config\").load()).supervisor)'")
      :format(tree, tree))
    assert.equal(0, code, text)
    assert.equal(tree .. "/bin/farcall-supervisor", fs.realpath((text:gsub("\n$", ""))))
  end)

  it("names no dependencies, and builds with cmake", function()
    local rockspec = {}
    local chunk = assert(loadfile("rockspec/farcall-scm-1.rockspec"))
    setfenv(chunk, rockspec)
    chunk()
    assert.equal("farcall", rockspec.package)
    assert.equal("cmake", rockspec.build.type)
    for field in pairs(rockspec) do
      assert.is_nil(field:find("dependencies"), field)
    end
  end)

  it("exports every binding", function()
    local list = helper.read("core/modules.h"):match("MODULE_LIST%(X%)(.-)\n\n")
    local lines = {}
    for name in list:gmatch("X%((%w+)%)") do
      lines[#lines + 1] = ("require(\"farcall.core.%s\")"):format(name)
    end
    assert.is_true(#lines >= 14)
    local program = helper.write(dir .. "/every.lua", table.concat(lines, "\n"))
    local text, code = sh(dir, ("cd / && LUA_PATH='%s/share/lua/5.1/?.lua;;' "
      .. "LUA_CPATH='%s/lib/lua/5.1/?.so;;' luajit %s"):format(tree, tree, program))
    assert.equal(0, code, text)
  end)

  it("installs every Lua file of the tree", function()
    local text, code = sh(dir, ("diff -r %s/source/lua %s/share/lua/5.1/farcall")
      :format(dir, tree))
    assert.equal("", text)
    assert.equal(0, code)
  end)

  it("has a program that says what is missing", function()
    local text, code = sh(dir, ("LUA_PATH=/nowhere/?.lua %s/bin/farcall version"):format(tree))
    assert.equal(125, code, text)
    assert.matches("argparse", text, 1, true)
    assert.matches("apt-get install lua-argparse", text, 1, true)
    text, code = sh(dir, ("cd %s && cp tree/bin/farcall . && ./farcall version"):format(dir))
    assert.equal(125, code, text)
    assert.matches("FARCALL_LUA", text, 1, true)
  end)
end)
