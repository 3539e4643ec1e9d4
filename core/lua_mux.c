// SPDX-License-Identifier: MIT
// farcall.core.mux: many streams over one link. Its channels have the methods of
// farcall.core.fdbuf. Nothing is called from within a method: what the mux tells is noted, and the
// loop calls soon after. Functions stand in the environment tables; a channel is pinned while it
// has one or has bytes to send, the mux while a call of the loop is due.

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "err.h"
#include "lua_mux.h"
#include "modules.h"

#define MUX_TYPE "farcall.mux"

// Places in the environment table, beside LUA_MUX_OWNER.
enum { OPENED = 1, OUTPUT = 2 };

static struct lua_mux *check_mux(lua_State *L) {
  return *(struct lua_mux **)luaL_checkudata(L, 1, MUX_TYPE);
}

size_t lua_mux_check_size(lua_State *L, int index, lua_Number least) {
  lua_Number size = luaL_checknumber(L, index);
  luaL_argcheck(L, size >= least && size <= (lua_Number)(SIZE_MAX / 4), index,
                "a number of bytes expected");
  return (size_t)size;
}

void lua_mux_let_go(struct lua_mux *owner) {
  if (--owner->holders == 0) {
    mux_free(owner->m);
    free(owner);
  }
}

// Calls

static bool is_due(const struct lua_mux *owner) {
  return owner->output_due || !list_is_empty(&owner->newcomers) || !list_is_empty(&owner->due);
}

static void on_soon(struct loop_timer *timer);

void lua_mux_follow(lua_State *L, struct lua_mux *owner, int index) {
  bool started = owner->soon.loop != NULL;
  if (owner->collected || owner->calling || is_due(owner) == started) {
    return;
  }
  if (started) {
    loop_timer_stop(&owner->soon);
    bind_unpin(L, &owner->pin);
  } else if (loop_timer_start(owner->loop, &owner->soon, 0, on_soon) == 0) {
    lua_getfenv(L, index);
    lua_rawgeti(L, -1, LUA_MUX_OWNER);
    owner->pin = bind_pin(L, -1);
    lua_pop(L, 2);
  }
}

void lua_mux_call(lua_State *L, struct lua_mux *owner, int object, int which, int nargs) {
  lua_getfenv(L, object);
  lua_rawgeti(L, -1, which);
  lua_replace(L, -2);
  if (lua_isnil(L, -1)) {
    lua_pop(L, nargs + 1);
  } else {
    lua_insert(L, -nargs - 1);
    bind_call(L, owner->loop, nargs);
  }
}

// Calls `opened` with a channel that the peer has opened.
static void introduce(lua_State *L, struct lua_mux *owner, int mux, struct lua_channel *self) {
  *lua_mux_channel_push(L, mux) = self;
  lua_pushlstring(L, self->request, self->request_size);
  free(self->request);
  self->request = NULL;
  lua_mux_call(L, owner, mux, OPENED, 2);
}

// What becomes due in the calls waits for the next turn.
static void on_soon(struct loop_timer *timer) {
  struct lua_mux *owner = timer->data;
  lua_State *L = owner->main;
  bind_push(L, owner->pin);
  bind_unpin(L, &owner->pin);
  int mux = lua_gettop(L);
  owner->calling = true;
  struct list newcomers, due;
  list_init(&newcomers);
  list_init(&due);
  list_move(&newcomers, &owner->newcomers);
  list_move(&due, &owner->due);
  while (!list_is_empty(&newcomers)) {
    struct lua_channel *self = (struct lua_channel *)(void *)newcomers.after;
    list_unlink(&self->place);
    introduce(L, owner, mux, self);
  }
  while (!list_is_empty(&due)) {
    struct lua_channel *self = (struct lua_channel *)(void *)due.after;
    list_unlink(&self->place);
    lua_mux_channel_call(L, self);
  }
  if (owner->output_due) {
    owner->output_due = false;
    lua_mux_call(L, owner, mux, OUTPUT, 0);
  }
  owner->calling = false;
  lua_mux_follow(L, owner, mux);
  lua_settop(L, mux - 1);
}

// Events

// Without memory for it, the mux closes the channel.
static void on_opened(struct mux *m, struct mux_channel *c, const char *request, size_t size,
                      void *data) {
  (void)m;
  struct lua_mux *owner = data;
  char *copy = malloc(size > 0 ? size : 1);
  struct lua_channel *self = copy != NULL ? lua_mux_channel_add(owner, c) : NULL;
  if (self == NULL) {
    free(copy);
    return;
  }
  memcpy(copy, request, size);
  self->request = copy;
  self->request_size = size;
  list_append(&owner->newcomers, &self->place);
}

static void on_output(struct mux *m, void *data) {
  (void)m;
  struct lua_mux *owner = data;
  owner->output_due = true;
}

// The mux

static size_t count_option(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  size_t count = lua_isnil(L, -1) ? 0 : lua_mux_check_size(L, lua_gettop(L), 1);
  lua_pop(L, 1);
  return count;
}

// Leaves the function of the events on the stack.
static void event_function(lua_State *L, const char *name) {
  lua_getfield(L, 3, name);
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, lua_gettop(L), LUA_TFUNCTION);
  }
}

static int make(struct lua_mux **out, const struct mux_options *options) {
  static const struct mux_events events = {on_opened, lua_mux_channel_readable,
                                           lua_mux_channel_drained, on_output};
  struct lua_mux *owner = calloc(1, sizeof *owner);
  if (owner == NULL) {
    return -ENOMEM;
  }
  int failed = mux_new(options, &events, owner, &owner->m);
  if (failed != 0) {
    free(owner);
    return failed;
  }
  *out = owner;
  return 0;
}

static int mux_lua_new(lua_State *L) {
  static const char *const option_names[] = {"side", "max_channels", "window", "max_kept", NULL};
  static const char *const event_names[] = {"opened", "output", NULL};
  static const char *const sides[] = {"engine", "runner", NULL};
  struct loop *loop = bind_check_loop(L, 1);
  bind_only_keys(L, 2, option_names);
  bind_only_keys(L, 3, event_names);
  lua_settop(L, 3);
  struct mux_options options = {.max_channels = count_option(L, "max_channels"),
                                .window = count_option(L, "window"),
                                .max_kept = count_option(L, "max_kept")};
  lua_getfield(L, 2, "side");
  options.side = luaL_checkoption(L, 4, NULL, sides) == 0 ? MUX_ENGINE : MUX_RUNNER;
  lua_State *main = bind_main(L);
  struct lua_mux **box = lua_newuserdata(L, sizeof(struct lua_mux *));
  lua_createtable(L, LUA_MUX_OWNER, 0);
  event_function(L, "opened");
  lua_rawseti(L, 6, OPENED);
  event_function(L, "output");
  lua_rawseti(L, 6, OUTPUT);
  lua_pushvalue(L, 5);
  lua_rawseti(L, 6, LUA_MUX_OWNER);
  lua_setfenv(L, 5);
  struct lua_mux *owner;
  int failed = make(&owner, &options);
  if (failed != 0) {
    return bind_fail(L, failed, "mux");
  }
  owner->loop = loop_hold(loop);
  owner->main = main;
  owner->pin = LUA_NOREF;
  owner->holders = 1;
  owner->soon.data = owner;
  list_init(&owner->newcomers);
  list_init(&owner->due);
  *box = owner;
  luaL_setmetatable(L, MUX_TYPE);
  return 1;
}

static int mux_lua_feed(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int failed = mux_feed(owner->m, bytes, size);
  lua_mux_follow(L, owner, 1);
  if (failed != 0) {
    return bind_fail(L, failed, "link");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int mux_lua_output(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  size_t max = lua_isnoneornil(L, 2) ? SIZE_MAX : lua_mux_check_size(L, 2, 1);
  const char *bytes;
  size_t size;
  if (!mux_output(owner->m, &bytes, &size)) {
    owner->output_due = false;
    lua_mux_follow(L, owner, 1);
    return 0;
  }
  size = size < max ? size : max;
  lua_pushlstring(L, bytes, size);
  mux_written(owner->m, size);
  lua_mux_follow(L, owner, 1);
  return 1;
}

static int mux_lua_suspend(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  mux_suspend(owner->m);
  owner->output_due = false;
  lua_mux_follow(L, owner, 1);
  return 0;
}

static int mux_lua_received(lua_State *L) {
  lua_pushnumber(L, (lua_Number)mux_received(check_mux(L)->m));
  return 1;
}

static int mux_lua_resume(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  lua_Number received = luaL_checknumber(L, 2);
  // A peer that says what no peer can say is no misuse.
  bool possible = received >= 0 && received <= 9e15 && received == (lua_Number)(uint64_t)received;
  int failed = possible ? mux_resume(owner->m, (uint64_t)received) : ERR_SYNTAX;
  lua_mux_follow(L, owner, 1);
  if (failed != 0) {
    return bind_fail(L, failed, "resume");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int mux_lua_ping(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  mux_ping(owner->m);
  lua_mux_follow(L, owner, 1);
  return 0;
}

static int mux_lua_pongs(lua_State *L) {
  lua_pushnumber(L, (lua_Number)mux_pongs(check_mux(L)->m));
  return 1;
}

static int mux_lua_open(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  size_t size;
  const char *request = luaL_checklstring(L, 2, &size);
  struct lua_channel **box = lua_mux_channel_push(L, 1);
  struct mux_channel *c;
  int failed = mux_open(owner->m, request, size, &c);
  if (failed == 0) {
    *box = lua_mux_channel_add(owner, c);
    if (*box == NULL) {
      mux_close(c);
      failed = -ENOMEM;
    }
  }
  lua_mux_follow(L, owner, 1);
  return failed == 0 ? 1 : bind_fail(L, failed, "channel");
}

static void forget_newcomers(struct lua_mux *owner) {
  while (!list_is_empty(&owner->newcomers)) {
    struct list *place = owner->newcomers.after;
    list_unlink(place);
    lua_mux_channel_free((struct lua_channel *)(void *)place);
  }
}

static int mux_lua_close(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  forget_newcomers(owner);
  mux_abort(owner->m);
  owner->output_due = false;
  lua_mux_follow(L, owner, 1);
  return 0;
}

// Channels keep their mux alive: one that is still there is collected with the whole state.
static int mux_lua_gc(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  owner->collected = true;
  loop_timer_stop(&owner->soon);
  bind_unpin(L, &owner->pin);
  loop_drop(owner->loop);
  forget_newcomers(owner);
  lua_mux_let_go(owner);
  return 0;
}

int luaopen_farcall_core_mux(lua_State *L) {
  static const luaL_Reg mux_methods[] = {
      {"feed", mux_lua_feed},       {"output", mux_lua_output},
      {"suspend", mux_lua_suspend}, {"received", mux_lua_received},
      {"resume", mux_lua_resume},   {"ping", mux_lua_ping},
      {"pongs", mux_lua_pongs},     {"open", mux_lua_open},
      {"close", mux_lua_close},     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", mux_lua_new}, {NULL, NULL}};
  bind_type(L, MUX_TYPE, mux_methods, mux_lua_gc);
  lua_mux_channel_type(L);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
