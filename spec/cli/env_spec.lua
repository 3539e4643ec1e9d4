-- SPDX-License-Identifier: MIT
-- Environments at a terminal: engines that are killed, and what is found and removed afterwards.

local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local identity = require("farcall.identity")
local json = require("farcall.core.json")
local system = require("farcall.core.system")
local task = require("farcall.task")

local FIXTURES = system.cwd() .. "/spec/fixtures/backends"

-- In place of the real services, which others may use.
local NO_SERVICE = [[
return {
  name = "none", summary = "nothing", api = 1, options = {}, caps = {}, open = function() end,
}
]]

local CONFIG = [[
backend_path { %q, %q }
backend "box" { use = "dirbox", root = %q }
]]

local SCRIPT = "import time\nprint('running', flush=True)\ntime.sleep(600)\n"

local home, root

local function start_home()
  home = cli.home()
  root = home.dir .. "/boxes"
  assert(fs.mkdir(root, 448))
  home:write("config/farcall/config.lua", CONFIG:format(FIXTURES, home.dir .. "/none", root))
  for _, name in ipairs(fs.list("lua/backends")) do
    if name ~= "local.lua" then
      home:write("none/" .. name, NO_SERVICE)
    end
  end
end

local function boxes()
  local names = {}
  for _, name in ipairs(fs.list(root)) do
    names[#names + 1] = name:find("^farcall%-") and name or nil
  end
  table.sort(names)
  return names
end

local function keeper_lives(name)
  local pid = tonumber((helper.read(root .. "/" .. name .. "/keeper")))
  return pid ~= nil and identity.start_of(pid) ~= nil
end

local function environments()
  local got = home:run({ "env", "ls", "--json" })
  assert.equal(0, got.code, got.out .. got.err)
  return json.decode(got.out).environments
end

-- Starts a script that does not end, and kills its engine. flags: of farcall run.
---@async
local function kill_engine(flags)
  local argv = { "run", "-b", "box", "-c", SCRIPT }
  for _, word in ipairs(flags or {}) do
    argv[#argv + 1] = word
  end
  local running = home:start(argv)
  assert(helper.eventually(function()
    return table.concat(running.out):find("running")
  end, 30), table.concat(running.err))
  running.child:kill("KILL")
  return cli.finish(running)
end

-- As if it had been known for long that engines are dead.
local function settle()
  os.execute(("touch -d '1 hour ago' %s/state/farcall/environments/*.ended.*"):format(home.dir))
end

-- Whatever a test leaves in the directory of boxes.
local function sweep()
  for _, name in ipairs(boxes()) do
    local pid = helper.read(root .. "/" .. name .. "/keeper")
    os.execute("kill -KILL " .. pid .. " 2> /dev/null")
  end
end

describe("farcall env", function()
  before_each(start_home)
  after_each(sweep)

  it("knows nothing when there is nothing", function()
    local got = home:run({ "env" })
    assert.same({ 0, "", "" }, { got.code, got.out, got.err })
    assert.same({}, environments())
    got = home:run({ "env", "gc" })
    assert.same({ 0, "", "nothing is left over\n" }, { got.code, got.out, got.err })
    got = home:run({ "env", "gc", "--json" })
    assert.same({ collected = {}, dry_run = false, problems = {} }, json.decode(got.out))
  end)

  it("finds the private environment of a killed engine, and removes it", function()
    task.run(kill_engine)
    local names = boxes()
    assert.equal(1, #names)
    assert.is_true(keeper_lives(names[1]))
    local row = environments()[1]
    assert.equal(names[1], row.name)
    assert.same({ "private", "box", "dead", true },
      { row.kind, row.backend, row.owner, row.exists })
    local told = home:run({ "env", "ls" }).out
    assert.matches("^NAME +BACKEND +KEY +OWNER +CREATED +LAST USE\n", told)
    assert.matches(names[1]:gsub("%-", "%%-") .. " +box +%- +dead +%d%d%d%d%-", told)

    local dry = home:run({ "env", "gc", "--dry-run" })
    assert.equal(0, dry.code)
    assert.is_truthy(dry.out:find(names[1] .. ": would be removed\n", 1, true), dry.out)
    assert.same(names, boxes())

    local got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.is_truthy(got.out:find(names[1] .. ": removed\n", 1, true), got.out)
    assert.same({}, boxes())
    assert.same({}, environments())
    assert.equal("nothing is left over\n", home:run({ "env", "gc" }).err)
  end)

  it("finds one whose record is lost by what the service says", function()
    task.run(kill_engine)
    local names = boxes()
    assert(fs.rmtree(home.dir .. "/state/farcall/environments"))
    local row = environments()[1]
    assert.same({ names[1], "private", "dead" }, { row.name, row.kind, row.owner })
    local got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.same({}, boxes())
  end)

  it("leaves what a living engine uses, and removes it when told twice", function()
    task.run(function()
      local running = home:start({ "run", "-b", "box", "-c", SCRIPT })
      assert(helper.eventually(function()
        return table.concat(running.out):find("running")
      end, 30))
      local name = boxes()[1]
      local collected = cli.finish(home:start({ "env", "gc" }))
      assert.equal("nothing is left over\n", collected.err)
      local refused = cli.finish(home:start({ "env", "rm", name }))
      assert.equal(125, refused.code)
      assert.matches("a living engine uses it.*%-%-force", refused.err)
      assert.same({ name }, boxes())
      local forced = cli.finish(home:start({ "env", "rm", "--force", name }))
      assert.same({ 0, ("removed: %s\n"):format(name) }, { forced.code, forced.err })
      assert.same({}, boxes())
      running.child:kill("KILL")
      cli.finish(running)
    end)
  end)

  it("leaves one with a key, which the next engine uses", function()
    task.run(kill_engine, { "--key", "dev" })
    local names = boxes()
    assert.matches("^farcall%-box%-dev%-%x+$", names[1])
    local row = environments()[1]
    assert.same({ "keyed", "dev", "dead", 0 }, { row.kind, row.key, row.owner, row.users })
    local got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.same(names, boxes())
    assert.is_true(keeper_lives(names[1]))
    home:write("boxes/" .. names[1] .. "/note", "still here\n")
    got = home:run({ "exec", "-b", "box", "--key", "dev", "--", "cat", "note" })
    assert.same({ 0, "still here\n", "" }, { got.code, got.out, got.err })
    assert.same(names, boxes())
    settle()
    assert.equal(names[1] .. ": looked into, directories removed: 0\n",
      home:run({ "env", "gc" }).out)
    assert.equal("nothing is left over\n", home:run({ "env", "gc" }).err)
    assert.equal(0, home:run({ "env", "rm", names[1] }).code)
    assert.same({}, boxes())
    assert.same({}, fs.list(home.dir .. "/state/farcall/environments"))
  end)

  it("lets two processes make the same key at once and share it", function()
    task.run(function()
      local flags = { "exec", "-b", "box", "-o", "slow=200ms", "--key", "both", "--", "pwd" }
      local one, two = home:start(flags), home:start(flags)
      one, two = cli.finish(one), cli.finish(two)
      assert.same({ 0, 0 }, { one.code, two.code }, one.err .. two.err)
      assert.equal(one.out, two.out)
    end)
    assert.equal(1, #boxes())
    assert.equal(0, environments()[1].users)
  end)

  it("removes one with a key that nobody has used for longer than its limit", function()
    home:run({ "exec", "-b", "box", "--key", "long", "-o", "idle=1h", "--", "true" })
    home:run({ "exec", "-b", "box", "--key", "short", "-o", "idle=0s", "--", "true" })
    assert.equal(2, #boxes())
    local got = home:run({ "env", "gc" })
    assert.matches("^farcall%-box%-short%-%x+: removed\n$", got.out)
    assert.equal(1, #boxes())
    assert.matches("long", boxes()[1])
  end)

  it("leaves one beyond its limit as long as an engine uses it", function()
    task.run(function()
      local running = home:start({
        "run", "-b", "box", "--key", "dev", "-o", "idle=0s", "-c", SCRIPT,
      })
      assert(helper.eventually(function()
        return table.concat(running.out):find("running")
      end, 30))
      local name = boxes()[1]
      assert.equal("nothing is left over\n", cli.finish(home:start({ "env", "gc" })).err)
      local refused = cli.finish(home:start({ "env", "rm", name }))
      assert.equal(125, refused.code)
      assert.matches("1 using it", cli.finish(home:start({ "env" })).out)
      running.child:kill("TERM")
      assert.equal(143, cli.finish(running).code)
      local got = cli.finish(home:start({ "env", "gc" }))
      assert.equal(name .. ": removed\n", got.out)
    end)
  end)

  it("forgets what has gone by itself", function()
    task.run(kill_engine)
    home:run({ "exec", "-b", "box", "--key", "dev", "--", "true" })
    sweep()
    for _, name in ipairs(boxes()) do
      assert(fs.rmtree(root .. "/" .. name))
    end
    for _, row in ipairs(environments()) do
      assert.is_false(row.exists)
    end
    assert.matches(", gone", home:run({ "env" }).out)
    local got = home:run({ "env", "gc" })
    assert.equal(2, select(2, got.out:gsub("forgotten, it was gone", "")), got.out)
    assert.same({}, environments())
  end)

  it("says what it cannot remove, and keeps it in mind", function()
    task.run(kill_engine, { "-o", "stuck=true" })
    local got = home:run({ "env", "gc" })
    assert.equal(125, got.code)
    assert.matches("it is stuck", got.err)
    assert.equal(1, #environments())
    got = home:run({ "env", "gc", "--json" })
    assert.matches("stuck", json.decode(got.out).collected[1].error)
  end)

  it("removes what can be, and tells of a backend that is gone", function()
    task.run(kill_engine)
    home:write("config/farcall/config.lua", ("backend_path { %q }\n"):format(home.dir .. "/none"))
    local got = home:run({ "env", "gc" })
    assert.equal(125, got.code)
    assert.matches("backend dirbox", got.err)
    assert.equal(1, #boxes())
    home:write("config/farcall/config.lua", ("backend_path { %q, %q }\n"):format(FIXTURES,
      home.dir .. "/none"))
    got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.same({}, boxes())
  end)

  it("forgets what a killed engine only visited", function()
    task.run(function()
      home:write("boxes/theirs/keeper", tostring(system.pid()))
      kill_engine({ "-o", "attach=theirs" })
      kill_engine({ "-o", "attach=theirs" })
    end)
    assert.equal(2, #environments())
    local before = #fs.list(root)
    home:run({ "env", "gc" })
    assert.equal(before + 1, #fs.list(root), "it is opened once for both")
    local row = environments()[1]
    assert.same({ "visited", "dead" }, { row.kind, row.owner })
    for _ = 1, 2 do
      assert.equal(0, home:run({ "env", "gc" }).code)
      assert.same("visited", environments()[1].kind)
    end
    settle()
    local got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.same({}, environments())
    assert.is_truthy(fs.stat(root .. "/theirs"))
  end)

  it("answers wrong words", function()
    for _, case in ipairs({
      { { "env", "rm" }, 2, "which one" },
      { { "env", "ls", "x" }, 2, "only rm takes names" },
      { { "env", "gc", "--force" }, 2, "%-%-force belongs to rm" },
      { { "env", "ls", "--dry-run" }, 2, "%-%-dry%-run belongs to gc" },
      { { "env", "clean" }, 2, "ls.*rm.*gc" },
      { { "env", "rm", "farcall-none" }, 125, "none of this name.*farcall env ls" },
      { { "env", "rm", "../../etc" }, 125, "none of this name" },
      { { "exec", "--key", "dev", "--", "true" }, 125, "do not last" },
    }) do
      local got = home:run(case[1])
      assert.equal(case[2], got.code, table.concat(case[1], " "))
      assert.matches(case[3], got.err)
    end
    home:run({ "exec", "-b", "box", "--key", "dev", "--", "true" })
    local name = boxes()[1]
    assert.matches("did you mean " .. name:gsub("%-", "%%-"),
      home:run({ "env", "rm", name:sub(1, -2) }).err)
  end)
end)
