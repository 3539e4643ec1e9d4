// SPDX-License-Identifier: MIT
#include "lua_tree.h"

#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <sys/stat.h>

#include "lua_bytecode.h"
#include "modules.h"

// Seen from the program or the library: a build folder, an installation, one whose libraries are in
// a directory for each architecture.
static const char *const PLACES[] = {"lua", "../share/lua/5.1", "../../share/lua/5.1", NULL};

bool lua_tree_is(const char *dir) {
  char path[PATH_MAX];
  struct stat info;
  int size = snprintf(path, sizeof path, "%s/farcall/cli/init.lua", dir);
  return size > 0 && size < (int)sizeof path && stat(path, &info) == 0;
}

bool lua_tree_find(const char *dir, char *tree, size_t size) {
  for (const char *const *place = PLACES; *place != NULL; place++) {
    int length = snprintf(tree, size, "%s/%s", dir, *place);
    if (length > 0 && (size_t)length < size && lua_tree_is(tree)) {
      return true;
    }
  }
  return false;
}

// Puts the places `first` in front of package[field], and takes the current directory out of it:
// what lies there is not to be run because somebody started farcall beside it.
static void set_path(lua_State *L, const char *field, const char *first, const char *here) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, field);
  lua_pushfstring(L, "%s;%s;", first, lua_tostring(L, -1));
  luaL_gsub(L, lua_tostring(L, -1), here, ";");
  lua_setfield(L, -4, field);
  lua_pop(L, 3);
}

// Lua modules are found in the tree, C modules beside the tree of a build folder or where they are
// installed; then both where LuaJIT looks.
static void set_paths(lua_State *L, const char *tree) {
  lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", tree, tree);
  set_path(L, "path", lua_tostring(L, -1), ";./?.lua;");
  lua_pop(L, 1);
  const char *installed = FARCALL_CMODULE_DIR; // relative to the prefix, or absolute
  if (installed[0] == '/') {
    lua_pushfstring(L, "%s/../lib/?.so;%s/?.so", tree, installed);
  } else {
    lua_pushfstring(L, "%s/../lib/?.so;%s/../../../%s/?.so", tree, tree, installed);
  }
  set_path(L, "cpath", lua_tostring(L, -1), ";./?.so;");
  lua_pop(L, 1);
}

static int prepare(lua_State *L) {
  const char *tree = lua_touserdata(L, 1);
  // A quarter of a call's time went into collecting; the heap is small, so it may grow some more.
  lua_gc(L, LUA_GCSETPAUSE, 300);
  luaL_openlibs(L);
  modules_preload(L);
  set_paths(L, tree);
  bytecode_use(L, tree);
  return 0;
}

lua_State *lua_tree_open(const char *tree) {
  union {
    const char *from;
    void *to;
  } argument = {.from = tree};
  lua_State *L = luaL_newstate();
  if (L != NULL && lua_cpcall(L, prepare, argument.to) != 0) {
    lua_close(L);
    return NULL;
  }
  return L;
}
