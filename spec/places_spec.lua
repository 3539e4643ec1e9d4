-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local places = require("farcall.places")
local system = require("farcall.core.system")

local IN_TMP = ("/tmp/farcall-%d"):format(system.uid())

describe("places", function()
  it("follows the XDG variables", function()
    local dir = helper.scratch()
    local environ = {
      HOME = "/h", XDG_CONFIG_HOME = "/c", XDG_STATE_HOME = "/s", XDG_RUNTIME_DIR = dir,
    }
    assert.same({ "/etc/farcall/config.lua", "/c/farcall/config.lua" },
      places.config_files(environ))
    assert.equal("/s/farcall", places.state_dir(environ))
    assert.equal(dir .. "/farcall", places.runtime_dir(environ))
  end)

  it("takes variables that are empty or relative as not set", function()
    for _, value in ipairs({ "", "relative/dir" }) do
      local environ = {
        HOME = "/h", XDG_CONFIG_HOME = value, XDG_STATE_HOME = value, XDG_RUNTIME_DIR = value,
      }
      assert.equal("/h/.config/farcall/config.lua", places.config_files(environ)[2])
      assert.equal("/h/.local/state/farcall", places.state_dir(environ))
      assert.equal(IN_TMP, places.runtime_dir(environ))
    end
  end)

  it("has no place that others can write to when there is no home", function()
    for _, environ in ipairs({ {}, { HOME = "" } }) do
      assert.same({ "/etc/farcall/config.lua" }, places.config_files(environ))
      assert.equal(IN_TMP .. "/state", places.state_dir(environ))
    end
  end)

  it("does not use somebody else's runtime directory, or one that is not there", function()
    assert.equal(IN_TMP, places.runtime_dir({ XDG_RUNTIME_DIR = "/proc" }))
    local none = helper.scratch() .. "/none"
    assert.equal(IN_TMP, places.runtime_dir({ XDG_RUNTIME_DIR = none }))
    assert.is_nil(fs.stat(none))
    local open = helper.scratch()
    assert(fs.chmod(open, 493))
    assert.equal(IN_TMP, places.runtime_dir({ XDG_RUNTIME_DIR = open }))
  end)

  it("makes private directories, and refuses what is not one", function()
    local dir = helper.scratch()
    assert.equal(dir .. "/a/b", places.make_private(dir .. "/a/b"))
    assert.equal(448, fs.stat(dir .. "/a/b").mode % 512)
    assert.equal(dir .. "/a/b", places.make_private(dir .. "/a/b"))
    assert(fs.chmod(dir .. "/a", 493))
    helper.write(dir .. "/file", "")
    os.execute(("ln -s a/b %s/link"):format(dir))
    for _, name in ipairs({ "a", "file", "link" }) do
      local made, err = places.make_private(dir .. "/" .. name)
      assert.is_nil(made)
      assert.matches("mode 0700", tostring(err), 1, true)
    end
    assert.is_nil((places.make_private(dir .. "/file/below")))
  end)

  it("finds the supervisor where it is told, then beside", function()
    assert.equal("/x/y", places.supervisor({ FARCALL_SUPERVISOR = "/x/y" }))
    local found = places.supervisor({ FARCALL_SUPERVISOR = "" })
    assert.matches("/farcall%-supervisor$", found)
    assert.is_truthy(fs.stat(found))
  end)

  it("puts a path beside a file, without dots that say nothing", function()
    for path, expected in pairs({
      ["a.lua"] = "/x/a.lua", ["./a.lua"] = "/x/a.lua", ["."] = "/x", ["./"] = "/x",
      ["././b/./c"] = "/x/b/c", ["/y/./z"] = "/y/z", ["../y"] = "/x/../y", ["/"] = "/",
      [".hidden"] = "/x/.hidden", ["b//c/"] = "/x/b/c",
    }) do
      assert.equal(expected, places.beside("/x", path))
    end
    assert.equal("/a", places.beside("/", "a"))
  end)
end)
