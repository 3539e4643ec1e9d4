// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_SANDBOX_H
#define FARCALL_LUA_SANDBOX_H

// The userdata of farcall.core.sandbox, shared by its two files: lua_sandbox.c is what the host
// calls, lua_sandbox_host.c is how a box calls the host.

#include "lua_box.h"

enum { SANDBOX_RESULTS = 50 }; // values that cross in one call

struct sandbox {
  struct box box;      // first: a box is found from its state
  int marks;           // in the host's registry: {metatable of arrays, metatable of objects}
  int callbacks;       // in the host's registry: functions by number; at 0 the last result
  bool prelude;        // what is loaded goes to the prelude's load; otherwise its table is called
  const char *problem; // why a value could not cross
  int problem_code;
};

// Pushes the marks of both states and prepares a copy from one to the other.
void sandbox_begin_copy(struct box_copy *copy, struct sandbox *s, lua_State *from, lua_State *to);

// A function in the box that calls the host's function of the number in its upvalue 1.
int sandbox_call_host(lua_State *B);

#endif
