-- SPDX-License-Identifier: MIT
-- lua/meta/core says of each C module what there is of it: all of that, and nothing else.

local fs = require("farcall.core.fs")
local helper = require("spec.helper")

-- What is bound for a host program, and what is not meant for Lua files: see their headers.
local NOT_DESCRIBED = { embed = true, box = true, bytecode = true, compile = true, tree = true }

local function files(dir, pattern)
  local list = {}
  for _, name in ipairs(assert(fs.list(dir))) do
    list[#list + 1] = name:match(pattern)
  end
  table.sort(list)
  return list
end

-- The modules that C binds.
local function modules()
  local list = {}
  for _, name in ipairs(files("core", "^lua_(.*)%.c$")) do
    local text = helper.read("core/lua_" .. name .. ".c")
    if text:find("\nint luaopen_farcall_core_" .. name .. "%(") and not NOT_DESCRIBED[name] then
      list[#list + 1] = name
    end
  end
  assert.is_true(#list >= 16)
  return list
end

-- The names in the lists of functions and methods of a module, also where it is split.
local function bound(module)
  local names = {}
  for _, file in ipairs(files("core", "^(lua_" .. module .. ".*%.c)$")) do
    local text = helper.read("core/" .. file)
    for list in text:gmatch("luaL_Reg [%w_]+%[%] = (%b{})") do
      for name in list:gmatch('{"([%l][%w_]*)",') do
        names[name] = true
      end
    end
    for name in text:gmatch('lua_setfield%(L, %-2, "(new)"%)') do
      names[name] = true
    end
  end
  return names
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

describe("lua/meta/core", function()
  it("has a file for each module of the core, and no other", function()
    assert.same(modules(), files("lua/meta/core", "^(.*)%.lua$"))
  end)

  for _, module in ipairs(files("lua/meta/core", "^(.*)%.lua$")) do
    local text = helper.read("lua/meta/core/" .. module .. ".lua")

    it("tells the functions of " .. module, function()
      local told, real = {}, {}
      for name in text:gmatch("\nfunction " .. module .. "%.([%w_]+)%(") do
        told[name] = true
      end
      for name, value in pairs(require("farcall.core." .. module)) do
        real[name] = type(value) == "function" or nil
      end
      assert.same(sorted(real), sorted(told))
    end)

    it("tells the methods of the objects of " .. module, function()
      local told = {}
      for name in text:gmatch("\nfunction [%w_]+[.:]([%w_]+)%(") do
        told[name] = true
      end
      assert.same(sorted(bound(module)), sorted(told))
    end)
  end

  it("has a sentence, or at least a type, for all of them", function()
    for _, module in ipairs(files("lua/meta/core", "^(.*)%.lua$")) do
      local before
      for line in helper.read("lua/meta/core/" .. module .. ".lua"):gmatch("([^\n]*)\n") do
        if line:find("^function ") then
          assert.matches("^%-%-%-", before, module .. ": " .. line)
        end
        before = line
      end
    end
  end)
end)
