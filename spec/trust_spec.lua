-- SPDX-License-Identifier: MIT
-- What is trusted is what runs, byte by byte; spec/cli/config_spec.lua has the command.

local config_file = require("farcall.config_file")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local trust = require("farcall.trust")

local MAIN = 'include "more.lua"\npolicy "./p.lua"\ntool_path { "tools" }\n'
  .. 'tool "t" { summary = "s", command = { "./t.sh" } }\n'

-- A trusted configuration that names a file of each kind.
local function project()
  local dir = helper.scratch()
  assert(fs.mkdir(dir .. "/tools", 448))
  helper.write(dir .. "/farcall.lua", MAIN)
  helper.write(dir .. "/more.lua", "limits { timeout = 3 }")
  helper.write(dir .. "/p.lua", "return {}")
  helper.write(dir .. "/t.sh", "true")
  helper.write(dir .. "/tools/x.lua", "return {}")
  helper.write(dir .. "/tools/README", "not loaded")
  local layer = assert(config_file.load(dir .. "/farcall.lua"))
  assert(trust.grant(dir .. "/state", layer))
  return dir
end

-- As config.lua goes about it.
local function load(dir)
  local path = dir .. "/farcall.lua"
  local read, err = trust.reader(dir .. "/state", path)
  if not read then
    return nil, err
  end
  local layer
  layer, err = config_file.load(path, { read = read })
  if not layer then
    return nil, err
  end
  local fine
  fine, err = trust.check(dir .. "/state", layer)
  return fine and layer, err
end

describe("trust", function()
  it("covers every file that a configuration loads", function()
    local dir = project()
    assert.equal(3, assert(load(dir)).limits.timeout.value)
    for _, name in ipairs({ "farcall.lua", "more.lua", "p.lua", "t.sh", "tools/x.lua" }) do
      local path = dir .. "/" .. name
      local before = helper.read(path)
      helper.write(path, before .. "\n")
      local layer, err = load(dir)
      assert.is_nil(layer or nil)
      assert.equal("denied", err.kind)
      assert.equal(path .. ": it has changed since it was trusted",
        (tostring(err):gsub(" %(.*", "")))
      assert.matches("`farcall trust`", tostring(err), 1, true)
      helper.write(path, before)
      assert.is_truthy(load(dir))
    end
    helper.write(dir .. "/tools/README", "anything")
    assert.is_truthy(load(dir))
    helper.write(dir .. "/tools/y.lua", "")
    assert.matches("y.lua: it is new since", tostring(select(2, load(dir))), 1, true)
  end)

  it("runs nothing of a file that has changed, included ones too", function()
    local dir = project()
    for _, name in ipairs({ "farcall.lua", "more.lua" }) do
      local before = helper.read(dir .. "/" .. name)
      helper.write(dir .. "/" .. name, 'error("it ran")')
      assert.matches("it has changed", tostring(select(2, load(dir))), 1, true)
      helper.write(dir .. "/" .. name, before)
    end
  end)

  it("is of one path: the same file elsewhere is not trusted", function()
    local dir = project()
    local read, err = trust.reader(dir .. "/state", dir .. "/other/farcall.lua")
    assert.is_nil(read)
    assert.equal("denied", err.kind)
  end)

  it("keeps what was trusted before", function()
    local dir = project()
    local other = helper.write(helper.scratch() .. "/farcall.lua", "limits {}")
    assert(trust.grant(dir .. "/state", assert(config_file.load(other))))
    assert.is_truthy(load(dir))
    assert.is_truthy(trust.reader(dir .. "/state", other))
  end)

  it("takes no record that others could have written or that is damaged", function()
    local dir = project()
    local record = dir .. "/state/trust.json"
    assert.equal(384, fs.stat(record).mode % 512)
    local text = helper.read(record)
    for _, mode in ipairs({ 438, 432, 420 }) do
      assert(fs.chmod(record, mode))
      assert.is_nil((trust.reader(dir .. "/state", dir .. "/farcall.lua")))
    end
    assert(fs.chmod(record, 384))
    assert.is_truthy(load(dir))
    for _, damaged in ipairs({ "", "3", "[", text:sub(1, -20), '{"x":3}' }) do
      helper.write(record, damaged)
      assert.is_nil((load(dir)))
    end
    assert(fs.unlink(record))
    helper.write(dir .. "/elsewhere", text)
    os.execute(("chmod 600 %s/elsewhere; ln -s ../elsewhere %s"):format(dir, record))
    assert.is_nil((load(dir)))
  end)
end)
