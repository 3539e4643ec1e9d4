// SPDX-License-Identifier: MIT
// farcall.core.fdbuf: a buffered descriptor. Its functions stand in its environment table; it is
// pinned while the loop can call it or bytes are still to be written.

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include "bind.h"
#include "err.h"
#include "lua_fdbuf.h"
#include "modules.h"

#define FDBUF_TYPE "farcall.fdbuf"

enum { READABLE = 1, DRAINED = 2 };

struct lua_fdbuf {
  struct fdbuf *f; // NULL when making it failed
  struct loop *loop;
  lua_State *main;
  int pin;
};

static struct lua_fdbuf *check_self(lua_State *L) {
  return luaL_checkudata(L, 1, FDBUF_TYPE);
}

// Takes the object off the top of the stack and calls its function number `which`, if there is one.
// The object stays on the stack until the call is over, and so alive.
static void call(lua_State *L, struct lua_fdbuf *self, int which) {
  struct loop *loop = self->loop;
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, which);
  if (which == DRAINED) {
    lua_pushnil(L);
    lua_rawseti(L, -3, DRAINED);
  }
  lua_remove(L, -2);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
  } else {
    bind_call(L, loop, 0);
  }
  lua_pop(L, 1);
}

static void on_readable(struct fdbuf *f, void *data) {
  (void)f;
  struct lua_fdbuf *self = data;
  bind_push(self->main, self->pin);
  call(self->main, self, READABLE);
}

static void on_drained(struct fdbuf *f, void *data) {
  struct lua_fdbuf *self = data;
  bind_push(self->main, self->pin);
  if (!fdbuf_is_live(f)) {
    bind_unpin(self->main, &self->pin);
  }
  call(self->main, self, DRAINED);
}

// Pins or unpins as is right now; the object is at index 1. Bytes that are pending keep it alive,
// so their end must be heard of, with or without a function to call.
static void keep(lua_State *L, struct lua_fdbuf *self) {
  if (fdbuf_pending(self->f) > 0) {
    fdbuf_on_drained(self->f, on_drained, self);
  }
  bool live = fdbuf_is_live(self->f);
  if (live && self->pin == LUA_NOREF) {
    self->pin = bind_pin(L, 1);
  } else if (!live && self->pin != LUA_NOREF) {
    bind_unpin(L, &self->pin);
  }
}

int bind_push_fdbuf(lua_State *L, struct loop *loop, int fd, const struct fdbuf_options *options) {
  lua_State *main = bind_main(L);
  struct lua_fdbuf *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_fdbuf){.loop = loop, .main = main, .pin = LUA_NOREF};
  int failed = fdbuf_new(loop, fd, options, &self->f);
  if (failed != 0) {
    lua_pop(L, 1);
    close(fd);
    return failed;
  }
  loop_hold(loop);
  luaL_setmetatable(L, FDBUF_TYPE);
  lua_createtable(L, 2, 0);
  lua_setfenv(L, -2);
  return 0;
}

static size_t check_size(lua_State *L, int index, lua_Number least) {
  lua_Number size = luaL_checknumber(L, index);
  luaL_argcheck(L, size >= least && size <= (lua_Number)(SIZE_MAX / 4), index,
                "a number of bytes expected");
  return (size_t)size;
}

static size_t size_option(lua_State *L, const char *name) {
  lua_getfield(L, 3, name);
  size_t size = lua_isnil(L, -1) ? 0 : check_size(L, lua_gettop(L), 1);
  lua_pop(L, 1);
  return size;
}

static int fdbuf_lua_new(lua_State *L) {
  static const char *const names[] = {"max_in", "max_out", NULL};
  struct loop *loop = bind_check_loop(L, 1);
  int fd = luaL_checkint(L, 2);
  struct fdbuf_options options = {0};
  if (!lua_isnoneornil(L, 3)) {
    bind_only_keys(L, 3, names);
    options.max_in = size_option(L, "max_in");
    options.max_out = size_option(L, "max_out");
  }
  int failed = bind_push_fdbuf(L, loop, fd, &options);
  return failed == 0 ? 1 : bind_fail(L, failed, "descriptor");
}

// What a reader hears most, without looking for its text.
static int fail_reading(lua_State *L, int code) {
  if (code == -EAGAIN) {
    lua_pushnil(L);
    lua_pushliteral(L, "nothing is there now");
    lua_pushliteral(L, "EAGAIN");
    return 3;
  }
  return bind_fail(L, code, "read");
}

static int fdbuf_lua_read(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  size_t max = lua_isnoneornil(L, 2) ? 65536 : check_size(L, 2, 1);
  const char *bytes;
  size_t size;
  int failed = fdbuf_read(self->f, max, &bytes, &size);
  if (failed != 0) {
    return fail_reading(L, failed);
  }
  lua_pushlstring(L, bytes, size);
  return 1;
}

static int fdbuf_lua_readline(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  size_t max = lua_isnoneornil(L, 2) ? SIZE_MAX / 4 : check_size(L, 2, 0);
  const char *line;
  size_t size;
  int failed = fdbuf_readline(self->f, max, &line, &size);
  if (failed != 0) {
    return fail_reading(L, failed);
  }
  lua_pushlstring(L, line, size);
  return 1;
}

static int fdbuf_lua_write(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int failed = fdbuf_write(self->f, bytes, size);
  keep(L, self);
  if (failed != 0) {
    return bind_fail(L, failed, "write");
  }
  lua_pushnumber(L, (lua_Number)fdbuf_pending(self->f));
  return 1;
}

static int fdbuf_lua_pending(lua_State *L) {
  lua_pushnumber(L, (lua_Number)fdbuf_pending(check_self(L)->f));
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

static int fdbuf_lua_on_readable(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  bool set = set_function(L, READABLE);
  fdbuf_on_readable(self->f, set ? on_readable : NULL, self);
  keep(L, self);
  return 0;
}

static int fdbuf_lua_on_drained(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  bool set = set_function(L, DRAINED);
  fdbuf_on_drained(self->f, set ? on_drained : NULL, self);
  keep(L, self);
  return 0;
}

static int fdbuf_lua_finish(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  fdbuf_finish(self->f);
  keep(L, self);
  return 0;
}

static int fdbuf_lua_close(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  // When a Lua state is closed, the process that has this stream may be collected after it.
  if (self->f != NULL) {
    fdbuf_close(self->f);
    keep(L, self);
  }
  return 0;
}

static int fdbuf_lua_fileno(lua_State *L) {
  int fd = fdbuf_fileno(check_self(L)->f);
  if (fd < 0) {
    return bind_fail(L, ERR_CLOSED, "descriptor");
  }
  lua_pushinteger(L, fd);
  return 1;
}

static int fdbuf_lua_gc(lua_State *L) {
  struct lua_fdbuf *self = check_self(L);
  fdbuf_free(self->f);
  loop_drop(self->loop);
  self->f = NULL;
  self->loop = NULL;
  return 0;
}

int luaopen_farcall_core_fdbuf(lua_State *L) {
  static const luaL_Reg methods[] = {{"read", fdbuf_lua_read},
                                     {"readline", fdbuf_lua_readline},
                                     {"write", fdbuf_lua_write},
                                     {"pending", fdbuf_lua_pending},
                                     {"on_readable", fdbuf_lua_on_readable},
                                     {"on_drained", fdbuf_lua_on_drained},
                                     {"finish", fdbuf_lua_finish},
                                     {"close", fdbuf_lua_close},
                                     {"fileno", fdbuf_lua_fileno},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", fdbuf_lua_new}, {NULL, NULL}};
  bind_type(L, FDBUF_TYPE, methods, fdbuf_lua_gc);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
