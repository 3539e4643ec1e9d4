-- SPDX-License-Identifier: MIT
-- Children for the specs that kill: forked from the spec host, so that they can run what the spec
-- closes over. Linux only, like everything here.

local ffi = require("ffi")

ffi.cdef([[
  int fork(void);
  int waitpid(int pid, int *status, int options);
  int kill(int pid, int signal);
  int raise(int signal);
  void _exit(int code);
  int usleep(unsigned microseconds);
  long ptrace(int request, int pid, void *address, void *data);
  struct spec_rlimit { unsigned long soft, hard; };
  int setrlimit(int what, const struct spec_rlimit *limit);
  int mkfifo(const char *path, unsigned mode);
  int mkdirat(int dir, const char *path, unsigned mode);
  int openat(int dir, const char *path, int flags, ...);
  int symlink(const char *target, const char *path);
  int close(int fd);
  unsigned umask(unsigned mask);
]])

local C = ffi.C
local child = {}

local PTRACE_TRACEME, PTRACE_SYSCALL = 0, 24
local SIGSTOP, SIGKILL = 19, 9
local RLIMIT_FSIZE = 1

local status = ffi.new("int[1]")

local function wait(pid)
  assert(C.waitpid(pid, status, 0) == pid)
  local value = status[0]
  local low = bit.band(value, 0x7F)
  if low == 0x7F then
    return "stopped", bit.rshift(value, 8)
  elseif low == 0 then
    return "exit", bit.band(bit.rshift(value, 8), 0xFF)
  end
  return "signal", low
end

---Forks; fn runs in the child, whose exit code is fn's number or 0, or 99 if fn raises.
function child.start(fn)
  io.stdout:flush()
  local pid = C.fork()
  assert(pid >= 0)
  if pid == 0 then
    local ok, code = pcall(fn)
    if not ok then
      io.stderr:write(tostring(code), "\n")
    end
    C._exit(ok and tonumber(code) or not ok and 99 or 0)
  end
  return pid
end

---Runs fn in a child to its end: "exit", code or "signal", number.
function child.run(fn)
  return wait(child.start(fn))
end

---A child that has ended and is still there, until child.reap(pid).
function child.zombie()
  local pid = child.start(function() end)
  local state
  repeat
    C.usleep(1000)
    local file = assert(io.open(("/proc/%d/stat"):format(pid)))
    state = file:read("*a")
    file:close()
  until state:find(") Z", 1, true)
  return pid
end

child.reap = wait

---Runs fn in a child that is killed after so many microseconds.
function child.kill_after(us, fn)
  local pid = child.start(fn)
  C.usleep(us)
  C.kill(pid, SIGKILL)
  return wait(pid)
end

---Runs fn in a child that is killed at its n-th stop at a system call, once before and once after
---each call. Returns true when it came to its end first.
function child.kill_at(n, fn)
  local pid = child.start(function()
    C.ptrace(PTRACE_TRACEME, 0, nil, nil)
    C.raise(SIGSTOP)
    return fn()
  end)
  local how, what = wait(pid)
  assert(how == "stopped" and what == SIGSTOP)
  for _ = 1, n do
    C.ptrace(PTRACE_SYSCALL, pid, nil, nil)
    how, what = wait(pid)
    if how ~= "stopped" then
      assert(how == "exit" and what == 0)
      return true
    end
  end
  C.kill(pid, SIGKILL)
  assert(wait(pid) == "signal")
  return false
end

---In a child: no file may grow beyond so many bytes.
function child.limit_file_size(bytes)
  assert(C.setrlimit(RLIMIT_FSIZE, ffi.new("struct spec_rlimit", bytes, bytes)) == 0)
end

return child
