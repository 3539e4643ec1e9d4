-- SPDX-License-Identifier: MIT
-- Against Apptainer as spec/testbed/apptainer.sh sets it up, which needs root.
local backend = require("farcall.backends.singularity")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local suite = require("spec.support.command_suite")
local system = require("farcall.core.system")
local task = require("farcall.task")

local run = suite.run

describe("backend singularity", function()
  it("wants an image or an instance", function()
    assert.is_false((backend.check({})))
    assert.is_false((backend.check({ image = "x", attach = "y" })))
    assert.is_false((backend.check({ image = "x", overlay = "/x", read_only = true })))
    assert.is_true((backend.check({ image = "x" })))
  end)

  if system.uid() ~= 0 then
    return
  end
  local pipe = io.popen("sh spec/testbed/apptainer.sh")
  local dir = pipe:read("*l")
  pipe:close()
  local sif = assert(dir, "no testbed") .. "/debian.sif"
  local environ = { PATH = dir .. "/bin:" .. os.getenv("PATH"), LET_ME = "in", OTHER = "no" }

  local up = system.cwd():gsub("/[^/]+", "../")
  local relative = up .. dir:sub(2) .. "/debian"

  local function context(fields)
    return suite.context(environ, fields)
  end

  local function options(given)
    return suite.options(backend, given)
  end

  local function listed(ctx)
    for _, entry in ipairs(assert(backend.list(options(), ctx))) do
      if entry.name == ctx.name then
        return entry
      end
    end
  end

  local function using(given, fn, fields)
    local ctx = context(fields)
    local env = assert(backend.open(options(given), ctx))
    local ok, failure = pcall(fn, env, ctx)
    env:close()
    if not ok then
      error(failure, 0)
    end
  end

  local function with(...)
    local given = { ... }
    return helper.task(function()
      using(unpack(given))
    end)
  end

  local shared = { key = "suite", name = "farcall-spec-" .. system.pid() }
  suite.tests(it, "Apptainer", function()
    return backend, { image = sif }, environ, shared
  end)

  it("starts from a directory, with python3", with({ image = relative }, function(env)
    assert.equal("4\n", (run(env, "python3 -c 'print(2 + 2)'; ls /home")))
  end))

  it("can be written to, and the image stays as it was", with({ image = sif }, function(env)
    assert.same({ exit = 0 }, (select(3, run(env, "echo x > /new && rm /etc/issue"))))
    using({ image = sif, read_only = true }, function(other)
      assert.same({ exit = 0 }, (select(3, run(other, "test ! -e /new && test -e /etc/issue"))))
      local _, err = run(other, "echo x > /new")
      assert.is_truthy(err:find("Read-only file system", 1, true))
    end)
  end))

  it("has no capabilities unless it is given root's", helper.task(function()
    using({ image = sif }, function(env)
      assert.equal("CapEff:\t0000000000000000\n", (run(env, "grep CapEff /proc/self/status")))
    end)
    using({ image = sif, privileges = true }, function(env)
      assert.is_nil((run(env, "grep CapEff /proc/self/status")):find("\t0000000000000000", 1, true))
    end)
  end))

  it("keeps what is written in an overlay", function()
    local overlay = helper.scratch()
    with({ image = sif, overlay = overlay }, function(env)
      assert.same({ exit = 0 }, (select(3, run(env, "echo kept > /new"))))
    end)()
    with({ image = sif, overlay = overlay }, function(env)
      assert.equal("kept\n", (run(env, "cat /new")))
    end)()
  end)

  it("sees what is bound", function()
    local bound = helper.scratch()
    helper.write(bound .. "/file", "text")
    with({ image = sif, binds = { bound .. ":/mnt:ro", bound } }, function(env)
      assert.equal("text", (run(env, "cat /mnt/file")))
      local _, err = run(env, "echo > /mnt/file")
      assert.is_truthy(err:find("Read-only file system", 1, true))
      assert.same({ exit = 0 }, (select(3, run(env, "printf new > " .. bound .. "/file"))))
    end)()
    assert.equal("new", helper.read(bound .. "/file"))
  end)

  it("has this machine's network, or none", function()
    local script = "python3 -c 'import os; print(os.readlink(\"/proc/self/ns/net\"))'"
    with({ image = sif }, function(env)
      assert.equal(fs.readlink("/proc/self/ns/net") .. "\n", (run(env, script)))
    end)()
    with({ image = sif, network = false }, function(env)
      assert.is_true(fs.readlink("/proc/self/ns/net") .. "\n" ~= run(env, script))
    end)()
  end)

  it("is given limits, or says that they cannot be given", helper.task(function()
    local env, err = backend.open(options({ image = sif, memory = 268435456, cpus = 1 }), context())
    if env then
      env:close()
    else
      assert.equal("unsupported", err.kind)
      assert.is_truthy(err.hint:find("cgroups", 1, true))
    end
  end))

  it("is listed with its labels, and gone after the end", helper.task(function()
    local ctx = context()
    local env = assert(backend.open(options({ image = sif }), ctx))
    assert.same({ name = ctx.name, labels = ctx.labels }, listed(ctx))
    assert(env:start({ command = "sleep 1000 & exec sleep 1000" }))
    env:close()
    assert.is_nil(listed(ctx))
    local find = io.popen("find " .. dir .. "/config -name '" .. ctx.name .. "*'")
    assert.equal("", find:read("*a"))
    find:close()
  end))

  it("shares one that has a key, and leaves it until it is reaped", helper.task(function()
    local ctx = context({ key = "project" })
    local opened = {}
    for i = 1, 3 do
      opened[i] = task.spawn(backend.open, options({ image = sif }), ctx)
    end
    local envs = {}
    for i = 1, 3 do
      local ok, env, err = opened[i]:join()
      assert.is_true(ok and env ~= nil, tostring(err or env))
      envs[i] = env
    end
    run(envs[1], "echo shared > /tmp/file")
    envs[1]:close()
    assert.equal("shared\n", (run(envs[2], "cat /tmp/file")))
    envs[2]:close()
    envs[3]:close()
    local again = assert(backend.open(options({ image = sif }), ctx))
    assert.equal("shared\n", (run(again, "cat /tmp/file")))
    again:close()
    assert.is_true(backend.reap(ctx.name, options(), ctx))
    assert.is_true(backend.reap(ctx.name, options(), ctx))
    assert.is_nil(listed(ctx))
  end))

  it("does not take a private name that is there", with({ image = sif }, function(_, ctx)
    local env, err = backend.open(options({ image = sif }), ctx)
    assert.is_nil(env)
    assert.equal("EEXIST", err.code)
  end))

  it("attaches to an instance of somebody else", with({ image = sif }, function(_, ctx)
    local env = assert(backend.open(options({ attach = ctx.name, env = { A = "1 '\"" } }),
      context()))
    assert.equal("none", env.caps.kill)
    assert.is_nil(env.caps.argv)
    local out, err, status = run(env, {
      command = "echo \"$A\"; pwd; cat; echo e >&2; exit 9", stdin = "in",
    })
    assert.same({ "1 '\"\n/tmp\nin", "e\n", { exit = 9 } }, { out, err, status })
    local process = assert(env:start({ command = "echo; exec sleep 1000" }))
    process:read(1)
    process:kill()
    env:close()
    assert.is_table(listed(ctx))
  end))

  it("says what is not there", helper.task(function()
    local env, err = backend.open(options({ attach = "farcall-none" }), context())
    assert.is_nil(env)
    assert.equal("not_found", err.kind)
    local ctx = context()
    env, err = backend.open(options({ image = "/no/such.sif" }), ctx)
    assert.is_nil(env)
    assert.equal("not_found", err.kind)
    assert.is_truthy(err.hint)
    env, err = backend.open(options({ image = "none.sif" }), ctx)
    assert.is_nil(env)
    assert.is_truthy(err.msg:find(system.cwd() .. "/none.sif", 1, true), err.msg)
    env, err = backend.open(options({ image = "/etc/passwd" }), ctx)
    assert.is_nil(env)
    assert.is_truthy(err)
    assert.is_nil(listed(ctx))
  end))

  it("leaves nothing when the start is cancelled", helper.task(function()
    local ctx = context()
    local opening = task.spawn(backend.open, options({ image = sif }), ctx)
    task.sleep(0.2)
    opening:cancel()
    assert.is_false((opening:join()))
    assert.is_nil(listed(ctx))
  end))

  it("notices that it was stopped", with({ image = sif }, function(env, ctx)
    local process = assert(env:start({ command = "exec sleep 1000" }))
    assert.is_true(backend.reap(ctx.name, options(), ctx))
    local status, err = process:wait()
    assert.is_true(status ~= nil or err.kind == "lost")
    status, err = env:start({ argv = { "true" } })
    assert.is_nil(status)
    assert.equal("lost", err.kind)
    assert.is_false(env:alive())
  end))
end)
