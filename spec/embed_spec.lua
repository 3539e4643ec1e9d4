-- SPDX-License-Identifier: MIT
-- libfarcall, by the example that the documentation points to.

local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")

-- The configuration, and nothing of this process' environment but what commands need.
local function setting(config)
  local dir = helper.scratch()
  helper.write(dir .. "/config.lua", config)
  return dir, ("env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=%s XDG_RUNTIME_DIR=%s"):format(dir, dir)
end

local function run(environment, line)
  local pipe = assert(io.popen(("%s %s 2>&1; echo $?"):format(environment, line)))
  local text, code = pipe:read("*a"):match("^(.-)(%d+)\n$")
  pipe:close()
  return text, tonumber(code)
end

local root = assert(fs.realpath(build.dir))

describe("libfarcall", function()
  it("serves eight threads beside a script and sleeping shells", function()
    local dir, environment = setting([[
backend "here" { use = "local", cwd = "/" }
backend "own" { use = "local", own_cwd = true, tree = "subreaper" }
]])
    local text, code = run(environment, ("%s/examples/embed %s/config.lua here own")
      :format(root, dir))
    assert.equal("embed: 96 oneshots from 8 threads on 2 backends beside a script and 2 shells: "
      .. "0 wrong\n", text)
    assert.equal(0, code)
  end)
end)
