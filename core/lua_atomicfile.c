// SPDX-License-Identifier: MIT
#include <string.h>

#include "atomicfile.h"
#include "modules.h"

enum { MODE_MAX = 07777 };

// atomicfile.write(path, bytes[, {mode=0600, sync=true, follow=false}]) -> true | nil, message,
// code
static int lua_atomicfile_write(lua_State *L) {
  static const char *const names[] = {"mode", "sync", "follow", NULL};
  const char *path = luaL_checkstring(L, 1);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  struct atomicfile_options options = {.mode = 0600, .sync = true};
  if (!lua_isnoneornil(L, 3)) {
    luaL_checktype(L, 3, LUA_TTABLE);
    bind_only_keys(L, 3, names);
    lua_getfield(L, 3, "mode");
    lua_Integer mode = luaL_optinteger(L, -1, 0600);
    luaL_argcheck(L, mode >= 0 && mode <= MODE_MAX, 3, "mode: not a file mode");
    options.mode = (mode_t)mode;
    lua_getfield(L, 3, "sync");
    options.sync = lua_isnil(L, -1) || lua_toboolean(L, -1);
    lua_getfield(L, 3, "follow");
    options.follow = lua_toboolean(L, -1);
  }
  int code = atomicfile_write(path, bytes, size, &options);
  if (code != 0) {
    return bind_fail(L, code, path);
  }
  lua_pushboolean(L, true);
  return 1;
}

// atomicfile.clean(dir) -> number of leftovers removed | nil, message, code
static int lua_atomicfile_clean(lua_State *L) {
  const char *dir = luaL_checkstring(L, 1);
  size_t removed = 0;
  int code = atomicfile_clean(dir, &removed);
  if (code != 0) {
    return bind_fail(L, code, dir);
  }
  lua_pushinteger(L, (lua_Integer)removed);
  return 1;
}

int luaopen_farcall_core_atomicfile(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"write", lua_atomicfile_write},
      {"clean", lua_atomicfile_clean},
      {NULL, NULL},
  };
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
