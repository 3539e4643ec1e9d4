// SPDX-License-Identifier: MIT
// farcall.core.watchdog: names the line of Lua that holds the loop, and ends what holds it for too
// long. The signal handler only sets a Lua hook, as the stock interpreter does for ^C; the hook,
// which is the same for all coroutines of a state, runs at the next instruction. It does not run in
// code that was compiled, so code that must be stopped is loaded with the compiler off.

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"
#include "modules.h"
#include "watchdog.h"

#define WATCHDOG_TYPE "farcall.watchdog"

struct lua_watchdog {
  struct watchdog *w; // NULL when closed
  struct loop *loop;  // held
  lua_State *main;
  int pin;
  volatile sig_atomic_t hooked; // our hook is set, or has been and found its line
  volatile sig_atomic_t stop;   // and raises
  bool stopped;                 // it has raised
  unsigned stop_ms;
  lua_Hook hook_before; // somebody else's hook, restored afterwards
  int mask_before, count_before;
  char where[256];
  size_t own_size;
  char own[]; // sources that begin with this are not to blame
};

static const char self_key;

static void push_key(lua_State *L) {
  union {
    const void *from;
    void *to;
  } address = {.from = &self_key};
  lua_pushlightuserdata(L, address.to);
}

static bool is_own(const struct lua_watchdog *self, const lua_Debug *ar) {
  return self->own_size > 0 && ar->source[0] == '@' &&
         strncmp(ar->source + 1, self->own, self->own_size) == 0;
}

// Notes where L is: the innermost line that is not farcall's own, or simply the innermost.
static void note_where(lua_State *L, struct lua_watchdog *self) {
  lua_Debug ar;
  bool found = false;
  for (int level = 0; level < 200 && lua_getstack(L, level, &ar) != 0; level++) {
    lua_getinfo(L, "Sl", &ar);
    bool own = is_own(self, &ar);
    if (ar.currentline > 0 && (!found || !own)) {
      snprintf(self->where, sizeof self->where, "%s:%d", ar.short_src, ar.currentline);
      found = true;
      if (!own) {
        return;
      }
    }
  }
}

static void remove_hook(struct lua_watchdog *self) {
  lua_sethook(self->main, self->hook_before, self->mask_before, self->count_before);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  push_key(L);
  lua_rawget(L, LUA_REGISTRYINDEX);
  struct lua_watchdog *self = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (self == NULL) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!self->stop) {
    note_where(L, self);
    remove_hook(self);
    return;
  }
  // What catches the error and goes on is farcall itself, or must be stopped again.
  lua_getinfo(L, "S", ar);
  if (is_own(self, ar)) {
    return;
  }
  if (!self->stopped) {
    note_where(L, self);
    self->stopped = true;
  }
  lua_pushfstring(L, "held the loop for %d ms at %s", (int)self->stop_ms, self->where);
  lua_error(L);
}

// In the signal handler.
static void late(void *data, bool stop) {
  struct lua_watchdog *self = data;
  lua_Hook now = lua_gethook(self->main);
  if (now != on_hook) {
    self->hook_before = now;
    self->mask_before = lua_gethookmask(self->main);
    self->count_before = lua_gethookcount(self->main);
  }
  self->hooked = 1;
  self->stop = stop;
  lua_sethook(self->main, on_hook, LUA_MASKCOUNT, 1);
}

static void forget(struct lua_watchdog *self) {
  if (self->hooked && lua_gethook(self->main) == on_hook) {
    remove_hook(self);
  }
  self->hooked = 0;
  self->stop = 0;
  self->stopped = false;
  self->where[0] = '\0';
}

static void over(void *data, uint64_t held_ms) {
  struct lua_watchdog *self = data;
  lua_State *L = self->main;
  bind_push(L, self->pin);
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, 1);
  lua_remove(L, -2);
  // No line: it was compiled code or C, and no instruction came after it.
  lua_pushstring(L, self->where[0] != '\0' ? self->where : "compiled code or C");
  lua_pushnumber(L, (lua_Number)held_ms);
  lua_pushboolean(L, self->stopped);
  forget(self);
  bind_call(L, self->loop, 3);
  lua_pop(L, 1);
}

static unsigned ms_option(lua_State *L, const char *name, unsigned least, unsigned unset) {
  lua_getfield(L, 2, name);
  lua_Number ms = luaL_optnumber(L, -1, unset);
  luaL_argcheck(L, ms >= least && ms <= 1e9, 2, "milliseconds up to 1e9 expected");
  lua_pop(L, 1);
  return (unsigned)ms;
}

static int watchdog_lua_new(lua_State *L) {
  static const char *const names[] = {"warn_ms", "stop_ms", "own", NULL};
  struct loop *loop = bind_check_loop(L, 1);
  bind_only_keys(L, 2, names);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  struct watchdog_options options = {.late = late, .over = over};
  options.warn_ms = ms_option(L, "warn_ms", 1, 200);
  options.stop_ms = ms_option(L, "stop_ms", 0, 0);
  lua_getfield(L, 2, "own");
  size_t own_size = 0;
  const char *own = luaL_optlstring(L, -1, "", &own_size);
  push_key(L);
  lua_rawget(L, LUA_REGISTRYINDEX);
  luaL_argcheck(L, lua_isnil(L, -1), 1, "this Lua state has a watchdog already");
  lua_State *main = bind_main(L);
  struct lua_watchdog *self = lua_newuserdata(L, sizeof *self + own_size + 1);
  *self = (struct lua_watchdog){.main = main, .pin = LUA_NOREF, .stop_ms = options.stop_ms};
  self->own_size = own_size;
  memcpy(self->own, own, own_size + 1);
  options.data = self;
  int index = lua_gettop(L);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 3);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, index);
  int failed = watchdog_new(loop, &options, &self->w);
  if (failed != 0) {
    return bind_fail(L, failed, "watchdog");
  }
  self->loop = loop_hold(loop);
  luaL_setmetatable(L, WATCHDOG_TYPE);
  self->pin = bind_pin(L, index);
  push_key(L);
  lua_pushlightuserdata(L, self);
  lua_rawset(L, LUA_REGISTRYINDEX);
  return 1;
}

static void stop(lua_State *L, struct lua_watchdog *self) {
  if (self->w != NULL) {
    watchdog_free(self->w);
    self->w = NULL;
    forget(self);
    push_key(L);
    lua_pushnil(L);
    lua_rawset(L, LUA_REGISTRYINDEX);
  }
}

static int watchdog_lua_close(lua_State *L) {
  struct lua_watchdog *self = luaL_checkudata(L, 1, WATCHDOG_TYPE);
  stop(L, self);
  bind_unpin(L, &self->pin);
  return 0;
}

static int watchdog_lua_gc(lua_State *L) {
  struct lua_watchdog *self = luaL_checkudata(L, 1, WATCHDOG_TYPE);
  stop(L, self);
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

static int watchdog_lua_armed(lua_State *L) {
  struct lua_watchdog *self = luaL_checkudata(L, 1, WATCHDOG_TYPE);
  lua_pushboolean(L, self->w != NULL && watchdog_is_armed(self->w));
  return 1;
}

int luaopen_farcall_core_watchdog(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"close", watchdog_lua_close}, {"armed", watchdog_lua_armed}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", watchdog_lua_new}, {NULL, NULL}};
  bind_type(L, WATCHDOG_TYPE, methods, watchdog_lua_gc);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
