-- SPDX-License-Identifier: MIT
local child = require("spec.support.child")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local identity = require("farcall.identity")
local records = require("farcall.records")
local rundir = require("farcall.rundir")
local system = require("farcall.core.system")
local task = require("farcall.task")

local function record(over)
  local fields = {
    name = "farcall-box-dev", kind = "keyed", backend = "box", use = "docker", key = "dev",
    options = { image = "tiny" }, engine = "e1", created = 1000,
  }
  for name, value in pairs(over or {}) do
    fields[name] = value
  end
  return fields
end

-- The identity of an engine that has been killed.
local function dead_engine()
  local dir = helper.scratch()
  local _, signal = child.run(function()
    helper.write(dir .. "/id", identity.new())
    os.execute("kill -KILL " .. system.pid())
  end)
  assert.equal(9, signal)
  return helper.read(dir .. "/id")
end

describe("records of environments", function()
  local dir, store
  before_each(function()
    dir = helper.scratch()
    store = records.new(dir)
  end)

  it("are read as they were written", function()
    assert.same({}, (store:list()))
    assert.is_nil(store:read("farcall-box-dev"))
    assert.is_true(store:add(record(), "e1"))
    local got = store:read("farcall-box-dev")
    assert.is_number(got.used)
    got.used = nil
    assert.same(record(), got)
    assert.same({ "e1" }, store:users("farcall-box-dev"))
  end)

  it("of a shared one are the first's, whoever comes", function()
    assert.is_true(store:add(record(), "e1"))
    assert.is_true(store:add(record({ engine = "e2", created = 2000 }), "e2"))
    assert.equal("e1", store:read("farcall-box-dev").engine)
    assert.same({ "e1", "e2" }, store:users("farcall-box-dev"))
    store:release("farcall-box-dev", "e1")
    store:release("farcall-box-dev", "e1")
    assert.same({ "e2" }, store:users("farcall-box-dev"))
  end)

  it("are gone without a trace when they are removed", helper.task(function()
    local name = "farcall-box-dev"
    assert.is_true(store:add(record(), "e1"))
    assert.is_true(store:add(record({ name = name .. "-2" }), "e1"))
    local lock = assert(store:lock(name))
    assert.is_true(store:remove(name))
    lock:close()
    assert.is_true(store:remove(name))
    store:touch(name)
    for _, file in ipairs(fs.list(store.dir)) do
      assert.matches("^farcall%-box%-dev%-2%.", file)
    end
  end))

  it("that are none are told apart", function()
    assert.is_true(store:add(record(), "e1"))
    helper.write(store.dir .. "/broken.json", "{")
    helper.write(store.dir .. "/other.json", '{"name":"farcall-box-dev"}')
    helper.write(store.dir .. "/Not-A-Name.json", "{}")
    local list, unreadable = store:list()
    assert.equal(1, #list)
    assert.same({ store.dir .. "/broken.json", store.dir .. "/other.json" }, unreadable)
  end)

  it("take no name that could be a path", function()
    for _, name in ipairs({ "", "..", "a/b", "A", "a.b", "-a", ("x"):rep(61), "a\n" }) do
      assert.is_false(records.is_name(name), name)
      assert.has_error(function() store:read(name) end)
    end
  end)

  it("say when they cannot be written", function()
    helper.write(dir .. "/environments", "")
    local ok, err = store:add(record(), "e1")
    assert.is_nil(ok)
    assert.is_true(errors.is(err))
  end)

  it("wait for each other's lock", helper.task(function()
    local lock = assert(store:lock("farcall-box-dev"))
    local got
    local other = task.spawn(function()
      got = assert(store:lock("farcall-box-dev"))
    end)
    task.sleep(0.05)
    assert.is_nil(got)
    lock:close()
    assert(other:join())
    got:close()
  end))

  it("keep no secret", function()
    local declared = {
      image = { type = "string", doc = "" }, token = { type = "string", secret = true, doc = "" },
      env = { type = "map", doc = "" }, tags = { type = "list", doc = "" },
      flag = { type = "boolean", doc = "" },
    }
    assert.same({ image = "a", env = { A = "1" }, tags = { "x", "KEY" }, flag = false },
      records.writable({
        image = "a", token = "hunter2", env = { A = "1", MY_PASSWORD = "hunter2" },
        tags = { "x", "KEY" }, flag = false, unknown = "hunter2",
      }, declared))
  end)
end)

describe("a directory of an engine", function()
  local dir
  before_each(function()
    dir = helper.scratch()
  end)

  it("is private, has a mark beside it, and goes with it", function()
    local path = assert(rundir.create(dir, identity.new()))
    assert.matches("^" .. dir:gsub("%p", "%%%0") .. "/run%-%w+$", path)
    assert.equal(448, fs.stat(path).mode)
    assert.same({}, fs.list(path))
    assert.matches("/work%-%w+$", (assert(rundir.create(dir, identity.new(), "work"))))
    assert.same({}, rundir.stale(dir))
    assert.is_true(rundir.remove(path))
    assert.is_true(rundir.remove(path))
    assert.equal(2, #fs.list(dir))
  end)

  it("is left over when its engine was killed", function()
    local dead = dead_engine()
    local path = assert(rundir.create(dir, dead))
    helper.write(path .. "/token", "x")
    local work = assert(rundir.create(dir, dead, "work"))
    assert(rundir.create(dir, identity.new()))
    assert.same({ path, work }, rundir.stale(dir))
    assert.is_true(rundir.remove(path))
    assert.same({ work }, rundir.stale(dir))
  end)

  it("is left over when its engine was killed before it was made", function()
    local path = assert(rundir.create(dir, dead_engine()))
    fs.rmdir(path)
    assert.same({ path }, rundir.stale(dir))
    assert.is_true(rundir.remove(path))
    assert.same({}, fs.list(dir))
  end)

  it("without a mark is left over after a day", function()
    assert(fs.mkdir(dir .. "/run-abc", 448))
    assert(fs.mkdir(dir .. "/other-abc", 448))
    helper.write(dir .. "/trust.json", "")
    assert.same({}, rundir.stale(dir))
    assert.same({ dir .. "/run-abc" }, rundir.stale(dir, system.time() + 90000))
  end)

  it("cannot be made where there is no room for it", function()
    local path, message, code = rundir.create(dir .. "/none", identity.new())
    assert.is_nil(path)
    assert.is_string(message)
    assert.equal("ENOENT", code)
  end)
end)
