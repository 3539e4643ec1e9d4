// SPDX-License-Identifier: MIT
// The program: makes a Lua state with the core in it, finds the Lua tree and hands over to
// farcall.cli. Everything else is Lua.

#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua_bytecode.h"
#include "modules.h"

enum { EXIT_ENGINE = 125 };

// Where the Lua tree can be, seen from the program's directory: a build folder, an installation.
static const char *const PLACES[] = {"lua", "../share/lua/5.1", NULL};

static bool has_tree(const char *dir) {
  char path[PATH_MAX];
  struct stat info;
  int size = snprintf(path, sizeof path, "%s/farcall/cli/init.lua", dir);
  return size > 0 && size < (int)sizeof path && stat(path, &info) == 0;
}

// Writes the directory that holds farcall/ to tree. FARCALL_LUA is used as it is.
static bool find_tree(char *tree, size_t size) {
  const char *given = getenv("FARCALL_LUA");
  if (given != NULL && given[0] != '\0') {
    return snprintf(tree, size, "%s", given) < (int)size && has_tree(tree);
  }
  char exe[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (length <= 0) {
    return false;
  }
  exe[length] = '\0';
  *strrchr(exe, '/') = '\0';
  for (const char *const *place = PLACES; *place != NULL; place++) {
    if (snprintf(tree, size, "%s/%s", exe, *place) < (int)size && has_tree(tree)) {
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

static int traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL && luaL_callmeta(L, 1, "__tostring")) {
    message = lua_tostring(L, -1);
  }
  luaL_traceback(L, L, message != NULL ? message : "an error that is not a text", 1);
  return 1;
}

// require("farcall.cli").main(argv) and its exit code.
static int run(lua_State *L, int argc, char **argv) {
  lua_pushcfunction(L, traceback);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "farcall.cli");
  int failed = lua_pcall(L, 1, 1, 1);
  if (failed == 0) {
    lua_getfield(L, -1, "main");
    lua_createtable(L, argc, 0);
    for (int i = 0; i < argc; i++) {
      lua_pushstring(L, argv[i]);
      lua_rawseti(L, -2, i);
    }
    failed = lua_pcall(L, 1, 1, 1);
  }
  if (failed != 0) {
    fprintf(stderr, "farcall: this is a bug, please report it:\n%s\n", lua_tostring(L, -1));
    return EXIT_ENGINE;
  }
  return (int)lua_tointeger(L, -1);
}

// A standard stream that is closed would become whatever is opened next. Reading from what takes
// its place gives nothing, writing fails.
static void fill_standard_streams(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) {
      return;
    }
  }
}

int main(int argc, char **argv) {
  fill_standard_streams();
  char tree[PATH_MAX];
  if (!find_tree(tree, sizeof tree)) {
    fputs("farcall: its Lua files are neither beside the program nor installed: set FARCALL_LUA to "
          "the directory that holds farcall/cli/init.lua\n",
          stderr);
    return EXIT_ENGINE;
  }
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fputs("farcall: not enough memory to start\n", stderr);
    return EXIT_ENGINE;
  }
  // A reader of our output that goes away is an error of a write, not the end of the program.
  signal(SIGPIPE, SIG_IGN);
  // A quarter of a call's time went into collecting; the heap is small, so it may grow some more.
  lua_gc(L, LUA_GCSETPAUSE, 300);
  luaL_openlibs(L);
  modules_preload(L);
  set_paths(L, tree);
  bytecode_use(L, tree);
  int code = run(L, argc, argv);
  lua_close(L);
  return code;
}
