-- SPDX-License-Identifier: MIT
-- Whose environments are, with a service that is a directory: spec/fixtures/backends/dirbox.lua.

local catalog = require("farcall.catalog")
local engine = require("farcall.engine")
local engines = require("spec.support.engines")
local environments = require("farcall.environments")
local errors = require("farcall.errors")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local oneshot = require("farcall.oneshot")
local records = require("farcall.records")
local system = require("farcall.core.system")
local task = require("farcall.task")

local FIXTURES = system.cwd() .. "/spec/fixtures/backends"

local root, cfg, lines, all

-- A set of environments, as an engine has one.
local function new_set(max_idle)
  local set = environments.new({
    environ = cfg.environ, passthrough = {}, runtime_dir = cfg.runtime_dir,
    supervisor = cfg.supervisor, log = function(level, text)
      lines[#lines + 1] = level .. ": " .. text
    end,
  }, cfg.state_dir, nil, max_idle)
  all[#all + 1] = set
  return set
end

local function place(options)
  local merged = { root = root }
  for name, value in pairs(options or {}) do
    merged[name] = value
  end
  return assert(catalog.new(cfg):backend("box", merged))
end

-- A test with tasks; every set of it is closed.
local function tasks(fn)
  return helper.task(function()
    root = helper.scratch()
    cfg = engines.config({
      backend_path = { FIXTURES }, backends = { box = { use = "dirbox", options = {} } },
    })
    lines, all = {}, {}
    local ok, err = pcall(fn)
    for _, set in ipairs(all) do
      task.shield(set.close, set)
    end
    local box = assert(catalog.new(cfg):load_backend("dirbox"))
    for _, entry in ipairs(box.list({ root = root })) do
      box.reap(entry.name, { root = root })
    end
    if not ok then
      error(err, 0)
    end
  end)
end

local function opens()
  local n = 0
  for _, name in ipairs(fs.list(root)) do
    n = n + (name:find("^log%.") and 1 or 0)
  end
  return n
end

local function boxes()
  local names = {}
  for _, entry in ipairs(catalog.new(cfg):load_backend("dirbox").list({ root = root })) do
    names[#names + 1] = entry.name
  end
  table.sort(names)
  return names
end

local function recorded()
  local names = {}
  for i, record in ipairs(records.new(cfg.state_dir):list()) do
    names[i] = record.name
  end
  return names
end

local function kill_keeper(env)
  os.execute("kill -KILL " .. helper.read(env.dir .. "/keeper"))
  assert(helper.eventually(function()
    return not env:alive()
  end))
end

describe("environments", function()
  it("have names that any service takes: the same for a key, another one without", function()
    for _, case in ipairs({
      { "box", "dev" }, { "Box!", "a b c" }, { ("x"):rep(80), ("y"):rep(200) }, { "-", "-" },
      { "box", "\195\164" }, { "box" },
    }) do
      local name = environments.name(case[1], case[2])
      assert.is_true(records.is_name(name), name)
      assert.matches("^farcall%-", name)
      assert.equal(case[2] ~= nil, name == environments.name(case[1], case[2]))
    end
    assert.not_equal(environments.name("box", "a b"), environments.name("box", "a-b"))
    assert.not_equal(environments.name("box", "dev"), environments.name("lab", "dev"))
  end)

  it("are opened once, however many ask at once, and go with their engine", tasks(function()
    local set, waiting, got = new_set(), {}, {}
    for i = 1, 8 do
      waiting[i] = task.spawn(function()
        got[i] = assert(set:get(place({ slow = 0.02 })))
      end)
    end
    for _, one in ipairs(waiting) do
      assert(one:join())
    end
    for i = 2, 8 do
      assert.equal(got[1], got[i])
    end
    assert.equal(1, opens())
    assert.same({ got[1].name }, boxes())
    assert.same({ got[1].name }, recorded())
    set:close()
    set:close()
    assert.same({}, boxes())
    assert.same({}, recorded())
    local env, err = set:get(place())
    assert.is_nil(env)
    assert.equal("unavailable", err.kind)
  end))

  it("are written down before they are made, without what is secret", tasks(function()
    local set = new_set()
    local env = assert(set:get(place({
      password = "hunter2", variables = { A = "1", API_TOKEN = "hunter2" }, image = "tiny",
    })))
    local path = cfg.state_dir .. "/environments/" .. env.name .. ".json"
    local text = helper.read(path)
    assert.is_nil(text:find("hunter2", 1, true), text)
    local record = records.new(cfg.state_dir):read(env.name)
    assert.equal("box", record.backend)
    assert.equal("dirbox", record.use)
    assert.equal("private", record.kind)
    assert.equal(set.engine, record.engine)
    assert.same({ root = root, variables = { A = "1" }, image = "tiny", slow = 0, stuck = false },
      record.options)
    assert.equal(384, fs.stat(path).mode)
  end))

  it("with a key are shared by all who name it, and stay", tasks(function()
    local one, two = new_set(), new_set()
    local first, second = nil, nil
    local a = task.spawn(function()
      first = assert(one:get(place({ key = "dev", slow = 0.05 })))
    end)
    local b = task.spawn(function()
      second = assert(two:get(place({ key = "dev", slow = 0.05 })))
    end)
    assert(a:join())
    assert(b:join())
    assert.equal(first.name, second.name)
    assert.same({ first.name }, boxes())
    assert.equal(2, #one.records:users(first.name))
    one:close()
    assert.is_true(second:alive())
    assert.equal("here\n", oneshot.run(second, { command = "echo here" }).stdout)
    assert.same({ two.engine }, two.records:users(first.name))
    two:close()
    assert.same({ first.name }, boxes())
    assert.same({ first.name }, recorded())
    assert.same({}, two.records:users(first.name))
    local again = assert(new_set():get(place({ key = "dev" })))
    assert.equal(first.name, again.name)
  end))

  it("with a key say that they are there already with other options", tasks(function()
    assert(new_set():get(place({ key = "dev", image = "one" })))
    assert.same({}, lines)
    assert(new_set():get(place({ key = "dev", image = "two" })))
    assert.equal(1, #lines)
    assert.matches("^warning: .*another image: it stays as it is", lines[1])
  end))

  it("with a key count each engine once, however many of their options it uses", tasks(function()
    local set = new_set()
    local one = assert(set:get(place({ key = "dev", image = "one" })))
    local two = assert(set:get(place({ key = "dev", image = "two" })))
    assert.equal(one.name, two.name)
    assert.same({ set.engine }, set.records:users(one.name))
    set:close()
    assert.same({}, set.records:users(one.name))
    assert.same({ one.name }, boxes())
  end))

  it("that are attached to are never made and never removed", tasks(function()
    local set = new_set()
    local env, err = set:get(place({ attach = "theirs" }))
    assert.is_nil(env)
    assert.equal("not_found", err.kind)
    assert.same({}, recorded())
    local owner = assert(new_set():get(place()))
    env = assert(set:get(place({ attach = owner.name })))
    assert.equal(2, #recorded())
    set:close()
    assert.is_true(env:alive())
    assert.same({ owner.name }, recorded())
  end))

  it("are opened once more when they are dead", tasks(function()
    local set = new_set()
    local env = assert(set:get(place()))
    kill_keeper(env)
    local again, waiting = {}, {}
    for i = 1, 4 do
      waiting[i] = task.spawn(function()
        again[i] = assert(set:get(place()))
      end)
    end
    for _, one in ipairs(waiting) do
      assert(one:join())
    end
    assert.not_equal(env.name, again[1].name)
    for i = 2, 4 do
      assert.equal(again[1], again[i])
    end
    assert.equal(2, opens())
    assert.same({ again[1].name }, boxes())
    assert.same({ again[1].name }, recorded())
  end))

  it("that nobody has stay open, so many of them: the longest unused goes first", tasks(function()
    local set = new_set(2)
    local loans, names = {}, {}
    for i, image in ipairs({ "a", "b", "c", "d" }) do
      loans[i] = assert(set:lend(place({ image = image })))
      names[image] = loans[i].env.name
    end
    assert.equal(4, #boxes())
    for _, i in ipairs({ 2, 1, 4 }) do
      loans[i].over()
      loans[i].over()
    end
    -- c is on loan, and b is what nobody has had for longest.
    local left = { names.a, names.c, names.d }
    table.sort(left)
    assert.is_truthy(helper.eventually(function()
      return #boxes() == 3
    end))
    assert.same(left, boxes())
    assert.same(left, recorded())
    assert.equal(names.a, assert(set:lend(place({ image = "a" }))).env.name)
    local again = assert(set:lend(place({ image = "b" }))).env.name
    assert.not_equal(names.b, again)
    assert.same({}, lines)
  end))

  it("that were asked for without an end stay, lent or not", tasks(function()
    local set = new_set(0)
    local env = assert(set:get(place()))
    local loan = assert(set:lend(place()))
    assert.equal(env, loan.env)
    loan.over()
    task.sleep(0.05)
    assert.equal(1, #boxes())
    -- One that nobody may keep goes at once, and its set waits for that.
    assert(set:lend(place({ image = "x", slow = 0.05 }))).over()
    set:close()
    assert.same({}, boxes())
    assert.same({}, recorded())
  end))

  it("that nobody had and that cannot be removed are told of", tasks(function()
    local set = new_set(0)
    assert(set:lend(place({ stuck = true }))).over()
    assert.is_truthy(helper.eventually(function()
      return #lines > 0
    end))
    assert.matches("may be left", lines[1])
    assert.equal(1, #recorded())
  end))

  it("of runs with options of their own each are not kept all", tasks(function()
    cfg.limits.idle_environments = 1
    local one = engine.new(cfg)
    for _, image in ipairs({ "a", "b", "c" }) do
      local result = assert(one:run({
        script = "echo " .. image, language = "sh", backend = "box",
        options = { root = root, image = image },
      }))
      assert.equal(image .. "\n", result.output)
    end
    assert.is_truthy(helper.eventually(function()
      return #boxes() == 1
    end))
    one:close()
    assert.same({}, boxes())
  end))

  it("are for all who ask: who came first may give up, and others still get it", tasks(function()
    local set = new_set()
    local first = task.spawn(set.get, set, place({ slow = 0.1 }))
    local env
    local second = task.spawn(function()
      env = assert(set:get(place({ slow = 0.1 })))
    end)
    first:cancel()
    local ok, err = first:join()
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
    assert(second:join())
    assert.is_true(env:alive())
    assert.equal(1, opens())
  end))

  it("that nobody waits for any more are not left behind", tasks(function()
    local set = new_set()
    local first = task.spawn(set.get, set, place({ slow = 60 }))
    assert.equal(1, #boxes())
    first:cancel()
    assert.is_false((first:join()))
    set:close()
    assert.same({}, boxes())
    assert.same({}, recorded())
  end))

  it("that could not be opened are taken back", tasks(function()
    local set = new_set()
    for _, kind in ipairs({ "not_found", "lost", "timeout" }) do
      local env, err = set:get(place({ fail = kind }))
      assert.is_nil(env)
      assert.equal(kind, err.kind)
    end
    assert.same({}, boxes())
    assert.same({}, recorded())
    assert.is_nil((set:get(place({ key = "dev", fail = "not_found" }))))
    assert.same({}, recorded())
    -- What may be there and cannot be removed keeps its record.
    assert.is_nil((set:get(place({ fail = "lost", stuck = true }))))
    assert.equal(1, #recorded())
  end))

  it("that cannot be removed keep their record, and it is told", tasks(function()
    local set = new_set()
    local env = assert(set:get(place({ stuck = true })))
    set:close()
    assert.same({ env.name }, recorded())
    assert.matches("may be left: .*it is stuck", lines[1])
  end))

  it("of this machine leave no record", tasks(function()
    local set = new_set()
    assert(set:get(assert(catalog.new(cfg):backend("local"))))
    assert.is_nil(fs.stat(cfg.state_dir .. "/environments"))
  end))

  it("raise in everybody who waits what a backend raises", tasks(function()
    local set, where = new_set(), place()
    where.backend.open = function()
      task.sleep(0.01)
      error("a bug")
    end
    local one, two = task.spawn(set.get, set, where), task.spawn(set.get, set, where)
    for _, waiting in ipairs({ one, two }) do
      local ok, err = waiting:join()
      assert.is_false(ok)
      assert.matches("a bug", tostring(err))
    end
    assert.same({}, recorded())
  end))
end)

describe("the option key", function()
  it("is there for backends that can remove what they make, and for no other", tasks(function()
    local options = catalog.new(cfg):load_backend("dirbox").options
    assert.equal("string", options.key.type)
    assert.equal("seconds", options.idle.type)
    assert.is_nil(catalog.new(cfg):load_backend("local").options.key)
    local where, err = catalog.new(cfg):backend("local", { key = "dev" })
    assert.is_nil(where)
    assert.is_true(errors.is(err))
    assert.matches("do not last", err.msg)
    for _, key in ipairs({ "", "a\nb", ("x"):rep(201) }) do
      where, err = catalog.new(cfg):backend("box", { root = root, key = key })
      assert.is_nil(where)
      assert.matches("option key", err.msg)
    end
    where, err = catalog.new(cfg):backend("box", { root = root, key = "a", attach = "b" })
    assert.is_nil(where)
    assert.matches("exclude each other", err.msg)
    assert.equal(7200, catalog.new(cfg):backend("box", { root = root, idle = "2h" }).options.idle)
  end))
end)
