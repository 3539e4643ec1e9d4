-- SPDX-License-Identifier: MIT
-- Against Podman as spec/testbed/podman.sh sets it up, which needs root.
local backend = require("farcall.backends.podman")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local suite = require("spec.support.command_suite")
local system = require("farcall.core.system")
local task = require("farcall.task")

local run = suite.run
local IMAGE = "farcall-spec/debian"

if system.uid() ~= 0 then
  return
end

describe("backend podman", function()
  local pipe = io.popen("sh spec/testbed/podman.sh")
  local dir = assert(pipe:read("*l"), "no testbed")
  pipe:close()
  local environ = { PATH = dir .. "/bin:" .. os.getenv("PATH"), LET_ME = "in", OTHER = "no" }

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

  local function using(given, fn)
    local ctx = context()
    local env = assert(backend.open(options(given), ctx))
    local ok, failure = pcall(fn, env, ctx)
    env:close()
    if not ok then
      error(failure, 0)
    end
  end

  local shared = { key = "suite", name = "farcall-spec-" .. system.pid() }
  suite.tests(it, "podman", function()
    return backend, { image = IMAGE }, environ, shared
  end)

  it("sees what is bound, and has limits", helper.task(function()
    local bound = helper.scratch()
    helper.write(bound .. "/file", "text")
    using({ image = IMAGE, binds = { bound .. ":/mnt:ro" }, memory = 268435456 }, function(env)
      assert.equal("text", (run(env, "cat /mnt/file")))
      assert.equal("268435456\n", (run(env, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes "
        .. "/sys/fs/cgroup/memory.max 2>/dev/null")))
      assert.equal("CapEff:\t0000000000000000\n", (run(env, "grep CapEff /proc/self/status")))
      assert.equal("NoNewPrivs:\t1\n", (run(env, "grep NoNewPrivs /proc/self/status")))
    end)
  end))

  it("has no network unless it is given one", helper.task(function()
    using({ image = IMAGE }, function(env)
      assert.equal("lo\n", (run(env, "ls /sys/class/net")))
    end)
    using({ image = IMAGE, network = "host" }, function(env)
      assert.equal(fs.readlink("/proc/self/ns/net") .. "\n",
        (run(env, "readlink /proc/self/ns/net")))
    end)
  end))

  it("is listed with its labels, and gone after the end", helper.task(function()
    local ctx = context()
    local env = assert(backend.open(options({ image = IMAGE }), ctx))
    assert.same({ name = ctx.name, labels = ctx.labels }, listed(ctx))
    assert(env:start({ command = "sleep 1000 & exec sleep 1000" }))
    env:close()
    assert.is_nil(listed(ctx))
  end))

  it("takes the volumes along that nobody has named", helper.task(function()
    local volume
    using({ image = IMAGE, binds = { "/unnamed" } }, function(_, ctx)
      pipe = io.popen(dir .. "/bin/podman inspect --format '{{range .Mounts}}{{.Name}} {{end}}' "
        .. ctx.name)
      volume = pipe:read("*a"):match("%x+")
      pipe:close()
    end)
    assert.equal(64, #(volume or ""))
    assert.not_equal(0, os.execute(dir .. "/bin/podman volume exists " .. volume))
  end))

  it("shares one that has a key, and leaves it until it is reaped", helper.task(function()
    local ctx = context({ key = "project" })
    local opened, envs = {}, {}
    for i = 1, 3 do
      opened[i] = task.spawn(backend.open, options({ image = IMAGE }), ctx)
    end
    for i = 1, 3 do
      local ok, env, err = opened[i]:join()
      assert.is_true(ok and env ~= nil, tostring(err or env))
      envs[i] = env
    end
    run(envs[1], "echo shared > /tmp/file")
    for i = 1, 3 do
      envs[i]:close()
    end
    local again = assert(backend.open(options({ image = IMAGE }), ctx))
    assert.equal("shared\n", (run(again, "cat /tmp/file")))
    again:close()
    assert.is_true(backend.reap(ctx.name, options(), ctx))
    assert.is_true(backend.reap(ctx.name, options(), ctx))
    assert.is_nil(listed(ctx))
  end))

  it("waits for one that somebody else is making", helper.task(function()
    local ctx = context({ key = "making" })
    local flag = helper.write(helper.scratch() .. "/flag", "")
    -- What Podman says while the name is taken and the container is not there yet.
    local program = helper.write(helper.scratch() .. "/podman", ([=[#!/bin/sh
case $1-$(cat %q) in
run-) echo "Error: the container name \"x\" is already in use by y" >&2; exit 125 ;;
start-) echo gone > %q; echo 'Error: no container with name or ID "x" found: no such container' >&2
  exit 125 ;;
esac
exec podman "$@"
]=]):format(flag, flag))
    assert.equal(0, os.execute("chmod 755 " .. program))
    local env = assert(backend.open(options({ image = IMAGE, program = program }), ctx))
    assert.equal("here\n", (run(env, "echo here")))
    env:close()
    assert.equal("gone\n", helper.read(flag))
    assert.is_true(backend.reap(ctx.name, options(), ctx))
  end))

  it("says what is not there, and leaves nothing", helper.task(function()
    local ctx = context()
    local env, err = backend.open(options({ image = "localhost/farcall-spec/none" }), ctx)
    assert.is_nil(env)
    assert.is_truthy(err.hint)
    assert.is_nil(listed(ctx))
    local _
    _, err = backend.open(options({ image = IMAGE, binds = { "/no/such:/mnt" } }), ctx)
    assert.is_truthy(err.msg:find("/no/such", 1, true))
    assert.is_nil(listed(ctx))
  end))

  it("leaves nothing when the start is cancelled", helper.task(function()
    local ctx = context()
    local opening = task.spawn(backend.open, options({ image = IMAGE }), ctx)
    task.sleep(0.1)
    opening:cancel()
    assert.is_false((opening:join()))
    assert.is_nil(listed(ctx))
  end))

  it("notices that it was removed", helper.task(function()
    using({ image = IMAGE }, function(env, ctx)
      local process = assert(env:start({ command = "exec sleep 1000" }))
      assert.is_true(backend.reap(ctx.name, options(), ctx))
      local status, err = process:wait()
      assert.is_true(status ~= nil or err.kind == "lost")
      status, err = env:start({ argv = { "true" } })
      assert.is_nil(status)
      assert.equal("lost", err.kind)
      assert.is_false(env:alive())
    end)
  end))
end)
