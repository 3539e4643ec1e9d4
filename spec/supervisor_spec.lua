-- SPDX-License-Identifier: MIT
-- Each way in which a script's tree may have to be killed, at each level that is to be had here. A
-- test first proves that what is to be killed was alive.
local build = require("spec.support.build")
local fs = require("farcall.core.fs")
local helper = require("spec.helper")
local marked = require("spec.support.marked")
local proc = require("farcall.core.proc")
local sock = require("farcall.core.sock")
local system = require("farcall.core.system")
local task = require("farcall.task")

local SUPERVISOR = assert(fs.realpath(build.dir)) .. "/farcall-supervisor"
local GRACE_MS = 200

local function hex(bytes)
  return (bytes:gsub(".", function(char)
    return ("%02x"):format(char:byte())
  end))
end

-- Every group that a supervisor may have left, in all hierarchies.
---@return table<string, true> paths
local function left_groups()
  local pipe = io.popen("find /sys/fs/cgroup -type d -name 'farcall-*' 2>/dev/null")
  local groups = {}
  for path in pipe:lines() do
    groups[path] = true
  end
  pipe:close()
  return groups
end

local Run = {}
Run.__index = Run

local function start(level, argv, extra, first)
  local run = setmetatable({ mark = "mark" .. hex(system.random(8)), lines = {}, said = {} }, Run)
  local control, fd = assert(sock.pair(task.loop()))
  local words = {
    SUPERVISOR, "--control", "3", "--level", level, "--grace-ms", tostring(GRACE_MS),
  }
  for _, word in ipairs(extra or {}) do
    words[#words + 1] = word
  end
  words[#words + 1] = "--"
  for _, word in ipairs(type(argv) == "table" and argv or { "/bin/sh", "-c", argv }) do
    words[#words + 1] = word
  end
  run.control = control
  run.child = assert(proc.spawn(task.loop(), {
    argv = words, env = { "PATH=/usr/bin:/bin", "MARK=" .. run.mark }, stdout = "pipe",
    fds = { [3] = fd },
  }))
  proc.close_fd(fd)
  if first then
    control:write(first)
  end
  run.child:on_exit(function()
    run.reaped = true
  end)
  return run
end

-- Reads what the supervisor has said; true when it is over.
function Run:over()
  while not self.silent do
    local line, _, code = self.control:readline(300)
    if not line then
      self.silent = code ~= "EAGAIN"
      break
    end
    self.lines[#self.lines + 1] = line
    self.said[line:match("^%S+")] = true
  end
  return self.silent and self.reaped
end

-- Waits until it is over and returns all lines but the pid's.
function Run:finish()
  assert.is_truthy(helper.eventually(function()
    return self:over()
  end, 30))
  self.child:close()
  self.control:close()
  local lines = {}
  for _, line in ipairs(self.lines) do
    if not line:find("^started") then
      lines[#lines + 1] = line
    end
  end
  return lines
end

-- Waits until at least so many processes of the script run.
function Run:alive(count)
  local seen
  assert(helper.eventually(function()
    seen = #marked(self.mark)
    self:over()
    return self.said.started and seen >= count
  end, 30), ("only %d of %d processes came up"):format(seen, count))
end

function Run:gone(seconds)
  return helper.eventually(function()
    self:over()
    return #marked(self.mark) == 0
  end, seconds)
end

-- Leaves processes behind in every way that there is. {script, processes that it must reach}
local TREES = {
  ["children and grandchildren"] = { "sleep 1000 & (sleep 1000 & sleep 1000) & wait", 4 },
  ["sessions of their own"] = { "setsid sleep 1000 & setsid sh -c 'sleep 1000 & wait' & wait", 4 },
  ["daemons that forked twice"] = {
    "(setsid sh -c '(setsid sleep 1000 </dev/null >/dev/null 2>&1 &) & exit' &); "
      .. "(setsid sleep 1000 &); exec sleep 1000", 3,
  },
  ["who ignores TERM"] = {
    "trap '' TERM; (trap '' TERM INT HUP; while :; do sleep 0.1; done) & "
      .. "setsid sh -c \"trap '' TERM; while :; do sleep 0.1; done\" & "
      .. "while :; do sleep 0.1; done", 3,
  },
  ["who is stopped"] = { "sh -c 'kill -STOP $$' & sleep 1000", 2 },
  -- Always as many, never the same ones: each lives a moment and leaves a child. (Never a real
  -- bomb: it would take the machine with it that runs the specs.)
  ["who runs away by forking"] = {
    "trap '' TERM; r() { sleep 0.02; (r) & exit; }; i=0; while [ $i -lt 20 ]; do i=$((i + 1)); "
      .. "(r) & done; while :; do sleep 1; done", 21,
  },
  ["a storm of forks"] = {
    "trap '' TERM; i=0; while [ $i -lt 200 ]; do i=$((i + 1)); "
      .. "( (while :; do sleep 0.05; done) & ) done; while :; do sleep 1; done", 200,
  },
}

local function can(level)
  local lines
  task.run(function()
    local run = start(level, { "true" })
    lines = table.concat(run:finish(), ";")
  end)
  return lines == ("level %s;exited 0;gone"):format(level)
end

local function has_admin()
  local status = helper.read("/proc/self/status")
  local mask = status:match("CapEff:%s*(%x+)")
  -- CAP_SYS_ADMIN is bit 21.
  return math.floor(tonumber(mask:sub(-6), 16) / 2 ^ 21) % 2 == 1
end

describe("supervisor", function()
  local groups_before = left_groups()
  local levels = {}
  for _, level in ipairs({ "pidns", "cgroup", "subreaper" }) do
    if can(level) then
      levels[#levels + 1] = level
    end
  end

  it("always has the level subreaper, and pidns where permitted", function()
    assert.equal("subreaper", levels[#levels])
    assert.equal(has_admin(), levels[1] == "pidns")
  end)

  it("takes the surest level that is to be had", helper.task(function()
    local run = start("auto", { "true" })
    assert.same({ "level " .. levels[1], "exited 0", "gone" }, run:finish())
  end))

  it("refuses a level that is not to be had, rather than take another one", helper.task(function()
    if not has_admin() then
      local run = start("pidns", { "true" })
      local lines = run:finish()
      assert.matches("^exec%-failed level", lines[1])
      assert.equal("gone", lines[2])
    end
  end))

  it("takes variables and words from the socket and enters a directory", helper.task(function()
    local variables = "A=1 2\n$(id)\0PATH=/usr/bin:/bin\0B=\0BIG=" .. ("x"):rep(100000) .. "\0"
    local script = [[test "$A" = "1 2
$(printf '$(id)')" && test "${B-no}" = "" && test ${#BIG} = 100000 && test "$PWD" = /usr]]
    local extra = { "--environ", tostring(#variables), "--cwd", "/usr" }
    local run = start("subreaper", script, extra, variables)
    assert.same({ "level subreaper", "exited 0", "gone" }, run:finish())
    local words = "test\0\255\1 a\0=\0\255\1 a\0"
    extra = { "--environ", "4", "--words", tostring(#words) }
    run = start("subreaper", {}, extra, "A=1\0" .. words)
    assert.same({ "level subreaper", "exited 0", "gone" }, run:finish())
    run = start("subreaper", { "true" }, { "--cwd", "/no/such" })
    assert.same({ "level subreaper", "exec-failed cwd 2", "gone" }, run:finish())
    -- An engine that dies before it has said all of them.
    run = start("subreaper", { "true" }, { "--environ", "100" }, "A=1\0")
    run.control:finish()
    assert.same({}, run:finish())
  end))

  it("says what is wrong with its own options", helper.task(function()
    for _, words in ipairs({
      {}, { "--control", "3" }, { "--control", "3", "--" }, { "--control", "x", "--", "true" },
      { "--control", "9", "--", "true" }, { "--level", "best", "--", "true" },
      { "--rlimit", "fsize", "--", "true" }, { "--rlimit", "fize=1", "--", "true" },
      { "--grace-ms", "-1", "--", "true" }, { "--control", "2", "--words", "5", "--", "true" },
      { "--what", "1", "--", "true" },
    }) do
      local status
      local child = assert(proc.spawn(task.loop(), {
        argv = { SUPERVISOR, unpack(words) }, stderr = "pipe",
      }))
      child:on_exit(function(how, number)
        status = { how, number }
      end)
      assert.is_truthy(helper.eventually(function()
        return status
      end))
      assert.same({ "exit", 2 }, status)
      assert.matches("^usage:", child:stderr():read(1000))
      child:close()
    end
  end))

  for _, level in ipairs(levels) do
    describe(level, function()
      local function over(...)
        return { "level " .. level, ... }
      end

      it("tells exit codes and signals exactly", helper.task(function()
        for _, code in ipairs({ 0, 1, 127, 128, 137, 255 }) do
          assert.same(over("exited " .. code, "gone"), start(level, "exit " .. code):finish())
        end
        for _, number in ipairs({ 9, 11, 15, 1, 2 }) do
          assert.same(over("signalled " .. number, "gone"),
            start(level, ("kill -%d $$"):format(number)):finish())
        end
      end))

      it("tells why a program could not be executed", helper.task(function()
        local dir = helper.scratch()
        helper.write(dir .. "/plain", "")
        assert.same(over("exec-failed exec 2", "gone"),
          start(level, { "/no/such" }):finish())
        assert.same(over("exec-failed exec 13", "gone"),
          start(level, { dir .. "/plain" }):finish())
      end))

      it("gives the script a session and neither signals nor files of ours", helper.task(function()
        local run = start(level, "set -- $(cat /proc/self/stat); [ $6 = $$ ] && echo own; "
          .. "grep '^SigBlk' /proc/self/status; grep '^SigIgn' /proc/self/status; "
          .. "cd /proc/self/fd; echo *; pwd -P >/dev/null; readlink 0; exec sleep 1000")
        local text = ""
        helper.eventually(function()
          text = text .. (run.child:stdout():read(1000) or "")
          return text:find("null")
        end)
        -- 3 is the shell's own handle of the directory that it reads.
        assert.matches("^own\nSigBlk:\t0+\nSigIgn:\t0+\n0 1 2 ?3?\n/dev/null\n$", text)
        run.control:write("kill 0\n")
        run:finish()
      end))

      it("limits the script, not itself", helper.task(function()
        local dir = helper.scratch()
        local run = start(level, { "head", "-c", "2000", "/dev/zero" },
          { "--rlimit", "fsize=1000", "--rlimit", "nofile=20" })
        assert.same(over("exited 0", "gone"), run:finish())
        run = start(level, "exec head -c 2000 /dev/zero > " .. dir .. "/big",
          { "--rlimit", "fsize=1000" })
        assert.same(over("signalled 25", "gone"), run:finish())
        assert.equal(1000, fs.stat(dir .. "/big").size)
      end))

      it("ends a script at its deadline", helper.task(function()
        local run = start(level, "exec sleep 1000", { "--deadline-ms", "100" })
        assert.same(over("deadline", "signalled 15", "gone"), run:finish())
      end))

      it("passes a signal to the script's group", helper.task(function()
        local run = start(level, "trap 'exit 5' INT; echo; while :; do sleep 0.05; done")
        run:alive(2)
        helper.eventually(function()
          return run.child:stdout():read(10)
        end)
        run.control:write("signal 2\n")
        assert.same(over("exited 5", "gone"), run:finish())
      end))

      it("lets the script end in its own way after TERM", helper.task(function()
        local run = start(level, "trap 'exit 6' TERM; echo; while :; do sleep 0.05; done")
        helper.eventually(function()
          return run.child:stdout():read(10)
        end)
        run.control:write("kill\n")
        assert.same(over("exited 6", "gone"), run:finish())
      end))

      it("kills what the main process left running", helper.task(function()
        local run = start(level, "(setsid sleep 1000 &); sleep 1000 & (trap '' TERM; sleep 1000) & "
          .. "exit 3", { "--linger-ms", "300" })
        run:alive(3)
        assert.same(over("exited 3", "gone"), run:finish())
        assert.is_true(run:gone())
      end))

      it("lets the end of a pipeline finish its work", helper.task(function()
        local dir = helper.scratch()
        local run = start(level, ("(sleep 0.1; echo late > %s/late) & exit 0"):format(dir),
          { "--linger-ms", "5000" })
        assert.same(over("exited 0", "gone"), run:finish())
        assert.equal("late\n", helper.read(dir .. "/late"))
      end))

      for name, tree in pairs(TREES) do
        it("kills " .. name .. " when told to", helper.task(function()
          local run = start(level, tree[1])
          run:alive(tree[2])
          run.control:write("kill\n")
          local lines = run:finish()
          assert.equal("gone", lines[#lines])
          assert.matches("^signalled ", lines[#lines - 1])
          assert.same({}, marked(run.mark))
        end))

        it("kills " .. name .. " when the engine dies", helper.task(function()
          local run = start(level, tree[1])
          run:alive(tree[2])
          run.control:close()
          run.silent = true
          assert.is_true(run:gone(5))
          run:finish()
        end))

        it("kills " .. name .. " when the supervisor is killed", helper.task(function()
          local run = start(level, tree[1])
          run:alive(tree[2])
          run.child:kill("KILL")
          assert.is_true(run:gone(5))
          run:finish()
        end))

        it("kills " .. name .. " when the inner supervisor is killed", helper.task(function()
          local run = start(level, tree[1])
          run:alive(tree[2])
          local inner = helper.children(run.child:pid())
          assert.equal(1, #inner)
          os.execute("kill -9 " .. inner[1])
          assert.is_true(run:gone(5))
          local lines = run:finish()
          assert.equal("gone", lines[#lines])
        end))
      end

      it("leaves no control group", helper.task(function()
        -- Others may have some just now, which go by themselves.
        local new = left_groups()
        assert.is_true(helper.eventually(function()
          for path in pairs(new) do
            new[path] = not groups_before[path] and fs.stat(path) and true or nil
          end
          return next(new) == nil
        end, 60))
      end))
    end)
  end

  it("kills the tree when the engine is killed", helper.task(function()
    local dir = helper.scratch()
    local mark = "mark" .. hex(system.random(8))
    helper.write(dir .. "/engine.lua", ([[
      package.path = %q
      local backend = require("farcall.backends.local")
      require("farcall.task").run(function()
        local env = assert(backend.open({ tree = "auto", grace = 2, shell = "/bin/sh" },
          { environ = { PATH = "/usr/bin:/bin" }, supervisor = %q }))
        local process = assert(env:start({ env = { MARK = %q }, command =
          "trap '' TERM; (trap '' TERM; setsid sleep 1000 &); while :; do sleep 0.1; done" }))
        process:read(10)
      end)
    ]]):format(package.path:gsub("%./", system.cwd() .. "/"), SUPERVISOR, mark))
    local engine = assert(proc.spawn(task.loop(), {
      argv = { system.exe(), dir .. "/engine.lua" }, stderr = "inherit",
    }))
    local reaped
    engine:on_exit(function()
      reaped = true
    end)
    assert.is_truthy(helper.eventually(function()
      return #marked(mark) >= 3 or reaped
    end))
    assert.is_nil(reaped)
    engine:kill("KILL")
    assert.is_true(helper.eventually(function()
      return #marked(mark) == 0 and reaped
    end))
    engine:close()
  end))
end)
