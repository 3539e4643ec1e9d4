// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_BOX_H
#define FARCALL_LUA_BOX_H

// A box: a Lua state of its own for code that is not trusted to end, with what it may use counted.
// This is the box seen from inside; lua_sandbox.c is the module that a program uses. All memory of
// the state comes from one counting allocator. Instructions are counted by a hook, and functions in
// C that could take time out of proportion pay for it from the same count (box_spend). Whoever
// spends more than is there is struck: the box's pcall does not catch a strike, so that it ends the
// whole call. The compiler is off, since compiled code runs no hooks; there are no coroutines. A
// box belongs to the thread of the state that made it.

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum box_strike { BOX_FINE, BOX_INSTRUCTIONS, BOX_TIME, BOX_MEMORY };

enum {
  BOX_NEST = 100, // nested functions in C that call Lua again: pcall, gsub, sort, format
  BOX_DEPTH = 80, // nesting of a value that crosses
  BOX_SLOTS = 3 * BOX_DEPTH + 20,
  // Integer keys of the box's registry.
  BOX_METHODS = 1,
  BOX_ARRAY = 2,
  BOX_OBJECT = 3
};

struct box_limits {
  size_t memory_bytes;
  int64_t instructions;
  int64_t milliseconds; // of processor time
};

struct box {
  lua_State *B;    // NULL when closed
  lua_State *host; // while a call is under way, set by its owner: who called
  struct box_limits limits;
  char *arena; // what lua_newstate allocates; see box_open
  size_t arena_used;
  size_t used;      // bytes
  int64_t left;     // instructions
  int64_t began_ns; // processor time at the call's first look at the clock, or 0
  int64_t wall_ns;  // the same on the wall
  int period;       // instructions between two hooks
  int nest;
  enum box_strike struck;
  bool dead;          // stays over its memory limit: refuses for good
  lua_CFunction work; // what box_enter runs
  char where[300];    // "FILE:LINE: " of the strike; without a line when none is known
  char file[280];     // what was loaded
};

// The box that a state belongs to.
struct box *box_of(lua_State *B);

// Makes the state with its libraries. 0, ERR_MEMORY or -ENOMEM, with nothing left behind.
int box_open(struct box *box, const struct box_limits *limits);
void box_close(struct box *box);

// Runs the function in protected mode inside the box with a fresh budget; its results are on B's
// stack from index 1 on. 0, or an ERR_ code with the raised value on top if it is ERR_RAISED; the
// box can be entered again unless it is dead.
int box_enter(struct box *box, lua_CFunction fn);

// Inside: takes n instructions from the budget; raises a strike when they are not there.
void box_spend(lua_State *B, int64_t n);

// Inside: raises a strike.
int box_hit(lua_State *B, enum box_strike strike);

// Inside: enters and leaves a function in C that calls Lua; raises when they are nested too deeply.
struct box *box_nest(lua_State *B);

// Fill the table on top of the stack: what is safe of the base, string and table libraries.
void box_open_base(lua_State *B);
void box_open_table(lua_State *B);
void box_open_string(lua_State *B);

struct box_copy {
  lua_State *from;
  lua_State *to;
  int from_array, from_object; // stack indices of the metatables that mark arrays and objects
  int to_array, to_object;
  size_t nodes;        // how many values may still cross
  size_t bytes;        // and bytes of strings
  bool functions;      // a function crosses as true instead of being refused
  const char *problem; // why it was refused
};

// Pushes a copy of the plain value at the index of `from` to `to`: nil, booleans, numbers, strings,
// JSON's null, and tables of these, with marks kept and other metatables left behind. 0, or
// ERR_TYPE, ERR_DEPTH (a cycle, too), ERR_LIMIT with nothing pushed. Both stacks must have
// BOX_SLOTS free; nothing is allocated in `from`.
int box_copy(struct box_copy *copy, int index);

#endif
