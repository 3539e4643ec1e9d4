-- SPDX-License-Identifier: MIT
-- How the program of a runner comes to be over there, and is found again.

local engines = require("spec.support.engines")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local runner = require("farcall.clients.runner")
local task = require("farcall.task")

-- This machine as an environment with a home of its own, which does not see the engine's files;
-- every exec of it is counted, with the bytes that it was sent.
local function environment(one, home)
  local inner = assert(one:environment("local")).inner
  local env = setmetatable({ execs = 0, sent = 0 }, { __index = inner })
  function env.start(_, spec)
    env.execs = env.execs + 1
    spec.env = { HOME = home, XDG_CACHE_HOME = home .. "/cache", TMPDIR = home }
    local process, err = inner:start(spec)
    if process then
      local write = process.write
      rawset(process, "write", function(self, bytes)
        -- What is larger than any word of the wire at the start is the program.
        env.sent = env.sent + (#bytes > 4096 and 1 or 0)
        return write(self, bytes)
      end)
    end
    return process, err
  end
  return env
end

local function bring(env, cfg, options)
  options = options or {}
  return runner.start(env, {
    dir = options.dir or cfg.runner_dir, forms = options.forms or { "c" }, grace = 0, here = false,
  })
end

-- It runs something, then ends.
local function prove(one)
  local process = assert(one:exec({
    argv = { "sh", "-c", "echo works" }, tree = "subreaper", grace = 1, stdin = "null",
  }))
  local said = ""
  while true do
    local stream, bytes = process:read(4096)
    if not stream then
      break
    end
    said = said .. bytes
  end
  assert.equal(0, assert(process:wait()).exit)
  assert.equal("works\n", said)
  one:close()
end

local function kept_in(home)
  local names = assert(fs.list(home .. "/cache/farcall"))
  assert.equal(1, #names)
  assert.matches("^runner%-%x+$", names[1])
  return home .. "/cache/farcall/" .. names[1]
end

local function with_home(body)
  return function()
    engines.with({}, function(one, cfg)
      local home = helper.scratch()
      body(environment(one, home), cfg, home)
    end)
  end
end

describe("the runner's program", function()
  it("sends little", function()
    local sizes = {}
    for _, name in ipairs(assert(fs.list(engines.config().runner_dir))) do
      if name:find("^farcall%-runner%-") then
        sizes[name] = fs.stat(engines.config().runner_dir .. "/" .. name).size
      end
    end
    assert.is_truthy(next(sizes))
    for name, size in pairs(sizes) do
      assert.is_true(size < 100000, name .. " has " .. size .. " bytes")
    end
  end)

  it("is sent once, kept under its hash, and found again", with_home(function(env, cfg, home)
    prove(assert(bring(env, cfg)))
    assert.same({ 1, 1 }, { env.execs, env.sent })
    local path = kept_in(home)
    local before = helper.read(path)
    prove(assert(bring(env, cfg)))
    assert.same({ 2, 1 }, { env.execs, env.sent })
    assert.equal(before, helper.read(path))
  end))

  local DAMAGES = {
    ["was cut"] = function(text)
      return text:sub(1, #text / 2)
    end,
    ["has one other byte"] = function(text)
      return text:sub(1, -2) .. string.char((text:byte(-1) + 1) % 256)
    end,
    ["is another program"] = function()
      return "#!/bin/sh\necho something else\n"
    end,
    ["never answers, but ends"] = function()
      return "#!/bin/sh\nexit 1\n"
    end,
    ["says hello without being one"] = function()
      return "#!/bin/sh\nprintf '\\n%s hello 1 1 0 ? x86_64 -\\n' \"$2\"\nsleep 20\n"
    end,
  }
  for name, damage in pairs(DAMAGES) do
    it("is sent anew when what was kept " .. name, with_home(function(env, cfg, home)
      prove(assert(bring(env, cfg)))
      local path = kept_in(home)
      local good = helper.read(path)
      helper.write(path, damage(good))
      prove(assert(bring(env, cfg)))
      assert.same({ 3, 2 }, { env.execs, env.sent })
      assert.equal(good, helper.read(path))
    end))
  end

  it("goes nowhere where others could have put it", with_home(function(env, cfg, home)
    local other = helper.scratch()
    assert(fs.mkdir(home .. "/cache", 448))
    assert(os.execute(("ln -s %s %s/cache/farcall"):format(other, home)) == 0)
    prove(assert(bring(env, cfg)))
    assert.same({}, fs.list(other))
  end))

  it("is Python where none is for the machine, and none at all says why",
    with_home(function(env, cfg)
      local dir = helper.scratch()
      helper.write(dir .. "/farcall-runner-pdp11", "no program")
      local one, err = bring(env, cfg, { dir = dir, forms = { "c", "python" } })
      assert.is_nil(one)
      assert.equal("unsupported", err.kind)
      assert.matches("there is no runner for [%w_]+$", err.msg)
      helper.write(dir .. "/runner.py", helper.read(cfg.runner_dir .. "/runner.py"))
      -- The directory has been read: another name for the same one.
      one = assert(bring(env, cfg, { dir = dir .. "/.", forms = { "c", "python" } }))
      assert.equal("python", one.form)
      prove(one)
    end))
end)

describe("a runner that says nothing", function()
  it("is not waited for beyond the caller's own deadline", with_home(function(env, cfg, home)
    prove(assert(bring(env, cfg)))
    helper.write(kept_in(home), "#!/bin/sh\nsleep 100\n")
    local ok, _, err = pcall(task.timeout, 1, bring, env, cfg)
    assert.is_true(not ok or err.kind == "timeout")
  end))
end)
