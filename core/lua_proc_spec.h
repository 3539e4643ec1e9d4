// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_PROC_SPEC_H
#define FARCALL_LUA_PROC_SPEC_H

// The option table of proc.spawn, read and checked: a part of lua_proc.c.

#include <lua.h>

#include "fdbuf.h"
#include "proc.h"

enum { LUA_PROC_FDS = 64, LUA_PROC_RLIMITS = 16 };

struct lua_proc_spec {
  struct proc_spec spec;
  struct proc_fd fds[LUA_PROC_FDS];
  struct proc_rlimit rlimits[LUA_PROC_RLIMITS];
  struct fdbuf_options options; // of the streams
};

extern const char *const lua_proc_streams[3]; // "stdin", "stdout", "stderr"

// Fills *read from the table at index 2, or raises. What it points to is kept alive by that table
// and by values that are left on the stack.
void lua_proc_read_spec(lua_State *L, struct lua_proc_spec *read);

#endif
