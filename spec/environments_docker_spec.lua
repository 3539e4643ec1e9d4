-- SPDX-License-Identifier: MIT
-- Whose environments are, with Docker: engines are killed, containers stay or go.

local cli = require("spec.support.cli")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local task = require("farcall.task")

local CONFIG = 'backend "box" { use = "docker", image = "farcall-spec/debian" }\n'
local SCRIPT = "import time\nprint('running', flush=True)\ntime.sleep(600)\n"

local function docker(words)
  local pipe = assert(io.popen("docker " .. words .. " 2>&1"))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end

local function is_running(name)
  return docker("inspect -f '{{.State.Running}}' " .. name) == "true"
end

local function is_there(name)
  return not docker("inspect -f '{{.Id}}' " .. name):find("No such")
end

local home

-- Others may use the same Docker: those of which there is a record in this home.
local function environments(got)
  got = got or home:run({ "env", "ls", "--json" })
  assert.equal(0, got.code, got.out .. got.err)
  local own = {}
  for _, row in ipairs(json.decode(got.out).environments) do
    if fs.stat(("%s/state/farcall/environments/%s.json"):format(home.dir, row.name)) then
      own[#own + 1] = row
    end
  end
  return own
end

---@async
local function start_script(flags)
  local argv = { "run", "-b", "box", "-c", SCRIPT }
  for _, word in ipairs(flags or {}) do
    argv[#argv + 1] = word
  end
  local running = home:start(argv)
  assert(helper.eventually(function()
    return table.concat(running.out):find("running")
  end, 60), table.concat(running.err))
  return running
end

local function kill_engine(flags)
  task.run(function()
    local running = start_script(flags)
    running.child:kill("KILL")
    cli.finish(running)
  end)
end

describe("environments in Docker", function()
  setup(function()
    assert.equal(0, os.execute("sh spec/testbed/docker.sh > /dev/null 2>&1"))
  end)

  before_each(function()
    home = cli.home()
    home:write("config/farcall/config.lua", CONFIG)
  end)

  after_each(function()
    for _, row in ipairs(environments()) do
      docker("rm -f " .. row.name)
    end
  end)

  it("go with an engine that ends", function()
    local got = home:run({ "exec", "-b", "box", "--", "hostname" })
    assert.same({ 0, "" }, { got.code, got.err })
    assert.matches("^%x+\n$", got.out)
    assert.is_false(is_there(got.out:sub(1, -2)))
    assert.same({}, environments())
  end)

  it("that a killed engine left are found and removed", function()
    kill_engine()
    local row = environments()[1]
    assert.same({ "private", "dead", true }, { row.kind, row.owner, row.exists })
    assert.is_true(is_running(row.name))
    local got = home:run({ "env", "gc", "--dry-run" })
    assert.is_truthy(got.out:find(row.name .. ": would be removed\n", 1, true), got.out)
    assert.is_true(is_running(row.name))
    got = home:run({ "env", "gc" })
    assert.equal(0, got.code, got.err)
    assert.is_truthy(got.out:find(row.name .. ": removed\n", 1, true), got.out)
    assert.is_false(is_there(row.name))
    assert.same({}, environments())
  end)

  it("are found by their labels when the record is lost", function()
    kill_engine()
    local row = environments()[1]
    assert(fs.rmtree(home.dir .. "/state/farcall/environments"))
    local got = home:run({ "env", "gc" })
    assert.is_truthy(got.out:find(row.name .. ": removed\n", 1, true), got.out)
    assert.is_false(is_there(row.name))
  end)

  it("stay when they have a key, with what is in them", function()
    kill_engine({ "--key", "stays" })
    local row = environments()[1]
    assert.same({ "keyed", "stays", 0 }, { row.kind, row.key, row.users })
    -- As a run leaves it whose engine and supervisor were both killed.
    docker("exec " .. row.name .. " mkdir /tmp/farcall-run-0")
    docker("exec " .. row.name .. " touch -d '1 hour ago' /tmp/farcall-run-0")
    local collected = home:run({ "env", "gc" })
    assert.equal(0, collected.code)
    assert.matches("looked into, directories removed: 1\n", collected.out)
    assert.is_truthy(docker("exec " .. row.name .. " ls /tmp/farcall-run-0"):find("No such file"))
    assert.is_true(is_running(row.name))
    home:run({ "exec", "-b", "box", "--key", "stays", "-c", "echo kept > /root/note" })
    local got = home:run({ "exec", "-b", "box", "--key", "stays", "--", "cat", "/root/note" })
    assert.same({ 0, "kept\n" }, { got.code, got.out }, got.err)
    assert.same({ 0, "", ("removed: %s\n"):format(row.name) }, (function(done)
      return { done.code, done.out, done.err }
    end)(home:run({ "env", "rm", row.name })))
    assert.is_false(is_there(row.name))
  end)

  it("of a key that two processes make at once are one", function()
    task.run(function()
      local flags = { "exec", "-b", "box", "--key", "both", "--", "hostname" }
      local all = {}
      for i = 1, 4 do
        all[i] = home:start(flags)
      end
      for i = 1, 4 do
        all[i] = cli.finish(all[i])
        assert.equal(0, all[i].code, all[i].err)
        assert.equal(all[1].out, all[i].out)
      end
    end)
    assert.equal(1, #environments())
  end)

  it("of a living engine are left alone, and go when it is interrupted", function()
    task.run(function()
      local running = start_script()
      local row = environments(cli.finish(home:start({ "env", "ls", "--json" })))[1]
      assert.equal("alive", row.owner)
      assert.equal(0, cli.finish(home:start({ "env", "gc" })).code)
      assert.is_true(is_running(row.name))
      assert.equal(125, cli.finish(home:start({ "env", "rm", row.name })).code)
      assert.is_true(is_running(row.name))
      running.child:kill("TERM")
      assert.equal(143, cli.finish(running).code)
      assert.is_false(is_there(row.name))
    end)
  end)

  it("that are attached to are never removed", function()
    local name = "farcall-spec-attach-" .. tostring({}):match("%x+$")
    docker(("run -d --name %s --init farcall-spec/debian sleep 600"):format(name))
    local got = home:run({ "exec", "-b", "docker", "-o", "attach=" .. name, "--", "id", "-u" })
    local running = is_running(name)
    kill_engine({ "-b", "docker", "-o", "attach=" .. name })
    local collected = home:run({ "env", "gc" })
    local still = is_running(name)
    docker("rm -f " .. name)
    assert.same({ 0, "0\n" }, { got.code, got.out }, got.err)
    assert.same({ true, true }, { running, still })
    assert.equal(0, collected.code, collected.err)
    assert.is_truthy(collected.out:find("looked into", 1, true), collected.out)
  end)
end)
