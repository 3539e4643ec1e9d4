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
#include "list.h"
#include "modules.h"
#include "mux.h"

#define MUX_TYPE "farcall.mux"
#define CHANNEL_TYPE "farcall.mux.channel"

// Places in the environment tables: of a channel and of a mux.
enum { READABLE = 1, DRAINED = 2, OWNER = 3 };
enum { OPENED = 1, OUTPUT = 2 };

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

static struct lua_mux *check_mux(lua_State *L) {
  return *(struct lua_mux **)luaL_checkudata(L, 1, MUX_TYPE);
}

static struct lua_channel *check_channel(lua_State *L) {
  return *(struct lua_channel **)luaL_checkudata(L, 1, CHANNEL_TYPE);
}

static void let_go(struct lua_mux *owner) {
  if (--owner->holders == 0) {
    mux_free(owner->m);
    free(owner);
  }
}

// Calls

static void enqueue(struct lua_channel *self) {
  if (list_is_empty(&self->place)) {
    list_append(&self->owner->due, &self->place);
  }
}

static bool has_news(struct lua_channel *self) {
  const char *bytes;
  size_t size;
  if (self->c == NULL || !self->readable || !self->news) {
    return false;
  }
  self->news = mux_peek(self->c, &bytes, &size) != -EAGAIN;
  return self->news;
}

static bool is_drained(const struct lua_channel *self) {
  return self->c != NULL && self->drained && mux_pending(self->c) == 0;
}

// Pins or unpins as is right now; the object is at the index.
static void keep(lua_State *L, struct lua_channel *self, int index) {
  bool live = self->c != NULL && (self->readable || self->drained || mux_pending(self->c) > 0);
  if (live && self->pin == LUA_NOREF) {
    self->pin = bind_pin(L, index);
  } else if (!live && self->pin != LUA_NOREF) {
    bind_unpin(L, &self->pin);
  }
}

static bool is_due(const struct lua_mux *owner) {
  return owner->output_due || !list_is_empty(&owner->newcomers) || !list_is_empty(&owner->due);
}

static void on_soon(struct loop_timer *timer);

// The last thing that a method does: has the loop call when something is due. The mux, or a channel
// of it, is at the index.
static void follow(lua_State *L, struct lua_mux *owner, int index) {
  bool started = owner->soon.loop != NULL;
  if (owner->collected || owner->calling || is_due(owner) == started) {
    return;
  }
  if (started) {
    loop_timer_stop(&owner->soon);
    bind_unpin(L, &owner->pin);
  } else if (loop_timer_start(owner->loop, &owner->soon, 0, on_soon) == 0) {
    lua_getfenv(L, index);
    lua_rawgeti(L, -1, OWNER);
    owner->pin = bind_pin(L, -1);
    lua_pop(L, 2);
  }
}

// Calls function `which` of the object at the index, if there is one, under nargs arguments.
static void call(lua_State *L, struct lua_mux *owner, int object, int which, int nargs) {
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

static void call_channel(lua_State *L, struct lua_channel *self) {
  struct lua_mux *owner = self->owner;
  bind_push(L, self->pin);
  int object = lua_gettop(L);
  if (is_drained(self)) {
    self->drained = false;
    call(L, owner, object, DRAINED, 0);
  }
  if (has_news(self)) {
    call(L, owner, object, READABLE, 0);
  }
  if (has_news(self) || is_drained(self)) {
    enqueue(self);
  }
  keep(L, self, object);
  lua_pop(L, 1);
}

// Pushes userdata for a channel that is to be put into it; the mux is at the index.
static struct lua_channel **push_box(lua_State *L, int mux) {
  struct lua_channel **box = lua_newuserdata(L, sizeof(struct lua_channel *));
  *box = NULL;
  luaL_setmetatable(L, CHANNEL_TYPE);
  lua_createtable(L, OWNER, 0);
  lua_pushvalue(L, mux);
  lua_rawseti(L, -2, OWNER);
  lua_setfenv(L, -2);
  return box;
}

// Calls `opened` with a channel that the peer has opened.
static void introduce(lua_State *L, struct lua_mux *owner, int mux, struct lua_channel *self) {
  *push_box(L, mux) = self;
  lua_pushlstring(L, self->request, self->request_size);
  free(self->request);
  self->request = NULL;
  call(L, owner, mux, OPENED, 2);
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
    call_channel(L, self);
  }
  if (owner->output_due) {
    owner->output_due = false;
    call(L, owner, mux, OUTPUT, 0);
  }
  owner->calling = false;
  follow(L, owner, mux);
  lua_settop(L, mux - 1);
}

// Events

static struct lua_channel *add_channel(struct lua_mux *owner, struct mux_channel *c) {
  struct lua_channel *self = calloc(1, sizeof *self);
  if (self != NULL) {
    list_init(&self->place);
    self->owner = owner;
    self->pin = LUA_NOREF;
    owner->holders++;
    self->c = c;
    self->id = mux_channel_id(c);
    mux_channel_set(c, self);
  }
  return self;
}

static void free_channel(struct lua_channel *self) {
  struct lua_mux *owner = self->owner;
  list_unlink(&self->place);
  mux_close(self->c);
  free(self->request);
  free(self);
  let_go(owner);
}

// Without memory for it, the mux closes the channel.
static void on_opened(struct mux *m, struct mux_channel *c, const char *request, size_t size,
                      void *data) {
  (void)m;
  struct lua_mux *owner = data;
  char *copy = malloc(size > 0 ? size : 1);
  struct lua_channel *self = copy != NULL ? add_channel(owner, c) : NULL;
  if (self == NULL) {
    free(copy);
    return;
  }
  memcpy(copy, request, size);
  self->request = copy;
  self->request_size = size;
  list_append(&owner->newcomers, &self->place);
}

static void on_readable(struct mux_channel *c, void *user) {
  (void)c;
  struct lua_channel *self = user;
  self->news = true;
  if (self->readable) {
    enqueue(self);
  }
}

static void on_drained(struct mux_channel *c, void *user) {
  (void)c;
  struct lua_channel *self = user;
  if (self->drained) {
    enqueue(self);
  } else if (!self->readable && self->pin != LUA_NOREF) {
    bind_unpin(self->owner->main, &self->pin);
  }
}

static void on_output(struct mux *m, void *data) {
  (void)m;
  struct lua_mux *owner = data;
  owner->output_due = true;
}

// The mux

static size_t check_size(lua_State *L, int index, lua_Number least) {
  lua_Number size = luaL_checknumber(L, index);
  luaL_argcheck(L, size >= least && size <= (lua_Number)(SIZE_MAX / 4), index,
                "a number of bytes expected");
  return (size_t)size;
}

static size_t count_option(lua_State *L, const char *name) {
  lua_getfield(L, 2, name);
  size_t count = lua_isnil(L, -1) ? 0 : check_size(L, lua_gettop(L), 1);
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
  static const struct mux_events events = {on_opened, on_readable, on_drained, on_output};
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
  lua_createtable(L, OWNER, 0);
  event_function(L, "opened");
  lua_rawseti(L, 6, OPENED);
  event_function(L, "output");
  lua_rawseti(L, 6, OUTPUT);
  lua_pushvalue(L, 5);
  lua_rawseti(L, 6, OWNER);
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
  follow(L, owner, 1);
  if (failed != 0) {
    return bind_fail(L, failed, "link");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int mux_lua_output(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  size_t max = lua_isnoneornil(L, 2) ? SIZE_MAX : check_size(L, 2, 1);
  const char *bytes;
  size_t size;
  if (!mux_output(owner->m, &bytes, &size)) {
    owner->output_due = false;
    follow(L, owner, 1);
    return 0;
  }
  size = size < max ? size : max;
  lua_pushlstring(L, bytes, size);
  mux_written(owner->m, size);
  follow(L, owner, 1);
  return 1;
}

static int mux_lua_suspend(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  mux_suspend(owner->m);
  owner->output_due = false;
  follow(L, owner, 1);
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
  follow(L, owner, 1);
  if (failed != 0) {
    return bind_fail(L, failed, "resume");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int mux_lua_ping(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  mux_ping(owner->m);
  follow(L, owner, 1);
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
  struct lua_channel **box = push_box(L, 1);
  struct mux_channel *c;
  int failed = mux_open(owner->m, request, size, &c);
  if (failed == 0) {
    *box = add_channel(owner, c);
    if (*box == NULL) {
      mux_close(c);
      failed = -ENOMEM;
    }
  }
  follow(L, owner, 1);
  return failed == 0 ? 1 : bind_fail(L, failed, "channel");
}

static void forget_newcomers(struct lua_mux *owner) {
  while (!list_is_empty(&owner->newcomers)) {
    free_channel((struct lua_channel *)(void *)owner->newcomers.after);
  }
}

static int mux_lua_close(lua_State *L) {
  struct lua_mux *owner = check_mux(L);
  forget_newcomers(owner);
  mux_abort(owner->m);
  owner->output_due = false;
  follow(L, owner, 1);
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
  let_go(owner);
  return 0;
}

// Channels

// What a reader hears most, without looking for its text.
static int fail_reading(lua_State *L, struct lua_channel *self, int code) {
  if (code == -EAGAIN) {
    self->news = false;
    lua_pushnil(L);
    lua_pushliteral(L, "nothing is there now");
    lua_pushliteral(L, "EAGAIN");
    return 3;
  }
  if (code == ERR_EOF || code == -ECONNRESET) {
    self->news = false;
    self->ended = true;
  }
  return bind_fail(L, code, "read");
}

static int channel_lua_read(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  size_t max = lua_isnoneornil(L, 2) ? 65536 : check_size(L, 2, 1);
  const char *bytes;
  size_t size;
  int failed = self->c != NULL ? mux_read(self->c, max, &bytes, &size) : ERR_CLOSED;
  if (failed != 0) {
    return fail_reading(L, self, failed);
  }
  lua_pushlstring(L, bytes, size);
  follow(L, self->owner, 1);
  return 1;
}

static int channel_lua_readline(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  size_t max = lua_isnoneornil(L, 2) ? SIZE_MAX / 4 : check_size(L, 2, 0);
  const char *line;
  size_t size;
  int failed = self->c != NULL ? mux_readline(self->c, max, &line, &size) : ERR_CLOSED;
  follow(L, self->owner, 1);
  if (failed != 0) {
    return fail_reading(L, self, failed);
  }
  lua_pushlstring(L, line, size);
  return 1;
}

static int channel_lua_write(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int failed = self->c != NULL ? mux_write(self->c, bytes, size) : ERR_CLOSED;
  if (failed != 0) {
    return bind_fail(L, failed, "write");
  }
  keep(L, self, 1);
  follow(L, self->owner, 1);
  lua_pushnumber(L, (lua_Number)mux_pending(self->c));
  return 1;
}

static int channel_lua_pending(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  lua_pushnumber(L, self->c != NULL ? (lua_Number)mux_pending(self->c) : 0);
  return 1;
}

// Sets the function at index 2 (nil: none) as number `which`; true when there is one.
static bool set_function(lua_State *L, int which) {
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
  }
  lua_settop(L, 2);
  lua_getfenv(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, which);
  return !lua_isnil(L, 2);
}

// A function has been set, or taken away.
static void changed(lua_State *L, struct lua_channel *self) {
  if (has_news(self) || is_drained(self)) {
    enqueue(self);
  } else if (self->request == NULL) {
    list_unlink(&self->place);
  }
  keep(L, self, 1);
  follow(L, self->owner, 1);
}

static int channel_lua_on_readable(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  self->readable = set_function(L, READABLE) && self->c != NULL;
  self->news = self->news || self->ended;
  changed(L, self);
  return 0;
}

static int channel_lua_on_drained(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  self->drained = set_function(L, DRAINED) && self->c != NULL;
  changed(L, self);
  return 0;
}

static int channel_lua_finish(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  if (self->c != NULL) {
    mux_finish(self->c);
    follow(L, self->owner, 1);
  }
  return 0;
}

static int channel_lua_close(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  if (self->c != NULL) {
    mux_close(self->c);
    self->c = NULL;
    self->readable = self->drained = false;
    changed(L, self);
  }
  return 0;
}

static int channel_lua_id(lua_State *L) {
  lua_pushnumber(L, check_channel(L)->id);
  return 1;
}

static int channel_lua_gc(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  // NULL: it could not be opened.
  if (self != NULL) {
    struct lua_mux *owner = self->owner;
    bool last = owner->holders == 1;
    free_channel(self);
    if (!last) {
      follow(L, owner, 1);
    }
  }
  return 0;
}

int luaopen_farcall_core_mux(lua_State *L) {
  static const luaL_Reg mux_methods[] = {
      {"feed", mux_lua_feed},       {"output", mux_lua_output},
      {"suspend", mux_lua_suspend}, {"received", mux_lua_received},
      {"resume", mux_lua_resume},   {"ping", mux_lua_ping},
      {"pongs", mux_lua_pongs},     {"open", mux_lua_open},
      {"close", mux_lua_close},     {NULL, NULL}};
  static const luaL_Reg channel_methods[] = {{"read", channel_lua_read},
                                             {"readline", channel_lua_readline},
                                             {"write", channel_lua_write},
                                             {"pending", channel_lua_pending},
                                             {"on_readable", channel_lua_on_readable},
                                             {"on_drained", channel_lua_on_drained},
                                             {"finish", channel_lua_finish},
                                             {"close", channel_lua_close},
                                             {"id", channel_lua_id},
                                             {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", mux_lua_new}, {NULL, NULL}};
  bind_type(L, MUX_TYPE, mux_methods, mux_lua_gc);
  bind_type(L, CHANNEL_TYPE, channel_methods, channel_lua_gc);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
