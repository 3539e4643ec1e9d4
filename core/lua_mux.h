// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_MUX_H
#define FARCALL_LUA_MUX_H

// What lua_mux.c and lua_mux_channel.c, its channels, share.

#include "bind.h"
#include "list.h"
#include "mux.h"

// The place in the environment tables of both types where the mux's userdata stands.
enum { LUA_MUX_OWNER = 3 };

struct lua_mux {
  struct mux *m;
  struct loop *loop; // held
  lua_State *main;
  int pin;
  size_t holders; // the userdata and all channels
  bool collected; // nothing is called any more
  bool calling;   // the loop is
  bool output_due;
  struct loop_timer soon;
  struct list newcomers; // channels that Lua has not seen yet
  struct list due;       // channels whose functions are to be called
};

struct lua_channel {
  struct list place; // first; in newcomers or in due
  struct lua_mux *owner;
  struct mux_channel *c; // NULL: closed
  uint32_t id;
  int pin;
  bool readable; // there is such a function
  bool drained;  // the same
  bool news;     // a read may give something else than EAGAIN
  bool ended;    // a read has given the end
  char *request; // owned; of a newcomer
  size_t request_size;
};

// lua_mux.c

// The last thing that a method does: has the loop call when something is due. The mux, or a channel
// of it, is at the index.
void lua_mux_follow(lua_State *L, struct lua_mux *owner, int index);
// Calls function `which` of the object at the index, if there is one, under nargs arguments.
void lua_mux_call(lua_State *L, struct lua_mux *owner, int object, int which, int nargs);
// The number of bytes at the index, or an error.
size_t lua_mux_check_size(lua_State *L, int index, lua_Number least);
// One holder less.
void lua_mux_let_go(struct lua_mux *owner);

// lua_mux_channel.c

void lua_mux_channel_type(lua_State *L);
// Pushes userdata into which a channel is to be put; the mux is at the index.
struct lua_channel **lua_mux_channel_push(lua_State *L, int mux);
// NULL: no memory.
struct lua_channel *lua_mux_channel_add(struct lua_mux *owner, struct mux_channel *c);
// Closes it too.
void lua_mux_channel_free(struct lua_channel *self);
// Calls its functions, as far as they are due.
void lua_mux_channel_call(lua_State *L, struct lua_channel *self);
// Events of the mux.
void lua_mux_channel_readable(struct mux_channel *c, void *user);
void lua_mux_channel_drained(struct mux_channel *c, void *user);

#endif
