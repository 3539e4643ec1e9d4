// SPDX-License-Identifier: MIT
// A plain Lua host with the core linked in: host FILE.lua [ARG...]. It is built with the same
// flags as the program, so the specs run under a sanitizer without preloading anything.

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

#include "modules.h"

int main(int argc, char **argv) {
  if (argc < 2) {
    fputs("usage: host FILE.lua [ARG...]\n", stderr);
    return 2;
  }
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    return 1;
  }
  luaL_openlibs(L);
  modules_preload(L);
  lua_createtable(L, argc, 0);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1);
  }
  lua_setglobal(L, "arg");
  int failed = luaL_loadfile(L, argv[1]) != 0 || lua_pcall(L, 0, 0, 0) != 0;
  if (failed) {
    // busted ends with an error without a message once it has told everything.
    if (!lua_isnil(L, -1)) {
      fprintf(stderr, "%s\n", lua_tostring(L, -1));
    }
  }
  lua_close(L);
  return failed;
}
