// SPDX-License-Identifier: MIT
// farcall.core.sock: Unix sockets. Connections arrive as farcall.fdbuf objects.

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bind.h"
#include "err.h"
#include "lua_fdbuf.h"
#include "modules.h"
#include "sock.h"

#define LISTENER_TYPE "farcall.listener"

struct lua_listener {
  struct sock_listener *listener; // NULL when closed
  struct loop *loop;              // held
  lua_State *main;
  int pin;
};

static void push_id(lua_State *L, const char *name, lua_Number value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

struct arrival {
  struct loop *loop;
  int fd; // -1 once an fdbuf owns it
  const struct sock_peer *peer;
};

// Runs protected, because making the object may raise for want of memory. Arguments: the function
// and the arrival.
static int hand_over(lua_State *L) {
  struct arrival *arrival = lua_touserdata(L, 2);
  lua_settop(L, 1);
  int fd = arrival->fd;
  arrival->fd = -1;
  if (bind_push_fdbuf(L, arrival->loop, fd, NULL) != 0) {
    // Out of memory: the peer sees the end of the connection and may try again.
    return 0;
  }
  lua_createtable(L, 0, 3);
  push_id(L, "pid", (lua_Number)arrival->peer->pid);
  push_id(L, "uid", (lua_Number)arrival->peer->uid);
  push_id(L, "gid", (lua_Number)arrival->peer->gid);
  lua_call(L, 2, 0);
  return 0;
}

static void on_accept(void *data, int fd, const struct sock_peer *peer) {
  struct lua_listener *self = data;
  lua_State *L = self->main;
  struct arrival arrival = {.loop = self->loop, .fd = fd, .peer = peer};
  // The object stays on the stack, so that a callback that closes it cannot have it collected.
  bind_push(L, self->pin);
  lua_pushcfunction(L, hand_over);
  lua_getfenv(L, -2);
  lua_rawgeti(L, -1, 1);
  lua_remove(L, -2);
  lua_pushlightuserdata(L, &arrival);
  bind_call(L, self->loop, 2);
  lua_pop(L, 1);
  if (arrival.fd >= 0) {
    close(arrival.fd);
  }
}

static void read_options(lua_State *L, int index, struct sock_options *options) {
  static const char *const names[] = {"backlog", "mode", NULL};
  if (lua_isnoneornil(L, index)) {
    return;
  }
  bind_only_keys(L, index, names);
  lua_getfield(L, index, "backlog");
  options->backlog = luaL_optint(L, -1, 0);
  lua_getfield(L, index, "mode");
  lua_Integer mode = luaL_optinteger(L, -1, 0);
  luaL_argcheck(L, mode >= 0 && mode <= 0777, index, "mode from 0 to 0777 expected");
  options->mode = (mode_t)mode;
  lua_pop(L, 2);
}

// A path with a NUL inside would name another file than it shows.
static const char *check_path(lua_State *L, int index) {
  size_t size;
  const char *path = luaL_checklstring(L, index, &size);
  luaL_argcheck(L, strlen(path) == size, index, "a path has no NUL");
  return path;
}

static int fail_at(lua_State *L, int code, const char *path) {
  int pushed = bind_fail(L, code, path);
  if (code == -ENAMETOOLONG) {
    lua_pushfstring(L, "%s: a Unix socket's path has at most %d bytes, this one has %d", path,
                    (int)sock_path_max(), (int)strlen(path));
    lua_replace(L, -3);
  }
  return pushed;
}

static int sock_lua_listen(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  const char *path = check_path(L, 2);
  struct sock_options options = {0};
  read_options(L, 3, &options);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  lua_State *main = bind_main(L);
  struct lua_listener *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_listener){.loop = loop_hold(loop), .main = main, .pin = LUA_NOREF};
  luaL_setmetatable(L, LISTENER_TYPE);
  int index = lua_gettop(L);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 4);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, index);
  int failed = sock_listen(loop, path, &options, on_accept, self, &self->listener);
  if (failed != 0) {
    return fail_at(L, failed, path);
  }
  self->pin = bind_pin(L, index);
  return 1;
}

static int listener_close(lua_State *L) {
  struct lua_listener *self = luaL_checkudata(L, 1, LISTENER_TYPE);
  sock_close(self->listener);
  self->listener = NULL;
  bind_unpin(L, &self->pin);
  return 0;
}

static int listener_gc(lua_State *L) {
  struct lua_listener *self = luaL_checkudata(L, 1, LISTENER_TYPE);
  sock_close(self->listener);
  self->listener = NULL;
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

static int sock_lua_connect(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  const char *path = check_path(L, 2);
  int fd;
  int failed = sock_connect(path, &fd);
  if (failed == 0) {
    failed = bind_push_fdbuf(L, loop, fd, NULL);
  }
  return failed == 0 ? 1 : fail_at(L, failed, path);
}

static int sock_lua_pair(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  int ends[2];
  int failed = sock_pair(ends);
  if (failed != 0) {
    return bind_fail(L, failed, "socket pair");
  }
  failed = bind_push_fdbuf(L, loop, ends[0], NULL);
  if (failed != 0) {
    close(ends[1]);
    return bind_fail(L, failed, "socket pair");
  }
  lua_pushinteger(L, ends[1]);
  return 2;
}

int luaopen_farcall_core_sock(lua_State *L) {
  static const luaL_Reg methods[] = {{"close", listener_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"listen", sock_lua_listen},
                                       {"connect", sock_lua_connect},
                                       {"pair", sock_lua_pair},
                                       {NULL, NULL}};
  bind_type(L, LISTENER_TYPE, methods, listener_gc);
  // The type of the connections, should nobody have asked for it yet.
  luaopen_farcall_core_fdbuf(L);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
