-- SPDX-License-Identifier: MIT
-- libfarcall: what a C program sees of it, through FFI; and the example, which has threads.

local build = require("spec.support.build")
local child = require("spec.support.child")
local docker = require("spec.support.docker")
local ffi = require("ffi")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local json = require("farcall.core.json")
local libfarcall = require("spec.support.libfarcall")

ffi.cdef([[
  struct spec_pollfd { int fd; short events, revents; };
  int poll(struct spec_pollfd *fds, unsigned long count, int timeout);
]])

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


local function is_readable(fd, timeout_ms)
  local watched = ffi.new("struct spec_pollfd", { fd, 1, 0 })
  return ffi.C.poll(watched, 1, timeout_ms) == 1
end

local function threads()
  return #assert(fs.list("/proc/self/task"))
end

-- Waits until all other threads sleep: under the address sanitizer a fork while one of them
-- allocates leaves a lock behind in the child.
local function wait_until_quiet()
  local quiet = 0
  while quiet < 5 do
    local all = ""
    for _, thread in ipairs(assert(fs.list("/proc/self/task"))) do
      local stat = helper.read("/proc/self/task/" .. thread .. "/stat")
      all = all .. (stat and stat:match("^.*%) (%a)") or "")
    end
    quiet = all:find("^RS*$") and quiet + 1 or 0
    ffi.C.poll(nil, 0, 10)
  end
end

local EAGAIN, EINVAL, ECLOSED, ENOENT, EOPEN, EFORK = -1, -2, -4, -5, -6, -7

describe("libfarcall", function()
  it("runs a command as it was given, byte for byte", function()
    libfarcall.with(nil, function(handle)
      local every = {}
      for byte = 0, 255 do
        every[#every + 1] = string.char(byte)
      end
      local bytes = table.concat(every):rep(1000)
      local id = assert(handle:oneshot({ command = "cat; echo no >&2; exit 9", stdin = bytes,
        user = 77 }))
      local result = handle:wait()
      assert.equal(bytes, result.out)
      assert.same({ "no\n", 9, 0, 77 }, { result.err, result.exit_code, result.signal,
        result.user })
      assert.is_true(result.id == id)
      assert.is_nil(result.error_kind)
      assert(handle:oneshot({ argv = { "sh", "-c", 'printf "%s|" "$0" "$@" "$X" "$PWD"', "", "a b",
        "$(no)\n'" }, env = { X = "y=z" }, cwd = "/usr" }))
      assert.equal("|a b|$(no)\n'|y=z|/usr|", handle:wait().out)
    end)
  end)

  it("tells signals, deadlines and cut output", function()
    libfarcall.with(nil, function(handle)
      assert(handle:oneshot({ command = "kill -9 $$" }))
      local result = handle:wait()
      assert.same({ -1, 9, "KILL" }, { result.exit_code, result.signal, result.signal_name })
      assert(handle:oneshot({ command = "echo early; sleep 600", timeout = 2 }))
      result = handle:wait()
      assert.is_true(result.timed_out)
      assert.equal("early\n", result.out)
      assert(handle:oneshot({ command = "echo 123456789", max_output = 4 }))
      result = handle:wait()
      assert.is_true(result.truncated)
      assert.equal("1234", result.out)
    end)
  end)

  it("tells what could not be run, with kind, code and hint", function()
    libfarcall.with({ config = 'backend "box" { use = "local" }' }, function(handle)
      assert(handle:oneshot({ backend = "bix", command = "true" }))
      local result = handle:wait()
      assert.equal("not_found", result.error_kind)
      assert.matches("box", result.error_hint)
      assert.equal(-1, result.exit_code)
      assert.equal("", result.out)
      assert(handle:oneshot({ backend = "box", options = { cdw = "/" }, command = "true" }))
      result = handle:wait()
      assert.equal("config", result.error_kind)
      assert.matches("cdw", result.error_text)
      assert(handle:oneshot({ argv = { "/no/such/program" } }))
      result = handle:wait()
      assert.same({ "not_found", "ENOENT" }, { result.error_kind, result.error_code })
    end)
  end)

  it("refuses what makes no sense at once", function()
    libfarcall.with(nil, function(handle)
      local cases = {
        {}, { command = "true", argv = { "true" } }, { argv = {} },
        { command = "true", timeout = -1 }, { command = "true", timeout = 0 / 0 },
        { command = "true", env = { ["a=b"] = "c" } }, { command = "true", env = { [""] = "c" } },
      }
      for i, case in ipairs(cases) do
        assert.same({ nil, EINVAL }, { handle:oneshot(case) }, "case " .. i)
      end
      assert.same({ nil, EINVAL }, { handle:shell({ command = "true", cwd = "/" }) })
      assert.same({ nil, EINVAL }, { handle:run({}) })
      assert.equal(EINVAL, (select(2, handle:oneshot({ argv = {}, stdin = "x" }))))
      assert.equal(EAGAIN, (select(2, handle:wait(0))))
    end)
  end)

  it("bounds what is under way, and goes on when results were picked up", function()
    libfarcall.with({ max_requests = 3 }, function(handle)
      for i = 1, 3 do
        assert(handle:oneshot({ command = "true", user = i }))
      end
      assert.same({ nil, EAGAIN }, { handle:oneshot({ command = "true" }) })
      local seen = {}
      for _ = 1, 3 do
        local result = handle:wait()
        seen[result.user] = result.exit_code
        assert(handle:oneshot({ command = "exit 5", user = 9 }))
        assert.same({ nil, EAGAIN }, { handle:oneshot({ command = "true" }) })
      end
      assert.is_true(next(seen) ~= nil)
    end)
  end)

  it("cancels what runs, what waits, and nothing else", function()
    libfarcall.with({ max_running = 1 }, function(handle)
      local first = assert(handle:oneshot({ command = "sleep 600", user = 1 }))
      local second = assert(handle:oneshot({ command = "echo never", user = 2 }))
      assert(handle:oneshot({ command = "echo third", user = 3 }))
      assert.equal(0, handle:cancel(second))
      local result = handle:wait()
      assert.same({ 2, "cancelled", "" }, { result.user, result.error_kind, result.out })
      assert.equal(0, handle:cancel(first))
      result = handle:wait()
      assert.same({ 1, "cancelled" }, { result.user, result.error_kind })
      result = handle:wait()
      assert.same({ 3, "third\n" }, { result.user, result.out })
      for _, id in ipairs({ first, second, 0, 1, 2 ^ 52 }) do
        assert.equal(ENOENT, handle:cancel(id))
      end
    end)
  end)

  it("gives every request one result when it is stopped", function()
    libfarcall.with({ max_running = 4 }, function(handle)
      for i = 1, 20 do
        assert(handle:oneshot({ command = "sleep 600", user = i }))
      end
      assert(handle:shell({ command = "sleep 600", user = 21 }))
      assert(handle:shell({ command = "echo waits", user = 22 }))
      assert(handle:run({ script = "import time\ntime.sleep(600)", language = "python",
        user = 23 }))
      handle:stop()
      handle:stop()
      assert.same({ nil, ECLOSED }, { handle:oneshot({ command = "true" }) })
      local seen = {}
      for _ = 1, 23 do
        local result = handle:wait()
        assert.is_nil(seen[result.user])
        seen[result.user] = true
        assert.equal("cancelled", result.error_kind, result.error_text)
      end
      for _ = 1, 3 do
        assert.same({ nil, ECLOSED }, { handle:wait() })
      end
      assert.is_true(is_readable(handle.C.farcall_fd(handle.handle), 0))
    end)
  end)

  it("closes with commands under way and results that nobody wants", function()
    libfarcall.with(nil, function(handle)
      for _ = 1, 8 do
        assert(handle:oneshot({ command = "echo $$; exec sleep 600" }))
        assert(handle:oneshot({ command = "true" }))
      end
      is_readable(handle.C.farcall_fd(handle.handle), 60000)
    end)
    -- The leak check of every test sees that no child and no descriptor is left.
  end)

  it("opens and closes fifty times without leaving a thread or a descriptor", function()
    local fds
    local before = threads()
    for i = 1, 50 do
      libfarcall.with(nil, function(handle)
        assert(handle:oneshot({ command = "exit 3" }))
        if i % 2 == 0 then
          assert.equal(3, handle:wait().exit_code)
        end
      end)
      assert.equal(before, threads())
      local count = #assert(fs.list("/proc/self/fd"))
      fds = fds or count
      assert.equal(fds, count)
    end
  end)

  it("serves several handles in one process", function()
    libfarcall.with(nil, function(one)
      libfarcall.with(nil, function(other)
        assert(one:oneshot({ command = "echo one" }))
        assert(other:oneshot({ command = "echo other" }))
        assert.equal("other\n", other:wait().out)
        assert.equal("one\n", one:wait().out)
      end)
      assert(one:oneshot({ command = "echo again" }))
      assert.equal("again\n", one:wait().out)
    end)
  end)

  it("has a descriptor that is readable while there are results", function()
    libfarcall.with(nil, function(handle)
      local fd = handle.C.farcall_fd(handle.handle)
      assert.is_false(is_readable(fd, 0))
      assert(handle:oneshot({ command = "true" }))
      assert(handle:oneshot({ command = "true" }))
      assert.is_true(is_readable(fd, 60000))
      assert(handle:wait())
      assert.is_true(is_readable(fd, 60000))
      assert(handle:wait(0))
      assert.is_false(is_readable(fd, 0))
    end)
  end)

  it("keeps a shell's state, and says when it is lost", function()
    libfarcall.with(nil, function(handle)
      assert(handle:shell({ command = "cd /usr; x=kept" }))
      assert(handle:shell({ command = "echo $PWD $x" }))
      handle:wait()
      assert.equal("/usr kept\n", handle:wait().out)
      assert(handle:shell({ command = "exit 4" }))
      local result = handle:wait()
      assert.same({ 4, true }, { result.exit_code, result.restarted })
      assert(handle:shell({ command = "echo [$x]" }))
      assert.equal("[]\n", handle:wait().out)
      for i = 1, 300 do
        assert(handle:shell({ command = "echo " .. i, user = i }))
      end
      for i = 1, 300 do
        result = handle:wait()
        assert.same({ i, i .. "\n" }, { result.user, result.out })
      end
    end)
  end)

  it("runs scripts with their tools", function()
    libfarcall.with(nil, function(handle)
      assert(handle:run({ filename = "job.py", args = { "a b" }, env = { X = "1" },
        allow = { "terminal" }, script = [[
import os, sys
from farcall import terminal
print(terminal("echo called")["output"].strip(), sys.argv[1], os.environ["X"])
sys.exit(6)]] }))
      local result = handle:wait()
      assert.same({ 6, "called a b 1\n" }, { result.exit_code, result.out }, result.err)
      local told = assert(json.decode(result.json))
      assert.same({ "error", 1 }, { told.status, told.tool_calls_made })
      assert(handle:run({ script = "print(1)", language = "pythn" }))
      result = handle:wait()
      assert.same({ "not_found", nil }, { result.error_kind, result.json })
      assert(handle:run({ script = "import time\ntime.sleep(600)", language = "python",
        timeout = 0.5 }))
      assert.is_true(handle:wait().timed_out)
    end)
  end)

  it("says in one line why it cannot open", function()
    local handle, message, code = libfarcall.open({ path = "/no/such/config.lua" })
    assert.is_nil(handle)
    assert.equal(EOPEN, code)
    assert.matches("/no/such/config.lua: no such configuration file", message, 1, true)
    handle, message, code = libfarcall.open({ config = "backend 'x' {" })
    assert.is_nil(handle)
    assert.equal(EOPEN, code)
    assert.matches("config.lua:1", message)
    assert.is_nil(message:find("\n"))
    handle, message, code = libfarcall.open({ lua_tree = "/nowhere" })
    assert.is_nil(handle)
    assert.equal(EOPEN, code)
    assert.matches("lua_tree", message)
    handle, message = libfarcall.open({ max_requests = 65537 })
    assert.is_nil(handle)
    assert.matches("make no sense", message)
  end)

  it("takes the environment that it is handed", function()
    local dir = helper.scratch()
    local list = { "PATH=/usr/bin:/bin", "HOME=" .. dir, "XDG_RUNTIME_DIR=" .. dir,
      "FARCALL_BACKEND=other" }
    local config = 'backend "other" { use = "local", cwd = "/usr" }'
    libfarcall.with({ environment = list, config = config }, function(handle)
      assert(handle:oneshot({ command = "echo $HOME; pwd" }))
      assert.equal(dir .. "\n/usr\n", handle:wait().out)
    end)
    list[4] = "FARCALL_BAKCEND=other"
    local handle, message = libfarcall.open({ environment = list })
    assert.is_nil(handle)
    assert.matches("did you mean FARCALL_BACKEND", message)
  end)

  it("is nobody's in a forked child, and the parent's as before", function()
    libfarcall.with(nil, function(handle)
      assert(handle:oneshot({ command = "sleep 600", user = 1 }))
      wait_until_quiet()
      local how, code = child.run(function()
        local _, refused = handle:oneshot({ command = "true" })
        local _, none = handle:wait(0)
        handle:stop()
        local fd = handle.C.farcall_fd(handle.handle)
        handle.C.farcall_close(handle.handle)
        local own = assert(libfarcall.open())
        assert(own:oneshot({ command = "exit 8" }))
        local result = own:wait()
        own:close()
        return refused == EFORK and none == EFORK and fd == EFORK and result.exit_code or 1
      end)
      assert.same({ "exit", 8 }, { how, code })
      assert(handle:oneshot({ command = "echo here", user = 2 }))
      assert.equal("here\n", handle:wait().out)
    end)
  end)

  it("answers everything even when the engine fails", function()
    local plugins = helper.scratch()
    helper.write(plugins .. "/broken.lua", [[
local task = require("farcall.task")
return {
  name = "broken", summary = "breaks the loop", api = 1, options = {}, caps = {},
  open = function()
    task.loop():timer(1, function() error("boom") end)
    task.sleep(600)
  end,
}]])
    local config = ('backend_path { %q }'):format(plugins)
    libfarcall.with({ config = config, max_running = 1 }, function(handle)
      assert(handle:oneshot({ backend = "broken", command = "true", user = 1 }))
      assert(handle:oneshot({ command = "echo waits", user = 2 }))
      local seen = {}
      for _ = 1, 2 do
        local result = handle:wait()
        seen[result.user] = result.error_kind
        assert.matches("boom", result.error_text)
      end
      assert.same({ "internal", "internal" }, seen)
      assert.same({ nil, ECLOSED }, { handle:wait() })
      assert.same({ nil, ECLOSED }, { handle:oneshot({ command = "true" }) })
    end)
  end)

  it("closes even when an environment cannot", function()
    local plugins = helper.scratch()
    helper.write(plugins .. "/stuck.lua", [[
return {
  name = "stuck", summary = "does not close", api = 1, options = {}, caps = {},
  open = function()
    return {
      caps = { kill = "native" },
      exec = function() return { exit_code = 0, stdout = "here", stderr = "" } end,
      close = function() error("boom") end,
    }
  end,
}]])
    local config = ('backend_path { %q }'):format(plugins)
    for _, first in ipairs({ "stop", "close" }) do
      libfarcall.with({ config = config }, function(handle)
        assert(handle:oneshot({ backend = "stuck", command = "true" }))
        assert.equal("here", handle:wait().out)
        handle[first](handle)
        if first == "stop" then
          assert.same({ nil, ECLOSED }, { handle:wait() })
        end
      end)
    end
  end)

  -- The example with these backends, whose configuration is `config`; the first runs the script.
  local function example(config, names)
    local dir, environment = setting(config)
    local text, code = run(environment, ("%s/examples/embed %s/config.lua %s")
      :format(root, dir, table.concat(names, " ")))
    assert.equal(("embed: %d oneshots from 8 threads on %d backends beside a script and %d shells: "
      .. "0 wrong\n"):format(48 * #names, #names, #names), text)
    assert.equal(0, code)
  end

  it("serves eight threads beside a script and sleeping shells", function()
    example([[
backend "here" { use = "local", cwd = "/" }
backend "own" { use = "local", own_cwd = true, tree = "subreaper" }
]], { "here", "own" })
  end)

  it("keeps the order of a shell's commands while its environment is opened", function()
    docker.setup()
    local config = 'backend "box" { use = "docker", image = "farcall-spec/debian" }'
    libfarcall.with({ config = config }, function(handle)
      for i = 1, 6 do
        assert(handle:shell({ backend = "box", command = ("x=${x}%d; echo $x"):format(i) }))
      end
      for i = 1, 6 do
        assert.equal(("123456"):sub(1, i) .. "\n", handle:wait().out)
      end
    end)
  end)

  it("does so in containers and on another host", function()
    docker.setup()
    local pipe = assert(io.popen("sh spec/testbed/ssh.sh"))
    local bed = assert(pipe:read("*l"))
    pipe:close()
    example(([[
backend "box" { use = "docker", image = "farcall-spec/debian" }
backend "lab" {
  use = "ssh", host = "127.0.0.1", port = %d, user = "farcall-far", agent = false,
  config = "none", identity = { "%s/ed25519" }, known_hosts = { "%s/known_hosts" },
}
]]):format(helper.read(bed .. "/port.main"):match("%d+"), bed, bed), { "box", "lab" })
  end)

  it("works as a plugin, with backends that load modules", function()
    -- A sanitizer must be there before the program: the preloaded one is.
    local sanitizers = helper.read(build.dir .. "/CMakeCache.txt"):match("\nSANITIZE:[^=]*=(%S+)")
    local preload = sanitizers and "ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$(cc "
      .. "-print-file-name=libasan.so) " or ""
    docker.setup()
    local dir, environment = setting(
      'backend "box" { use = "docker", image = "farcall-spec/debian" }')
    local text, code = run(environment, ("%spython3 spec/support/plugin.py %s/libfarcall.so "
      .. "%s/config.lua box 'echo from a plugin'"):format(preload, root, dir))
    assert.equal("from a plugin\n", text)
    assert.equal(0, code)
  end)

  it("has no mutex where requests go in and results come out", function()
    for _, path in ipairs({ "core/handoff.c", "core/oneshot.c", "core/request.c" }) do
      assert.is_nil(helper.read(path):find("pthread_mutex", 1, true), path)
    end
    for name in helper.read("core/farcall.c"):gmatch("pthread_mutex_lock%((.-)%)") do
      assert.equal("&opening", name)
    end
  end)
end)
