-- SPDX-License-Identifier: MIT
local backend = require("farcall.backends.bubblewrap")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local suite = require("spec.support.command_suite")

local run = suite.run

local function with(given, fn)
  return helper.task(function()
    local ctx = suite.context()
    local env = assert(backend.open(suite.options(backend, given), ctx))
    local ok, failure = pcall(fn, env, ctx)
    env:close()
    if not ok then
      error(failure, 0)
    end
  end)
end

describe("backend bubblewrap", function()
  suite.tests(it, "bubblewrap", function()
    return backend, {}, { LET_ME = "in", OTHER = "no" }
  end)

  it("has the programs of this machine, to read", with({}, function(env)
    assert.equal("4\n", (run(env, "/usr/bin/python3 -c 'print(2 + 2)'")))
    local _, err, status = run(env, "echo > /usr/x; echo > /etc/x; test ! -e /etc/x")
    assert.is_truthy(err:find("Read-only file system", 1, true))
    assert.same({ exit = 1 }, (select(3, run(env, "test -e /etc/shadow"))))
    assert.is_table(status)
  end))

  it("has no capabilities, whoever starts it", with({}, function(env)
    assert.equal("CapEff:\t0000000000000000\n", (run(env, "grep CapEff /proc/self/status")))
  end))

  it("has no network unless it is given one", function()
    with({}, function(env)
      assert.equal("lo\n", (run(env, "ls /proc/sys/net/ipv4/conf | grep -v all | grep -v default")))
    end)()
    with({ network = true }, function(env)
      assert.equal(fs.readlink("/proc/self/ns/net") .. "\n",
        (run(env, "readlink /proc/self/ns/net")))
    end)()
  end)

  it("sees the directories that it is given", function()
    local dir = helper.scratch()
    helper.write(dir .. "/file", "text")
    with({ binds = { dir } }, function(env)
      assert.equal("text", (run(env, "cat " .. dir .. "/file")))
      assert.same({ exit = 2 }, (select(3, run(env, "echo > " .. dir .. "/file"))))
    end)()
    with({ binds = { dir .. ":rw" } }, function(env)
      assert.same({ exit = 0 }, (select(3, run(env, "printf new > " .. dir .. "/file"))))
    end)()
    assert.equal("new", helper.read(dir .. "/file"))
  end)

  it("removes its private /tmp", helper.task(function()
    local ctx = suite.context()
    local env = assert(backend.open(suite.options(backend), ctx))
    run(env, "mkdir -p /tmp/a/b; echo > /tmp/a/b/c; chmod 0 /tmp/a")
    assert.is_true(#fs.list(ctx.runtime_dir) > 0)
    env:close()
    assert.equal(0, #fs.list(ctx.runtime_dir))
  end))

  it("says that user namespaces are not permitted", helper.task(function()
    local ctx = suite.context()
    local program = helper.write(helper.scratch() .. "/bwrap", [[
#!/bin/sh
exec bwrap --unshare-user --disable-userns --bind / / --dev /dev -- bwrap "$@"
]])
    assert(os.execute("chmod 755 " .. program) == 0)
    local env, err = backend.open(suite.options(backend, { program = program }), ctx)
    assert.is_nil(env)
    assert.equal("denied", err.kind)
    assert.is_truthy(err.hint:find("user namespaces", 1, true))
    assert.equal(0, #fs.list(ctx.runtime_dir))
  end))

  it("says what it cannot bind, and leaves nothing", helper.task(function()
    local ctx = suite.context()
    local env, err = backend.open(suite.options(backend, { binds = { "/no/such" } }), ctx)
    assert.is_nil(env)
    assert.equal("not_found", err.kind)
    assert.is_truthy(err.msg:find("/no/such", 1, true))
    assert.equal(0, #fs.list(ctx.runtime_dir))
  end))
end)
