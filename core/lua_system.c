// SPDX-License-Identifier: MIT
// farcall.core.system: facts about this process and its machine. Nothing here waits.

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"
#include "err.h"
#include "modules.h"

#define MAX_RANDOM 65536

static int l_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

// The effective ones: they decide what is permitted.
static int l_uid(lua_State *L) {
  lua_pushnumber(L, geteuid());
  return 1;
}

static int l_gid(lua_State *L) {
  lua_pushnumber(L, getegid());
  return 1;
}

static int l_hostname(lua_State *L) {
  char name[HOST_NAME_MAX + 1];
  if (gethostname(name, sizeof name) != 0) {
    return bind_fail(L, -errno, "hostname");
  }
  name[sizeof name - 1] = '\0';
  lua_pushstring(L, name);
  return 1;
}

// random(n): n unpredictable bytes, 1 to 65536.
static int l_random(lua_State *L) {
  lua_Integer size = luaL_checkinteger(L, 1);
  luaL_argcheck(L, size >= 1 && size <= MAX_RANDOM, 1, "expected 1 to 65536");
  char *bytes = lua_newuserdata(L, (size_t)size);
  for (size_t done = 0; done < (size_t)size;) {
    ssize_t got = getrandom(bytes + done, (size_t)size - done, 0);
    if (got < 0 && errno != EINTR) {
      return bind_fail(L, -errno, "random");
    }
    done += got > 0 ? (size_t)got : 0;
  }
  lua_pushlstring(L, bytes, (size_t)size);
  return 1;
}

static int l_time(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  return 1;
}

static int l_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

// A copy of the environment. Of a name that is there twice the first counts, as with getenv.
static int l_environ(lua_State *L) {
  lua_newtable(L);
  for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
    const char *equals = strchr(*entry, '=');
    if (equals == NULL) {
      continue;
    }
    lua_pushlstring(L, *entry, (size_t)(equals - *entry));
    lua_pushvalue(L, -1);
    lua_rawget(L, -3);
    bool seen = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (seen) {
      lua_pop(L, 1);
      continue;
    }
    lua_pushstring(L, equals + 1);
    lua_rawset(L, -3);
  }
  return 1;
}

// The path of the program that runs now.
static int l_exe(lua_State *L) {
  char path[PATH_MAX];
  ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size < 0) {
    return bind_fail(L, -errno, "/proc/self/exe");
  }
  lua_pushlstring(L, path, (size_t)size);
  return 1;
}

static int l_cwd(lua_State *L) {
  char path[PATH_MAX];
  if (getcwd(path, sizeof path) == NULL) {
    return bind_fail(L, -errno, "working directory");
  }
  lua_pushstring(L, path);
  return 1;
}

// How many processors this process may use.
static int l_cores(lua_State *L) {
  cpu_set_t set;
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  // More processors than the set has room for.
  lua_pushnumber(L, count > 0 ? count : (lua_Number)sysconf(_SC_NPROCESSORS_ONLN));
  return 1;
}

// No core dumps, and other processes of the same user can neither attach nor read our environment.
static int l_set_nondumpable(lua_State *L) {
  if (prctl(PR_SET_DUMPABLE, 0) != 0) {
    return bind_fail(L, -errno, "prctl");
  }
  lua_pushboolean(L, 1);
  return 1;
}

// write(fd, bytes): all of them, however long it takes: for the command line's own output.
static int l_write(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  while (size > 0) {
    ssize_t done = write(fd, bytes, size);
    if (done < 0 && errno == EAGAIN) {
      // Somebody made it non-blocking for all who share it.
      fd_set set;
      FD_ZERO(&set);
      if (fd >= FD_SETSIZE) {
        return bind_fail(L, -EAGAIN, "write");
      }
      FD_SET(fd, &set);
      select(fd + 1, NULL, &set, NULL, NULL);
    } else if (done < 0 && errno != EINTR) {
      return bind_fail(L, -errno, "write");
    }
    size -= done > 0 ? (size_t)done : 0;
    bytes += done > 0 ? done : 0;
  }
  lua_pushboolean(L, 1);
  return 1;
}

// winsize(fd): columns and rows of a terminal.
static int l_winsize(lua_State *L) {
  struct winsize size;
  if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) != 0) {
    return bind_fail(L, -errno, "window size");
  }
  lua_pushinteger(L, size.ws_col);
  lua_pushinteger(L, size.ws_row);
  return 2;
}

static int l_rss_bytes(lua_State *L) {
  FILE *file = fopen("/proc/self/statm", "re");
  if (file == NULL) {
    return bind_fail(L, -errno, "/proc/self/statm");
  }
  char line[128] = "";
  const char *got = fgets(line, sizeof line, file);
  fclose(file);
  char *rest = line;
  strtoull(line, &rest, 10);
  unsigned long long pages = strtoull(rest, NULL, 10);
  if (got == NULL || pages == 0) {
    return bind_fail(L, ERR_SYNTAX, "/proc/self/statm");
  }
  lua_pushnumber(L, (lua_Number)pages * (lua_Number)sysconf(_SC_PAGESIZE));
  return 1;
}

int luaopen_farcall_core_system(lua_State *L) {
  static const luaL_Reg FUNCTIONS[] = {
      {"pid", l_pid},
      {"uid", l_uid},
      {"gid", l_gid},
      {"hostname", l_hostname},
      {"random", l_random},
      {"time", l_time},
      {"isatty", l_isatty},
      {"environ", l_environ},
      {"exe", l_exe},
      {"cwd", l_cwd},
      {"cores", l_cores},
      {"set_nondumpable", l_set_nondumpable},
      {"write", l_write},
      {"winsize", l_winsize},
      {"rss_bytes", l_rss_bytes},
      {NULL, NULL},
  };
  lua_newtable(L);
  luaL_setfuncs(L, FUNCTIONS, 0);
  return 1;
}
