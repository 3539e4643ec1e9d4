// SPDX-License-Identifier: MIT
// The program: makes a Lua state with the core in it, finds the Lua tree and hands over to
// farcall.cli. Everything else is Lua.

#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lua_tree.h"

enum { EXIT_ENGINE = 125 };

// Writes the directory that holds farcall/ to tree. FARCALL_LUA is used as it is.
static bool find_tree(char *tree, size_t size) {
  const char *given = getenv("FARCALL_LUA");
  if (given != NULL && given[0] != '\0') {
    return snprintf(tree, size, "%s", given) < (int)size && lua_tree_is(tree);
  }
  char exe[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (length <= 0) {
    return false;
  }
  exe[length] = '\0';
  *strrchr(exe, '/') = '\0';
  return lua_tree_find(exe, tree, size);
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
  lua_State *L = lua_tree_open(tree);
  if (L == NULL) {
    fputs("farcall: not enough memory to start\n", stderr);
    return EXIT_ENGINE;
  }
  // A reader of our output that goes away is an error of a write, not the end of the program.
  signal(SIGPIPE, SIG_IGN);
  int code = run(L, argc, argv);
  lua_close(L);
  return code;
}
