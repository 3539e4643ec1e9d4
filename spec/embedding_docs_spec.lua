-- SPDX-License-Identifier: MIT
-- Every program of docs/embedding.md is compiled against an installation, and prints what the page
-- says.

local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

local function sh(dir, line)
  local script = helper.write(dir .. "/line.sh", "set -e\ncd " .. dir .. "\n" .. line .. "\n")
  local pipe = assert(io.popen(("env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=%s "
    .. "XDG_RUNTIME_DIR=%s sh %s 2>&1; echo $?"):format(dir, dir, script)))
  local text, code = pipe:read("*a"):match("^(.-)(%d+)\n$")
  pipe:close()
  return text, tonumber(code)
end

describe("docs/embedding.md", function()
  local dir, flags

  lazy_setup(function()
    dir = assert(fs.mkdtemp("/tmp/farcall-embedding-"))
    local sanitizers = helper.read(build.dir .. "/CMakeCache.txt"):match("\nSANITIZE:[^=]*=(%S+)")
    flags = sanitizers and "-fsanitize=" .. sanitizers or ""
    local text, code = sh(dir, ("cmake --install %s --prefix %s/prefix >/dev/null")
      :format(assert(fs.realpath(build.dir)), dir))
    assert(code == 0, text)
    -- Where the distribution puts libraries is CMake's choice.
    local found = sh(dir, "find prefix -name farcall.pc")
    dir = assert(fs.realpath(dir))
    flags = flags .. " -Wall -Wextra -Werror"
    flags = { cc = flags, pc = dir .. "/" .. found:match("^(.*)/farcall.pc") }
  end)

  lazy_teardown(function()
    fs.rmtree(dir)
  end)

  -- Compiles the page's program of this name and runs it: what it printed, its exit code, and what
  -- the page says that it prints.
  local function run(name, kind, environment)
    local page = helper.read("docs/embedding.md")
    local code = assert(page:match("<!%-%- file: " .. name .. "%.c %-%->\n```c\n(.-)```"))
    helper.write(dir .. "/" .. name .. ".c", code)
    local text, status = sh(dir, ([[
export PKG_CONFIG_PATH=%s
cc %s %s.c %s -o %s
export LD_LIBRARY_PATH=$(pkg-config --variable=libdir farcall)
%s ./%s]]):format(flags.pc, flags.cc, name, kind, name, environment or "", name))
    local said = page:match("\n    $ [^\n]*%./" .. name .. "\n(    .-)\n\n%S")
    return text, status, said and (said:gsub("\n    ", "\n"):gsub("^    ", "")) .. "\n"
  end

  local SHARED = "$(pkg-config --cflags --libs farcall)"

  it("has a first program that says hello", function()
    local text, code, said = run("first", SHARED)
    assert.equal(said, text)
    assert.equal(0, code)
  end)

  it("has a program with a loop of its own", function()
    local text, code, said = run("loop", SHARED)
    assert.equal(said, text)
    assert.equal(0, code)
  end)

  it("has a program that runs a script", function()
    local text, code, said = run("script", SHARED)
    assert.equal(said, text)
    assert.equal(0, code)
  end)

  it("links statically, and shows no other name than its own", function()
    local static = "$(pkg-config --cflags farcall) $(pkg-config --variable=libdir farcall)/"
      .. "libfarcall.a $(pkg-config --static --libs luajit) -pthread -ldl"
    -- The program lies in the installation's bin, from where the Lua files are found.
    local text, code = run("first", static)
    assert.matches("Lua files are not beside", text)
    assert.equal(1, code)
    text, code = sh(dir, "cp first prefix/bin/first && cd / && " .. dir .. "/prefix/bin/first")
    assert.equal("0: hello, you\n", text)
    assert.equal(0, code)
    for _, command in ipairs({ "nm -D --defined-only $l/libfarcall.so",
      "nm -g --defined-only $l/libfarcall.a" })
    do
      text = sh(dir, "l=" .. flags.pc .. "/..; " .. command)
      local count = 0
      for name in text:gmatch("%x+ %a ([%w_]+)") do
        assert.matches("^farcall_", name)
        count = count + 1
      end
      assert.equal(13, count, text)
    end
  end)
end)
