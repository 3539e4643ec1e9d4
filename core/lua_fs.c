// SPDX-License-Identifier: MIT
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "fs.h"
#include "modules.h"

#define APPENDER "farcall.appender"
#define LOCK "farcall.fs.lock"
#define SCRATCH "farcall.fs.scratch"

enum { MODE_MAX = 07777 };
static const double FILE_SIZE_MAX = 9007199254740991.0; // the integers that a number holds exactly

struct appender {
  int fd; // owned; -1 when closed
};

struct lock {
  int fd; // owned; -1 when let go
};

// Memory from malloc that is freed even if Lua raises an error before we get to it.
struct scratch {
  void *memory;
};

static int scratch_gc(lua_State *L) {
  struct scratch *scratch = luaL_checkudata(L, 1, SCRATCH);
  free(scratch->memory);
  scratch->memory = NULL;
  return 0;
}

static struct scratch *new_scratch(lua_State *L) {
  struct scratch *scratch = lua_newuserdata(L, sizeof *scratch);
  scratch->memory = NULL;
  luaL_getmetatable(L, SCRATCH);
  lua_setmetatable(L, -2);
  return scratch;
}

static void release(struct scratch *scratch) {
  free(scratch->memory);
  scratch->memory = NULL;
}

static mode_t check_mode(lua_State *L, int index) {
  lua_Integer mode = luaL_checkinteger(L, index);
  luaL_argcheck(L, mode >= 0 && mode <= MODE_MAX, index, "not a file mode");
  return (mode_t)mode;
}

static int outcome(lua_State *L, int code, const char *path) {
  if (code != 0) {
    return bind_fail(L, code, path);
  }
  lua_pushboolean(L, true);
  return 1;
}

static int system_outcome(lua_State *L, int returned, const char *path) {
  return outcome(L, returned != 0 ? -errno : 0, path);
}

// fs.mkdtemp(prefix) -> path: a new directory PREFIXxxxxxx that only this user can enter
static int lua_fs_mkdtemp(lua_State *L) {
  const char *prefix = luaL_checkstring(L, 1);
  lua_pushfstring(L, "%sXXXXXX", prefix);
  struct scratch *scratch = new_scratch(L);
  char *path = strdup(lua_tostring(L, -2));
  scratch->memory = path;
  if (path == NULL || mkdtemp(path) == NULL) {
    return bind_fail(L, path == NULL ? -ENOMEM : -errno, prefix);
  }
  lua_pushstring(L, path);
  release(scratch);
  return 1;
}

// fs.mkdir(path, mode[, parents])
static int lua_fs_mkdir(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mode_t mode = check_mode(L, 2);
  return outcome(L, fs_mkdir(path, mode, lua_toboolean(L, 3)), path);
}

// fs.list(dir) -> {name, ...}, in no order
static int lua_fs_list(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct scratch *scratch = new_scratch(L);
  char *names = NULL;
  size_t size = 0;
  int code = fs_list(path, &names, &size);
  scratch->memory = names;
  if (code != 0) {
    return bind_fail(L, code, path);
  }
  lua_newtable(L);
  int n = 0;
  for (const char *name = names; name < names + size; name += strlen(name) + 1) {
    lua_pushstring(L, name);
    lua_rawseti(L, -2, ++n);
  }
  release(scratch);
  return 1;
}

static const char *type_name(mode_t mode) {
  switch (mode & S_IFMT) {
  case S_IFREG:
    return "file";
  case S_IFDIR:
    return "directory";
  case S_IFLNK:
    return "link";
  case S_IFIFO:
    return "fifo";
  case S_IFSOCK:
    return "socket";
  default:
    return "device";
  }
}

static void set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

// fs.stat(path[, nofollow]) -> {type, size, mode, uid, gid, mtime, ino}
static int lua_fs_stat(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct stat st;
  if ((lua_toboolean(L, 2) ? lstat(path, &st) : stat(path, &st)) != 0) {
    return bind_fail(L, -errno, path);
  }
  lua_createtable(L, 0, 7);
  lua_pushstring(L, type_name(st.st_mode));
  lua_setfield(L, -2, "type");
  set_number(L, "size", (double)st.st_size);
  set_number(L, "mode", st.st_mode & MODE_MAX);
  set_number(L, "uid", st.st_uid);
  set_number(L, "gid", st.st_gid);
  set_number(L, "mtime", (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9);
  set_number(L, "ino", (double)st.st_ino);
  return 1;
}

static int lua_fs_unlink(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  return system_outcome(L, unlink(path), path);
}

static int lua_fs_rmdir(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  return system_outcome(L, rmdir(path), path);
}

static int lua_fs_rename(lua_State *L) {
  const char *from = luaL_checkstring(L, 1);
  const char *to = luaL_checkstring(L, 2);
  return system_outcome(L, rename(from, to), from);
}

static int lua_fs_chmod(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mode_t mode = check_mode(L, 2);
  return system_outcome(L, chmod(path, mode), path);
}

// fs.truncate(path, size): the file ends there
static int lua_fs_truncate(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  double size = luaL_checknumber(L, 2);
  luaL_argcheck(L, size >= 0 && size <= FILE_SIZE_MAX, 2, "not a size");
  return system_outcome(L, truncate(path, (off_t)size), path);
}

// fs.rmtree(path): success also when there is nothing
static int lua_fs_rmtree(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  return outcome(L, fs_rmtree(path), path);
}

static int lua_fs_realpath(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct scratch *scratch = new_scratch(L);
  char *real = realpath(path, NULL);
  scratch->memory = real;
  if (real == NULL) {
    return bind_fail(L, -errno, path);
  }
  lua_pushstring(L, real);
  release(scratch);
  return 1;
}

static int lua_fs_readlink(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  char target[PATH_MAX]; // the kernel has no longer ones
  ssize_t size = readlink(path, target, sizeof target);
  if (size < 0) {
    return bind_fail(L, -errno, path);
  }
  lua_pushlstring(L, target, (size_t)size);
  return 1;
}

// fs.read(path, max) -> bytes: the whole of a regular file, LIMIT if it has more than max bytes
static int lua_fs_read(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  double max = luaL_checknumber(L, 2);
  luaL_argcheck(L, max >= 0 && max < FILE_SIZE_MAX, 2, "not a size");
  struct scratch *scratch = new_scratch(L);
  struct fs_bytes read = {0};
  int code = fs_read(path, 0, (size_t)max + 1, &read);
  scratch->memory = read.bytes;
  if (code == 0 && read.size > (size_t)max) {
    code = ERR_LIMIT;
  }
  if (code != 0) {
    return bind_fail(L, code, path);
  }
  lua_pushlstring(L, read.bytes, read.size);
  release(scratch);
  return 1;
}

// fs.appender(path, mode) -> appender
static int lua_fs_appender(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mode_t mode = check_mode(L, 2);
  struct appender *appender = lua_newuserdata(L, sizeof *appender);
  appender->fd = -1;
  luaL_getmetatable(L, APPENDER);
  lua_setmetatable(L, -2);
  int fd = fs_append_open(path, mode);
  if (fd < 0) {
    return bind_fail(L, fd, path);
  }
  appender->fd = fd;
  return 1;
}

// appender:write(bytes): exactly one write(2); PARTIAL if only a part went in
static int appender_write(lua_State *L) {
  const struct appender *appender = luaL_checkudata(L, 1, APPENDER);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int code = appender->fd < 0 ? ERR_CLOSED : fs_append(appender->fd, bytes, size);
  return outcome(L, code, "append");
}

static int appender_fileno(lua_State *L) {
  const struct appender *appender = luaL_checkudata(L, 1, APPENDER);
  if (appender->fd < 0) {
    return bind_fail(L, ERR_CLOSED, NULL);
  }
  lua_pushinteger(L, appender->fd);
  return 1;
}

static int appender_close(lua_State *L) {
  struct appender *appender = luaL_checkudata(L, 1, APPENDER);
  if (appender->fd >= 0) {
    close(appender->fd);
    appender->fd = -1;
  }
  return 0;
}

// fs.lock(path, mode) -> lock; EAGAIN while another holds it
static int lua_fs_lock(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mode_t mode = check_mode(L, 2);
  struct lock *lock = lua_newuserdata(L, sizeof *lock);
  lock->fd = -1;
  luaL_getmetatable(L, LOCK);
  lua_setmetatable(L, -2);
  int fd = fs_lock(path, mode);
  if (fd < 0) {
    return bind_fail(L, fd, path);
  }
  lock->fd = fd;
  return 1;
}

static int lock_close(lua_State *L) {
  struct lock *lock = luaL_checkudata(L, 1, LOCK);
  if (lock->fd >= 0) {
    close(lock->fd);
    lock->fd = -1;
  }
  return 0;
}

int luaopen_farcall_core_fs(lua_State *L) {
  static const luaL_Reg appender[] = {
      {"write", appender_write},
      {"fileno", appender_fileno},
      {"close", appender_close},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = {
      {"mkdtemp", lua_fs_mkdtemp},   {"mkdir", lua_fs_mkdir},
      {"list", lua_fs_list},         {"stat", lua_fs_stat},
      {"unlink", lua_fs_unlink},     {"rmdir", lua_fs_rmdir},
      {"rename", lua_fs_rename},     {"chmod", lua_fs_chmod},
      {"rmtree", lua_fs_rmtree},     {"realpath", lua_fs_realpath},
      {"readlink", lua_fs_readlink}, {"read", lua_fs_read},
      {"appender", lua_fs_appender}, {"lock", lua_fs_lock},
      {"truncate", lua_fs_truncate}, {NULL, NULL},
  };
  static const luaL_Reg lock[] = {{"close", lock_close}, {NULL, NULL}};
  static const luaL_Reg none[] = {{NULL, NULL}};
  bind_type(L, APPENDER, appender, appender_close);
  bind_type(L, LOCK, lock, lock_close);
  bind_type(L, SCRATCH, none, scratch_gc);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
