// SPDX-License-Identifier: MIT
// The channels of farcall.core.mux.

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "err.h"
#include "lua_mux.h"

#define CHANNEL_TYPE "farcall.mux.channel"

// Places in the environment table, beside LUA_MUX_OWNER.
enum { READABLE = 1, DRAINED = 2 };

static struct lua_channel *check_channel(lua_State *L) {
  return *(struct lua_channel **)luaL_checkudata(L, 1, CHANNEL_TYPE);
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

void lua_mux_channel_call(lua_State *L, struct lua_channel *self) {
  struct lua_mux *owner = self->owner;
  bind_push(L, self->pin);
  int object = lua_gettop(L);
  if (is_drained(self)) {
    self->drained = false;
    lua_mux_call(L, owner, object, DRAINED, 0);
    if (!self->drained) {
      lua_getfenv(L, object);
      lua_pushnil(L);
      lua_rawseti(L, -2, DRAINED);
      lua_pop(L, 1);
    }
  }
  if (has_news(self)) {
    lua_mux_call(L, owner, object, READABLE, 0);
  }
  if (has_news(self) || is_drained(self)) {
    enqueue(self);
  }
  keep(L, self, object);
  lua_pop(L, 1);
}

void lua_mux_channel_readable(struct mux_channel *c, void *user) {
  (void)c;
  struct lua_channel *self = user;
  self->news = true;
  if (self->readable) {
    enqueue(self);
  }
}

void lua_mux_channel_drained(struct mux_channel *c, void *user) {
  (void)c;
  struct lua_channel *self = user;
  if (self->drained) {
    enqueue(self);
  } else if (!self->readable && self->pin != LUA_NOREF) {
    bind_unpin(self->owner->main, &self->pin);
  }
}

// From birth to death

struct lua_channel **lua_mux_channel_push(lua_State *L, int mux) {
  struct lua_channel **box = lua_newuserdata(L, sizeof(struct lua_channel *));
  *box = NULL;
  luaL_setmetatable(L, CHANNEL_TYPE);
  lua_createtable(L, LUA_MUX_OWNER, 0);
  lua_pushvalue(L, mux);
  lua_rawseti(L, -2, LUA_MUX_OWNER);
  lua_setfenv(L, -2);
  return box;
}

struct lua_channel *lua_mux_channel_add(struct lua_mux *owner, struct mux_channel *c) {
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

void lua_mux_channel_free(struct lua_channel *self) {
  struct lua_mux *owner = self->owner;
  list_unlink(&self->place);
  mux_close(self->c);
  free(self->request);
  free(self);
  lua_mux_let_go(owner);
}

// Methods

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
  size_t max = lua_isnoneornil(L, 2) ? 65536 : lua_mux_check_size(L, 2, 1);
  const char *bytes;
  size_t size;
  int failed = self->c != NULL ? mux_read(self->c, max, &bytes, &size) : ERR_CLOSED;
  if (failed != 0) {
    return fail_reading(L, self, failed);
  }
  lua_pushlstring(L, bytes, size);
  lua_mux_follow(L, self->owner, 1);
  return 1;
}

static int channel_lua_readline(lua_State *L) {
  struct lua_channel *self = check_channel(L);
  size_t max = lua_isnoneornil(L, 2) ? SIZE_MAX / 4 : lua_mux_check_size(L, 2, 0);
  const char *line;
  size_t size;
  int failed = self->c != NULL ? mux_readline(self->c, max, &line, &size) : ERR_CLOSED;
  lua_mux_follow(L, self->owner, 1);
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
  lua_mux_follow(L, self->owner, 1);
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
  lua_mux_follow(L, self->owner, 1);
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
    lua_mux_follow(L, self->owner, 1);
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
    lua_mux_channel_free(self);
    if (!last) {
      lua_mux_follow(L, owner, 1);
    }
  }
  return 0;
}

void lua_mux_channel_type(lua_State *L) {
  static const luaL_Reg methods[] = {{"read", channel_lua_read},
                                     {"readline", channel_lua_readline},
                                     {"write", channel_lua_write},
                                     {"pending", channel_lua_pending},
                                     {"on_readable", channel_lua_on_readable},
                                     {"on_drained", channel_lua_on_drained},
                                     {"finish", channel_lua_finish},
                                     {"close", channel_lua_close},
                                     {"id", channel_lua_id},
                                     {NULL, NULL}};
  bind_type(L, CHANNEL_TYPE, methods, channel_lua_gc);
}
