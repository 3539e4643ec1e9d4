-- SPDX-License-Identifier: MIT
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local loop = require("farcall.core.loop")
local proc = require("farcall.core.proc")
local system = require("farcall.core.system")

-- Spawns, reads both streams to their ends, and returns out, err, how and number.
local function run(spec)
  local l = assert(loop.new())
  spec.stdout = spec.stdout or "pipe"
  spec.stderr = spec.stderr or "pipe"
  local child, msg, code = proc.spawn(l, spec)
  if not child then
    l:close()
    return nil, msg, code
  end
  local text = {}
  local how, number
  for _, name in ipairs({ "stdout", "stderr" }) do
    text[name] = ""
    local stream = child[name](child)
    if stream then
      stream:on_readable(function()
        local bytes, _, failure = stream:read(65536)
        if bytes then
          text[name] = text[name] .. bytes
        elseif failure ~= "EAGAIN" then
          stream:close()
        end
      end)
    end
  end
  child:on_exit(function(...)
    how, number = ...
  end)
  l:run()
  child:close()
  l:close()
  return text.stdout, text.stderr, how, number
end

local function sh(script, extra)
  local spec = { argv = { "/bin/sh", "-c", script } }
  for key, value in pairs(extra or {}) do
    spec[key] = value
  end
  return run(spec)
end

describe("proc", function()
  it("keeps stdout, stderr and the exit code apart", function()
    local out, err, how, number = sh("echo out; echo err >&2; exit 7")
    assert.same({ "out\n", "err\n", "exit", 7 }, { out, err, how, number })
  end)

  it("reports every exit code", function()
    for code = 0, 255, 51 do
      local _, _, how, number = sh("exit " .. code)
      assert.same({ "exit", code }, { how, number })
    end
  end)

  it("reports the signal that ended it", function()
    local _, _, how, number = sh("kill -TERM $$")
    assert.same({ "signal", 15 }, { how, number })
    assert.equal("TERM", proc.signal_name(15))
    assert.equal(15, proc.signal_number("TERM"))
    assert.same({ "No such file or directory", "ENOENT" }, { proc.error_text(2) })
  end)

  it("passes arguments and variables as they are", function()
    local hostile = { "", " ", "a b", "$(id)", "`id`", "'", '"', "\\", "-n", "a\nb", "\255\1" }
    local argv = { "/bin/sh", "-c", 'for a in "$@"; do printf "%s|" "$a"; done', "sh" }
    for _, word in ipairs(hostile) do
      argv[#argv + 1] = word
    end
    assert.equal(table.concat(hostile, "|") .. "|", (run({ argv = argv })))
    assert.equal("A=1\nB=x y\n", (run({ argv = { "/usr/bin/env" }, env = { "A=1", "B=x y" } })))
  end)

  it("gives an empty environment when told to", function()
    assert.equal("", (run({ argv = { "/usr/bin/env" }, env = {} })))
  end)

  it("writes to stdin and ends it", function()
    local l = assert(loop.new())
    local child = assert(proc.spawn(l, { argv = { "cat" }, stdin = "pipe", stdout = "pipe" }))
    local bytes = {}
    for byte = 0, 255 do
      bytes[#bytes + 1] = string.char(byte)
    end
    local text = table.concat(bytes):rep(4096)
    local got = {}
    child:stdin():write(text)
    child:stdin():finish()
    child:stdout():on_readable(function()
      local part, _, code = child:stdout():read(65536)
      if part then
        got[#got + 1] = part
      elseif code ~= "EAGAIN" then
        child:stdout():on_readable(nil)
      end
    end)
    child:on_exit(function() end)
    l:run()
    assert.is_true(table.concat(got) == text)
    assert.is_nil(child:stderr())
    child:close()
    l:close()
  end)

  it("gives /dev/null unless told otherwise", function()
    local out = sh("readlink /proc/self/fd/0 /proc/self/fd/2", { stderr = "null" })
    assert.equal("/dev/null\n/dev/null\n", out)
  end)

  it("leads a session of its own unless told not to", function()
    local script = "set -- $(cat /proc/self/stat); echo $6"
    local pid, session = (sh("echo $$; " .. script)):match("^(%d+)\n(%d+)")
    assert.equal(pid, session)
    pid, session = (sh("echo $$; " .. script, { session = false })):match("^(%d+)\n(%d+)")
    assert.not_equal(pid, session)
  end)

  it("closes every other descriptor, with and without close_range", function()
    local file = assert(io.open("/dev/null"))
    for _, walk in ipairs({ false, true }) do
      local out = sh("cd /proc/self/fd; echo *", { walk_fds = walk })
      -- 3 is the shell's own handle of the directory that it reads.
      assert.matches("^0 1 2 ?3?\n$", out)
    end
    file:close()
  end)

  it("maps descriptors, also crosswise and onto themselves", function()
    local dir = helper.scratch()
    local open = {}
    for _, name in ipairs({ "a", "b", "c" }) do
      helper.write(dir .. "/" .. name, name)
    end
    -- Descriptors of known numbers come from appenders.
    for i, name in ipairs({ "a", "b", "c" }) do
      open[i] = assert(fs.appender(dir .. "/" .. name, 384))
    end
    local a, b, c = open[1]:fileno(), open[2]:fileno(), open[3]:fileno()
    for _, walk in ipairs({ false, true }) do
      local spec = { fds = { [a] = b, [b] = a, [c] = c, [64] = a }, walk_fds = walk }
      local out = sh(("for f in %d %d %d 64; do readlink /proc/$$/fd/$f; done; "
        .. "cd /proc/$$/fd; echo *"):format(a, b, c), spec)
      local list = ("%s/b\n%s/a\n%s/c\n%s/a\n"):format(dir, dir, dir, dir)
      assert.equal(list, out:sub(1, #list))
      local numbers = {}
      for number in out:sub(#list + 1):gmatch("%d+") do
        numbers[tonumber(number)] = true
      end
      for _, number in ipairs({ a, b, c, 64 }) do
        assert.is_true(numbers[number])
      end
    end
    for _, appender in ipairs(open) do
      appender:close()
    end
  end)

  it("sets the directory, the umask and limits", function()
    local dir = helper.scratch()
    local out = sh("pwd; umask; ulimit -f; ulimit -n; ulimit -c", {
      cwd = dir, umask = 63, rlimits = { fsize = 1024 * 512, nofile = 77, core = 0 },
    })
    assert.equal(dir .. "\n0077\n1024\n77\n0\n", out)
    local _, _, how, number = sh("head -c 2000 /dev/zero > " .. dir .. "/big", {
      rlimits = { fsize = 1000 },
    })
    assert.is_true(how == "signal" and number == 25 or how == "exit" and number == 128 + 25)
    assert.equal(1000, fs.stat(dir .. "/big").size)
  end)

  it("starts with an empty signal mask and nothing ignored", function()
    local out = sh("grep -E 'Sig(Blk|Ign)' /proc/self/status")
    assert.equal("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", out)
  end)

  it("becomes another user where that is permitted, and says so where not", function()
    local spec = { uid = 65534, gid = 65534 }
    local out, msg, code = sh("id -u; id -g; id -G", spec)
    if system.uid() == 0 then
      assert.equal("65534\n65534\n65534\n", out)
    else
      assert.is_nil(out)
      assert.equal("EPERM", code)
      assert.matches("user or group", msg)
    end
  end)

  it("tells why a program could not be executed", function()
    local dir = helper.scratch()
    local function failure(spec)
      local out, msg, code = run(spec)
      assert.is_nil(out)
      return msg, code
    end
    assert.same({ "exec /no/such: No such file or directory", "ENOENT" },
      { failure({ argv = { "/no/such" } }) })
    assert.same({ "exec no-such-program: No such file or directory", "ENOENT" },
      { failure({ argv = { "no-such-program" } }) })
    helper.write(dir .. "/plain", "#!/bin/sh\n")
    assert.same({ "exec " .. dir .. "/plain: Permission denied", "EACCES" },
      { failure({ argv = { dir .. "/plain" } }) })
    helper.write(dir .. "/orphan", "#!/no/such/interpreter\n")
    fs.chmod(dir .. "/orphan", 493)
    local orphan = dir .. "/orphan"
    assert.same({ "exec " .. orphan .. ": its interpreter: No such file or directory", "ENOENT" },
      { failure({ argv = { orphan } }) })
    helper.write(dir .. "/data", "\0\1\2")
    fs.chmod(dir .. "/data", 493)
    assert.equal("ENOEXEC", select(2, failure({ argv = { dir .. "/data" } })))
    assert.same({ "cannot enter directory /no/such: No such file or directory", "ENOENT" },
      { failure({ argv = { "/bin/true" }, cwd = "/no/such" }) })
    assert.equal("EBADF", select(2, failure({ argv = { "/bin/true" }, fds = { [5] = 999 } })))
    assert.equal("E2BIG", select(2, failure({ argv = { "/bin/true", ("x"):rep(200000) } })))
  end)

  it("looks programs up on the child's PATH", function()
    local dir = helper.scratch()
    fs.mkdir(dir .. "/first", 448)
    fs.mkdir(dir .. "/second", 448)
    fs.mkdir(dir .. "/first/tool", 448)
    helper.write(dir .. "/second/tool", "#!/bin/sh\necho $0\n")
    local path = dir .. "/first::.:" .. dir .. "/second"
    assert.equal("EACCES", select(3, run({ argv = { "tool" }, env = { "PATH=" .. path } })))
    assert.equal("EACCES", select(3, proc.which("tool", path)))
    fs.chmod(dir .. "/second/tool", 493)
    assert.equal(dir .. "/second/tool\n", (run({ argv = { "tool" }, env = { "PATH=" .. path } })))
    assert.equal(dir .. "/second/tool", proc.which("tool", path))
    assert.equal("/bin/sh", proc.which("/bin/sh", path))
    assert.equal("ENOENT", select(3, proc.which("tool", "/nowhere")))
    assert.equal("ENOENT", select(3, proc.which("", path)))
    assert.is_nil((proc.which("./tool", path)))
    assert.is_string((proc.which("sh")))
  end)

  it("kills by name and number, the child alone or its group", function()
    local l = assert(loop.new())
    local ways = { { "kill", "KILL", 9 }, { "kill", 15, 15 }, { "kill_group", "INT", 2 } }
    for _, how in ipairs(ways) do
      local child = assert(proc.spawn(l, { argv = { "sleep", "1000" } }))
      assert.is_nil((child:status()))
      local seen
      child:on_exit(function(kind, number)
        seen = { kind, number }
      end)
      assert.is_true(child[how[1]](child, how[2]))
      l:run()
      assert.same({ "signal", how[3] }, seen)
      assert.same({ "signal", how[3] }, { child:status() })
      assert.equal("ESRCH", select(3, child:kill("KILL")))
      assert.equal("ESRCH", select(3, child:kill_group("KILL")))
      child:on_exit(function(kind)
        seen = kind
      end)
      assert.equal("signal", seen)
      child:close()
      child:close()
      assert.has_error(function()
        child:pid()
      end)
    end
    l:close()
  end)

  it("reaps a child whose object was collected, and closes its pipes", function()
    local l = assert(loop.new())
    local before = helper.open_fds()
    -- On a stack of its own, so that no slot of ours still holds the object.
    coroutine.wrap(function()
      assert(proc.spawn(l, { argv = { "cat" }, stdin = "pipe", stdout = "pipe" }))
    end)()
    collectgarbage()
    collectgarbage()
    -- cat ends because its stdin did.
    l:run()
    assert.same({}, helper.children())
    assert.same(before, helper.open_fds())
    l:close()
  end)

  it("leaves nothing behind when it fails", function()
    local l = assert(loop.new())
    local before = helper.open_fds()
    for _ = 1, 20 do
      assert.is_nil((proc.spawn(l, { argv = { "/no/such" }, stdin = "pipe", stdout = "pipe" })))
    end
    assert.same(before, helper.open_fds())
    assert.same(0, l:census().children)
    l:close()
  end)

  it("raises at misuse before anything is started", function()
    local l = assert(loop.new())
    for _, spec in ipairs({
      {}, { argv = {} }, { argv = { 1 } }, { argv = { "a\0b" } }, { argv = { "true" }, typo = 1 },
      { argv = { "true" }, stdin = "pip" }, { argv = { "true" }, stdin = -5 },
      { argv = { "true" }, fds = { [1] = 1 } }, { argv = { "true" }, rlimits = { fize = 1 } },
      { argv = { "true" }, rlimits = { fsize = "1" } }, { argv = { "true" }, umask = -1 },
      { argv = { "true" }, env = { A = 1 }, cwd = {} }, { argv = { "true" }, env = "A=1" },
    }) do
      assert.has_error(function()
        proc.spawn(l, spec)
      end)
    end
    assert.has_error(function()
      proc.spawn(nil, { argv = { "true" } })
    end)
    l:close()
  end)

  it("runs many at once", function()
    local l = assert(loop.new())
    local ended = 0
    for i = 1, 100 do
      local child = assert(proc.spawn(l, { argv = { "/bin/sh", "-c", "exit " .. i } }))
      child:on_exit(function(_, number)
        assert(number == i)
        ended = ended + 1
        child:close()
      end)
    end
    l:run()
    assert.equal(100, ended)
    l:close()
  end)
end)
