-- SPDX-License-Identifier: MIT
-- The layout of the house holds: data flows one way, and what is said to be in one place is.

local function files(where, pattern)
  local list = {}
  local pipe = assert(io.popen(("find %s -name '%s' -not -path 'build*' | sort"):format(where,
    pattern)))
  for path in pipe:lines() do
    list[#list + 1] = path
  end
  pipe:close()
  return list
end

local function text_of(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- What a stub sends into an environment is text here, whatever language it is in.
local function code_of(path)
  local text = text_of(path)
  return path:find("^lua/stubs/") and text:gsub("%[=%[.-%]=%]", "") or text
end

-- Lower number: lower layer. A file requires only files of its own layer or below.
local LAYERS = {
  { 7, "^cli$" }, { 7, "^cli%." },
  { 7, "^embed$" },
  { 6, "^engine$" },
  { 5, "^run$" },
  { 4, "^transports%." }, { 4, "^dispatch$" }, { 4, "^environments$" }, { 4, "^shell$" },
  { 4, "^kernels?$" }, { 4, "^kernel_python$" }, { 4, "^batch$" },
  { 4, "^pools$" },
  { 4, "^leftovers$" }, { 4, "^inventory$" },
  { 4, "^guarded$" }, { 4, "^resident$" }, { 4, "^far_stdin$" }, { 4, "^supervision$" },
  { 4, "^catalog$" }, { 4, "^oneshot$" }, { 4, "^toolset$" }, { 4, "^stub$" }, { 4, "^policy$" },
  { 3, "^backends%." }, { 3, "^policies%." }, { 3, "^tools%." }, { 3, "^stubs%." },
  { 2, "^clients%." },
  { 1, "." },
  { 0, "^core%." },
}

local function layer(name)
  if name:find("^core%.") then
    return 0
  end
  for _, row in ipairs(LAYERS) do
    if name:find(row[2]) then
      return row[1]
    end
  end
end

local function module_name(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

describe("the house", function()
  it("lets no layer name a higher one", function()
    for _, path in ipairs(files("lua", "*.lua")) do
      local own = module_name(path)
      for required in text_of(path):gmatch("require%(?%s*\"farcall%.([%w_.]+)\"") do
        assert.is_true(layer(required) <= layer(own),
          ("%s requires farcall.%s, which is above it"):format(path, required))
      end
    end
  end)

  it("reads environment variables only in config.lua and main.c", function()
    for _, path in ipairs(files("lua", "*.lua")) do
      if path ~= "lua/config.lua" and not path:find("^lua/meta/") then
        local text = code_of(path)
        assert.is_nil(text:find("getenv", 1, true), path)
        assert.is_nil(text:find("system.environ", 1, true), path)
      end
    end
    for _, path in ipairs(files("core runner", "*.c")) do
      if path ~= "core/main.c" then
        assert.is_nil(text_of(path):find("getenv(", 1, true), path)
      end
    end
  end)

  it("prints only in cli/", function()
    for _, path in ipairs(files("lua", "*.lua")) do
      if not path:find("^lua/cli/") then
        local text = code_of(path):gsub("%-%-[^\n]*", "")
        assert.is_nil(text:find("[^%w_.]print%("), path)
        assert.is_nil(text:find("io%.stdout"), path)
        assert.is_nil(text:find("io%.stderr"), path)
        assert.is_nil(text:find("io%.write"), path)
      end
    end
  end)

  it("touches coroutines only in task.lua", function()
    for _, path in ipairs(files("lua", "*.lua")) do
      if path ~= "lua/task.lua" then
        assert.is_nil(code_of(path):gsub("%-%-[^\n]*", ""):find("coroutine%.%w+%("), path)
      end
    end
  end)

  it("keeps Lua out of the core", function()
    for _, path in ipairs(files("core", "*.[ch]")) do
      local base = path:match("[^/]+$")
      if not base:find("^lua_") and not base:find("^bind%.") and not base:find("^modules%.")
        and base ~= "main.c" and base ~= "watchdog.c" and base ~= "watchdog.h"
      then
        assert.is_nil(text_of(path):find("#include <l[u]?a[%w]*%.h>"), path)
      end
    end
  end)

  it("has every C file in CMake's one list", function()
    local cmake = text_of("CMakeLists.txt")
    for _, path in ipairs(files("core", "*.c")) do
      local base = path:match("([^/]+)%.c$")
      local found
      for _, name in ipairs({ base, (base:gsub("^lua_", "")) }) do
        found = found or cmake:find("[%s(/]" .. name:gsub("%p", "%%%0") .. "[%s).]")
      end
      assert.is_truthy(found, path)
    end
  end)

  it("opens every source file with its licence", function()
    for _, path in ipairs(files("core runner fuzz bench", "*.[ch]")) do
      assert.equal("// SPDX-License-Identifier: MIT", text_of(path):match("^[^\n]*"), path)
    end
    for _, path in ipairs(files("lua spec", "*.lua")) do
      if not path:find("fixtures/") then
        assert.equal("-- SPDX-License-Identifier: MIT", text_of(path):match("^[^\n]*"), path)
      end
    end
  end)

  it("runs and tests what its change log and readme are about", function()
    for _, path in ipairs({ "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE" }) do
      assert.is_true(#text_of(path) > 0)
    end
  end)
end)
