// SPDX-License-Identifier: MIT
// A channel of farcall.core.ssh. Its environment table keeps its connection alive and holds its
// function; it is pinned while it has one and is not done.

#include <errno.h>
#include <string.h>

#include "err.h"
#include "lua_ssh.h"

#define CHANNEL_TYPE "farcall.ssh.channel"

enum { CHANGE_FN = 1, CONNECTION };
enum { READ_MAX = 256 * 1024 };

static const char *const STATES[] = {"queued", "opening", "starting", "running", "closing", "done"};

struct lua_channel {
  struct ssh_channel *channel;
  struct loop *loop; // held
  lua_State *main;
  int pin;
};

static struct lua_channel *check_self(lua_State *L) {
  struct lua_channel *self = luaL_checkudata(L, 1, CHANNEL_TYPE);
  luaL_argcheck(L, self->channel != NULL, 1, "a channel expected");
  return self;
}

static void on_change(struct ssh_channel *channel, void *data) {
  struct lua_channel *self = data;
  lua_State *L = self->main;
  struct loop *loop = self->loop;
  if (self->pin == LUA_NOREF) {
    return;
  }
  bind_push(L, self->pin);
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, CHANGE_FN);
  lua_remove(L, -2);
  if (ssh_channel_state(channel) == SSH_DONE) {
    bind_unpin(L, &self->pin);
  }
  // The object stays on the stack, and so alive, until the call is over.
  bind_call(L, loop, 0);
  lua_pop(L, 1);
}

int lua_ssh_exec(lua_State *L, struct loop *loop, struct ssh *ssh) {
  size_t size;
  const char *command = luaL_checklstring(L, 2, &size);
  lua_State *main = bind_main(L);
  struct lua_channel *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_channel){.loop = loop_hold(loop), .main = main, .pin = LUA_NOREF};
  luaL_setmetatable(L, CHANNEL_TYPE);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, CONNECTION);
  lua_setfenv(L, -2);
  int failed = ssh_exec(ssh, command, size, on_change, self, &self->channel);
  if (failed != 0 && ssh_death(ssh)->code != NULL) {
    return lua_ssh_fail(L, ssh_death(ssh));
  }
  return failed == 0 ? 1 : bind_fail(L, failed, "exec");
}

// channel:on_change(fn or nil): fn() is called when the state has changed, when a read that said
// EAGAIN could say something else, and when everything written has gone
static int channel_on_change(lua_State *L) {
  struct lua_channel *self = check_self(L);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
  }
  lua_settop(L, 2);
  lua_getfenv(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, CHANGE_FN);
  if (lua_isnil(L, 2)) {
    bind_unpin(L, &self->pin);
  } else if (self->pin == LUA_NOREF && ssh_channel_state(self->channel) != SSH_DONE) {
    self->pin = bind_pin(L, 1);
  }
  return 0;
}

// channel:read(max) -> "out" or "err", bytes; or nil, message, code
static int channel_read(lua_State *L) {
  struct lua_channel *self = check_self(L);
  lua_Number wanted = luaL_checknumber(L, 2);
  luaL_argcheck(L, wanted >= 1, 2, "a number of bytes expected");
  size_t max = wanted < READ_MAX ? (size_t)wanted : READ_MAX;
  char bytes[32768];
  size_t size;
  int stream;
  int failed = ssh_channel_read(self->channel, bytes, max < sizeof bytes ? max : sizeof bytes,
                                &size, &stream);
  if (failed == 0) {
    lua_pushstring(L, stream == 0 ? "out" : "err");
    lua_pushlstring(L, bytes, size);
    return 2;
  }
  const struct ssh_failure *failure = ssh_channel_failure(self->channel);
  if (failed == ERR_EOF && failure->code != NULL) {
    return lua_ssh_fail(L, failure);
  }
  return bind_fail(L, failed, NULL);
}

// channel:write(bytes) -> bytes still queued
static int channel_write(lua_State *L) {
  struct lua_channel *self = check_self(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int failed = ssh_channel_write(self->channel, bytes, size);
  if (failed != 0) {
    return bind_fail(L, failed, NULL);
  }
  lua_pushnumber(L, (lua_Number)ssh_channel_pending(self->channel));
  return 1;
}

static int channel_pending(lua_State *L) {
  lua_pushnumber(L, (lua_Number)ssh_channel_pending(check_self(L)->channel));
  return 1;
}

static int channel_finish(lua_State *L) {
  ssh_channel_finish(check_self(L)->channel);
  return 0;
}

static int channel_close(lua_State *L) {
  ssh_channel_close(check_self(L)->channel);
  return 0;
}

// channel:state() -> "queued", "opening", "starting", "running", "closing" or "done"
static int channel_state(lua_State *L) {
  lua_pushstring(L, STATES[ssh_channel_state(check_self(L)->channel)]);
  return 1;
}

// channel:is_pending() -> whether the server has not answered yet to its start
static int channel_is_pending(lua_State *L) {
  lua_pushboolean(L, ssh_channel_state(check_self(L)->channel) < SSH_RUNNING);
  return 1;
}

// channel:has_dropped() -> whether the command ended before all its input was sent
static int channel_has_dropped(lua_State *L) {
  lua_pushboolean(L, ssh_channel_has_dropped(check_self(L)->channel));
  return 1;
}

// channel:exit() -> code, or nil and the signal's name; or nil, message, code of why there is none
static int channel_exit(lua_State *L) {
  const struct ssh_channel *channel = check_self(L)->channel;
  const struct ssh_exit *ended = ssh_channel_exit(channel);
  if (!ended->known) {
    const struct ssh_failure *failure = ssh_channel_failure(channel);
    return failure->code != NULL ? lua_ssh_fail(L, failure) : bind_fail(L, -EAGAIN, NULL);
  }
  if (ended->signal[0] != '\0') {
    lua_pushnil(L);
    lua_pushstring(L, ended->signal);
    return 2;
  }
  lua_pushinteger(L, ended->code);
  return 1;
}

static int channel_gc(lua_State *L) {
  struct lua_channel *self = luaL_checkudata(L, 1, CHANNEL_TYPE);
  ssh_channel_free(self->channel);
  self->channel = NULL;
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

void lua_ssh_channel_type(lua_State *L) {
  static const luaL_Reg methods[] = {{"on_change", channel_on_change},
                                     {"read", channel_read},
                                     {"write", channel_write},
                                     {"pending", channel_pending},
                                     {"finish", channel_finish},
                                     {"close", channel_close},
                                     {"state", channel_state},
                                     {"is_pending", channel_is_pending},
                                     {"has_dropped", channel_has_dropped},
                                     {"exit", channel_exit},
                                     {NULL, NULL}};
  bind_type(L, CHANNEL_TYPE, methods, channel_gc);
}
