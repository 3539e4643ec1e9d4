// SPDX-License-Identifier: MIT
#include "lua_proc_spec.h"

#include <lauxlib.h>
#include <limits.h>
#include <string.h>

#include "bind.h"

const char *const lua_proc_streams[3] = {"stdin", "stdout", "stderr"};

static const char *const SPEC_KEYS[] = {
    "argv",  "env", "cwd", "stdin",   "stdout",  "stderr", "fds",      "session",
    "umask", "uid", "gid", "rlimits", "max_out", "max_in", "walk_fds", NULL};

// Scratch memory is userdata on the stack, so that an error cannot leak it.
static char **string_list(lua_State *L, int table, const char *what) {
  size_t count = lua_objlen(L, table);
  char **list = lua_newuserdata(L, (count + 1) * sizeof *list);
  for (size_t i = 0; i < count; i++) {
    size_t length;
    lua_rawgeti(L, table, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
      luaL_error(L, "%s[%d]: expected a string, got %s", what, (int)i + 1, luaL_typename(L, -1));
    }
    // The table keeps the string alive.
    list[i] = (char *)lua_tolstring(L, -1, &length);
    if (strlen(list[i]) != length) {
      luaL_error(L, "%s[%d]: has a NUL byte", what, (int)i + 1);
    }
    lua_pop(L, 1);
  }
  list[count] = NULL;
  return list;
}

static lua_Integer number_field(lua_State *L, const char *name, lua_Integer absent) {
  lua_getfield(L, 2, name);
  lua_Number value = lua_isnil(L, -1) ? (lua_Number)absent : lua_tonumber(L, -1);
  if (!lua_isnil(L, -1) &&
      (lua_type(L, -1) != LUA_TNUMBER || !(value >= 0 && value <= (lua_Number)UINT_MAX))) {
    luaL_error(L, "%s: expected a number that is not negative", name);
  }
  lua_pop(L, 1);
  return (lua_Integer)value;
}

static bool bool_field(lua_State *L, const char *name, bool absent) {
  lua_getfield(L, 2, name);
  bool value = lua_isnil(L, -1) ? absent : lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int stdio_field(lua_State *L, const char *name) {
  int value = PROC_NULL;
  lua_getfield(L, 2, name);
  if (lua_type(L, -1) == LUA_TNUMBER) {
    value = (int)lua_tointeger(L, -1);
    luaL_argcheck(L, value >= 0, 2, "a descriptor is not negative");
  } else if (!lua_isnil(L, -1)) {
    const char *word = lua_tostring(L, -1);
    if (word != NULL && strcmp(word, "pipe") == 0) {
      value = PROC_PIPE;
    } else if (word != NULL && strcmp(word, "inherit") == 0) {
      value = PROC_INHERIT;
    } else if (word == NULL || strcmp(word, "null") != 0) {
      luaL_error(L, "%s: expected pipe, null, inherit or a descriptor", name);
    }
  }
  lua_pop(L, 1);
  return value;
}

static size_t fds_field(lua_State *L, struct proc_fd *fds) {
  size_t count = 0;
  lua_getfield(L, 2, "fds");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TNUMBER || lua_type(L, -1) != LUA_TNUMBER ||
          lua_tointeger(L, -2) < 3 || lua_tointeger(L, -2) > 4095 || lua_tointeger(L, -1) < 0 ||
          count == LUA_PROC_FDS) {
        luaL_error(L, "fds: expected at most %d numbers from 3 to 4095, each with a descriptor",
                   LUA_PROC_FDS);
      }
      fds[count++] = (struct proc_fd){(int)lua_tointeger(L, -2), (int)lua_tointeger(L, -1)};
    }
  }
  lua_pop(L, 1);
  return count;
}

static size_t rlimits_field(lua_State *L, struct proc_rlimit *rlimits) {
  size_t count = 0;
  lua_getfield(L, 2, "rlimits");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
      int resource = lua_type(L, -2) == LUA_TSTRING ? proc_rlimit_number(lua_tostring(L, -2)) : -1;
      if (resource < 0 || count == LUA_PROC_RLIMITS) {
        luaL_error(L, "rlimits: no limit is called %s",
                   lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2));
      }
      if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0)) {
        luaL_error(L, "rlimits.%s: expected a number that is not negative", lua_tostring(L, -2));
      }
      lua_Number value = lua_tonumber(L, -1);
      rlimits[count++] = (struct proc_rlimit){
          resource, value >= 9007199254740992.0 ? RLIM_INFINITY : (rlim_t)value};
    }
  }
  lua_pop(L, 1);
  return count;
}

// Left on the stack, which keeps it alive.
static const char *cwd_field(lua_State *L) {
  lua_getfield(L, 2, "cwd");
  if (lua_isnil(L, -1)) {
    return NULL;
  }
  size_t length = 0;
  const char *cwd = lua_tolstring(L, -1, &length);
  if (cwd == NULL || strlen(cwd) != length) {
    luaL_error(L, "cwd: expected a path");
  }
  return cwd;
}

void lua_proc_read_spec(lua_State *L, struct lua_proc_spec *read) {
  struct proc_spec *spec = &read->spec;
  luaL_checktype(L, 2, LUA_TTABLE);
  bind_only_keys(L, 2, SPEC_KEYS);
  proc_spec_init(spec);
  lua_getfield(L, 2, "argv");
  if (!lua_istable(L, -1) || lua_objlen(L, -1) == 0) {
    luaL_error(L, "argv: expected a list with at least one string");
  }
  spec->argv = string_list(L, lua_gettop(L), "argv");
  lua_getfield(L, 2, "env");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    spec->envp = string_list(L, lua_gettop(L), "env");
  }
  spec->cwd = cwd_field(L);
  for (int i = 0; i < 3; i++) {
    spec->stdio[i] = stdio_field(L, lua_proc_streams[i]);
  }
  spec->fds = read->fds;
  spec->fd_count = fds_field(L, read->fds);
  spec->rlimits = read->rlimits;
  spec->rlimit_count = rlimits_field(L, read->rlimits);
  spec->session = bool_field(L, "session", true);
  spec->walk_fds = bool_field(L, "walk_fds", false);
  spec->file_umask = (long)number_field(L, "umask", -1);
  spec->uid = (long)number_field(L, "uid", -1);
  spec->gid = (long)number_field(L, "gid", -1);
  read->options.max_in = (size_t)number_field(L, "max_in", 0);
  read->options.max_out = (size_t)number_field(L, "max_out", 0);
}
