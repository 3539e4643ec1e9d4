// SPDX-License-Identifier: MIT
// farcall.core.ssh: TCP connections and SSH over them. An object's functions stand in its
// environment table; it is pinned while the loop can call it.

#include <string.h>
#include <unistd.h>

#include "err.h"
#include "lua_ssh.h"
#include "ssh_hosts.h"
#include "tcp.h"

#define SSH_TYPE "farcall.ssh"
#define CONNECT_TYPE "farcall.ssh.connect"

enum { STEP_FN = 1, SIGN_FN, DEATH_FN };

struct lua_connect {
  struct tcp_connect *attempt; // NULL when over
  struct loop *loop;           // held
  lua_State *main;
  int pin;
};

struct lua_ssh {
  struct ssh *ssh;
  struct loop *loop; // held
  lua_State *main;
  int pin;
};

int lua_ssh_fail(lua_State *L, const struct ssh_failure *failure) {
  lua_pushnil(L);
  lua_pushstring(L, failure->text);
  lua_pushstring(L, failure->code);
  return 3;
}

// Pushes function number `which` of the pinned object, and takes it out of there.
static void push_function(lua_State *L, int pin, int which) {
  bind_push(L, pin);
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, which);
  lua_replace(L, -3);
  lua_pushnil(L);
  lua_rawseti(L, -2, which);
  lua_pop(L, 1);
}

static void set_function(lua_State *L, int object, int which, int function) {
  lua_getfenv(L, object);
  lua_pushvalue(L, function);
  lua_rawseti(L, -2, which);
  lua_pop(L, 1);
}

// TCP

static void on_connected(void *data, int code, int fd) {
  struct lua_connect *self = data;
  lua_State *L = self->main;
  struct loop *loop = self->loop;
  self->attempt = NULL;
  push_function(L, self->pin, STEP_FN);
  bind_unpin(L, &self->pin);
  if (code == 0) {
    lua_pushinteger(L, fd);
    bind_call(L, loop, 1);
  } else {
    bind_call(L, loop, bind_fail(L, code, "connect"));
  }
}

// ssh.connect(loop, address, port, fn) -> attempt; fn(fd), which is then the caller's, or fn(nil,
// message, code). attempt:close() gives up.
static int ssh_lua_connect(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  const char *address = luaL_checkstring(L, 2);
  const char *port = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_State *main = bind_main(L);
  struct lua_connect *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_connect){.loop = loop_hold(loop), .main = main, .pin = LUA_NOREF};
  luaL_setmetatable(L, CONNECT_TYPE);
  int index = lua_gettop(L);
  lua_createtable(L, 1, 0);
  lua_setfenv(L, index);
  set_function(L, index, STEP_FN, 4);
  int failed = tcp_connect_start(loop, address, port, on_connected, self, &self->attempt);
  if (failed != 0) {
    return bind_fail(L, failed, "connect");
  }
  self->pin = bind_pin(L, index);
  return 1;
}

static int connect_close(lua_State *L) {
  struct lua_connect *self = luaL_checkudata(L, 1, CONNECT_TYPE);
  if (self->attempt != NULL) {
    tcp_connect_stop(self->attempt);
    self->attempt = NULL;
  }
  bind_unpin(L, &self->pin);
  return 0;
}

static int connect_gc(lua_State *L) {
  struct lua_connect *self = luaL_checkudata(L, 1, CONNECT_TYPE);
  connect_close(L);
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

// Connections

static struct lua_ssh *check_self(lua_State *L) {
  struct lua_ssh *self = luaL_checkudata(L, 1, SSH_TYPE);
  luaL_argcheck(L, self->ssh != NULL, 1, "a connection expected");
  return self;
}

static uint32_t size_option(lua_State *L, const char *name, lua_Number most) {
  lua_getfield(L, 3, name);
  lua_Number size = luaL_optnumber(L, -1, 0);
  luaL_argcheck(L, size >= 0 && size <= most, 3, "a number of bytes expected");
  lua_pop(L, 1);
  return (uint32_t)size;
}

static void on_death(struct ssh *ssh, void *data) {
  struct lua_ssh *self = data;
  lua_State *L = self->main;
  struct loop *loop = self->loop;
  push_function(L, self->pin, DEATH_FN);
  bind_unpin(L, &self->pin);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  const struct ssh_failure *failure = ssh_death(ssh);
  lua_pushstring(L, failure->text);
  lua_pushstring(L, failure->code);
  bind_call(L, loop, 2);
}

// ssh.new(loop, fd, {window=, max_memory=}) -> connection, which owns fd. Whoever is done with it
// closes it: it is not collected while it lives.
static int ssh_lua_new(lua_State *L) {
  static const char *const names[] = {"window", "max_memory", NULL};
  struct loop *loop = bind_check_loop(L, 1);
  int fd = luaL_checkint(L, 2);
  struct ssh_options options = {0};
  if (!lua_isnoneornil(L, 3)) {
    bind_only_keys(L, 3, names);
    options.window = size_option(L, "window", 1 << 30);
    options.max_memory = size_option(L, "max_memory", 4e9);
  }
  lua_State *main = bind_main(L);
  struct lua_ssh *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_ssh){.loop = loop_hold(loop), .main = main, .pin = LUA_NOREF};
  luaL_setmetatable(L, SSH_TYPE);
  lua_createtable(L, 3, 0);
  lua_setfenv(L, -2);
  int failed = ssh_new(loop, fd, &options, &self->ssh);
  if (failed != 0) {
    close(fd);
    return bind_fail(L, failed, "connection");
  }
  ssh_on_death(self->ssh, on_death, self);
  self->pin = bind_pin(L, lua_gettop(L));
  return 1;
}

static void on_step(struct ssh *ssh, void *data) {
  struct lua_ssh *self = data;
  lua_State *L = self->main;
  const struct ssh_failure *failure = ssh_step_failure(ssh);
  push_function(L, self->pin, STEP_FN);
  int n = 1;
  if (failure->code != NULL) {
    n = lua_ssh_fail(L, failure);
  } else {
    lua_pushboolean(L, true);
  }
  bind_call(L, self->loop, n);
}

static void on_sign(struct ssh *ssh, const void *bytes, size_t size, void *data) {
  (void)ssh;
  struct lua_ssh *self = data;
  lua_State *L = self->main;
  push_function(L, self->pin, SIGN_FN);
  lua_pushlstring(L, bytes, size);
  bind_call(L, self->loop, 1);
}

// The function of a step stands at index fn; the step's own callback comes from the loop, so it may
// be kept after the step was started.
static int step_started(lua_State *L, int failed, int fn) {
  if (failed != 0) {
    return bind_fail(L, failed, "connection");
  }
  set_function(L, 1, STEP_FN, fn);
  lua_pushboolean(L, true);
  return 1;
}

// connection:handshake(types or nil, fn)
static int ssh_lua_handshake(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  const char *types = luaL_optstring(L, 2, NULL);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  return step_started(L, ssh_handshake(self->ssh, types, on_step, self), 3);
}

// connection:ask_methods(user, fn)
static int ssh_lua_ask_methods(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  const char *user = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  return step_started(L, ssh_auth_methods(self->ssh, user, on_step, self), 3);
}

// connection:auth_key(user, private key, fn)
static int ssh_lua_auth_key(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  const char *user = luaL_checkstring(L, 2);
  size_t size;
  const char *key = luaL_checklstring(L, 3, &size);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  return step_started(L, ssh_auth_key(self->ssh, user, key, size, on_step, self), 4);
}

// connection:auth_signer(user, public key, sign, fn); sign(bytes) leads to connection:signed
static int ssh_lua_auth_signer(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  const char *user = luaL_checkstring(L, 2);
  size_t size;
  const char *blob = luaL_checklstring(L, 3, &size);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  int failed = ssh_auth_signer(self->ssh, user, blob, size, on_sign, on_step, self);
  if (failed == 0) {
    set_function(L, 1, SIGN_FN, 4);
  }
  return step_started(L, failed, 5);
}

// connection:signed(signature or nil)
static int ssh_lua_signed(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  size_t size = 0;
  const char *signature = luaL_optlstring(L, 2, NULL, &size);
  ssh_signed(self->ssh, signature, size);
  return 0;
}

static int ssh_lua_host_key(lua_State *L) {
  size_t size;
  const char *key = ssh_host_key(check_self(L)->ssh, &size);
  if (key == NULL) {
    lua_pushnil(L);
  } else {
    lua_pushlstring(L, key, size);
  }
  return 1;
}

static int ssh_lua_methods(lua_State *L) {
  lua_pushstring(L, ssh_methods(check_self(L)->ssh));
  return 1;
}

static int ssh_lua_is_authenticated(lua_State *L) {
  lua_pushboolean(L, ssh_is_authenticated(check_self(L)->ssh));
  return 1;
}

// connection:serve(keepalive seconds, 0 for none)
static int ssh_lua_serve(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  lua_Number seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "seconds expected");
  int failed = ssh_serve(self->ssh, (uint64_t)(seconds * 1000));
  if (failed != 0) {
    return bind_fail(L, failed, "connection");
  }
  lua_pushboolean(L, true);
  return 1;
}

// connection:on_death(fn(message, code)); not when it is dead already
static int ssh_lua_on_death(lua_State *L) {
  check_self(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  set_function(L, 1, DEATH_FN, 2);
  return 0;
}

// connection:death() -> nil, or message, code
static int ssh_lua_death(lua_State *L) {
  const struct ssh_failure *failure = ssh_death(check_self(L)->ssh);
  if (failure->code == NULL) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushstring(L, failure->text);
  lua_pushstring(L, failure->code);
  return 2;
}

// connection:exec(command) -> channel
static int ssh_lua_exec(lua_State *L) {
  struct lua_ssh *self = check_self(L);
  return lua_ssh_exec(L, self->loop, self->ssh);
}

static int ssh_lua_census(lua_State *L) {
  struct ssh_census census = ssh_census(check_self(L)->ssh);
  lua_createtable(L, 0, 3);
  lua_pushnumber(L, (lua_Number)census.memory);
  lua_setfield(L, -2, "memory");
  lua_pushnumber(L, (lua_Number)census.open);
  lua_setfield(L, -2, "open");
  lua_pushnumber(L, (lua_Number)census.queued);
  lua_setfield(L, -2, "queued");
  return 1;
}

static int ssh_lua_close(lua_State *L) {
  ssh_close(check_self(L)->ssh);
  return 0;
}

static int ssh_lua_gc(lua_State *L) {
  struct lua_ssh *self = luaL_checkudata(L, 1, SSH_TYPE);
  ssh_free(self->ssh);
  self->ssh = NULL;
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

// ssh.is_hash_of(hashed, name) -> whether a hashed name of known_hosts is that of name
static int ssh_lua_is_hash_of(lua_State *L) {
  const char *hashed = luaL_checkstring(L, 1);
  lua_pushboolean(L, ssh_hosts_is_hash_of(hashed, luaL_checkstring(L, 2)));
  return 1;
}

BIND_EXPORT int luaopen_farcall_core_ssh(lua_State *L);

int luaopen_farcall_core_ssh(lua_State *L) {
  static const luaL_Reg attempt[] = {{"close", connect_close}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"handshake", ssh_lua_handshake},
                                     {"ask_methods", ssh_lua_ask_methods},
                                     {"auth_key", ssh_lua_auth_key},
                                     {"auth_signer", ssh_lua_auth_signer},
                                     {"signed", ssh_lua_signed},
                                     {"host_key", ssh_lua_host_key},
                                     {"methods", ssh_lua_methods},
                                     {"is_authenticated", ssh_lua_is_authenticated},
                                     {"serve", ssh_lua_serve},
                                     {"on_death", ssh_lua_on_death},
                                     {"death", ssh_lua_death},
                                     {"exec", ssh_lua_exec},
                                     {"census", ssh_lua_census},
                                     {"close", ssh_lua_close},
                                     {NULL, NULL}};
  static const luaL_Reg functions[] = {{"connect", ssh_lua_connect},
                                       {"new", ssh_lua_new},
                                       {"is_hash_of", ssh_lua_is_hash_of},
                                       {NULL, NULL}};
  bind_type(L, CONNECT_TYPE, attempt, connect_gc);
  bind_type(L, SSH_TYPE, methods, ssh_lua_gc);
  lua_ssh_channel_type(L);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
