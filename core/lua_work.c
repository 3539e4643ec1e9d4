// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "err.h"
#include "modules.h"
#include "work.h"

#define WORK "farcall.work"

enum { MODE_MAX = 07777, WHOLE_FILE_MAX = 64 * 1024 * 1024 };
static const double FILE_SIZE_MAX = 9007199254740991.0; // the integers that a number holds exactly

// Its environment table holds the callbacks by job number. While any is there the object is pinned,
// and with it the environment.
struct lua_work {
  struct work *work; // NULL when closed
  struct loop *loop;
  lua_State *L; // bind_main's
  int self;     // reference while pinned
};

static struct lua_work *check_work(lua_State *L) {
  struct lua_work *self = luaL_checkudata(L, 1, WORK);
  if (self->work == NULL) {
    luaL_error(L, "work: already closed");
  }
  return self;
}

static void unpin_idle(lua_State *L, struct lua_work *self) {
  if (self->work == NULL || work_pending(self->work) == 0) {
    bind_unpin(L, &self->self);
  }
}

static void push_addresses(lua_State *L, const struct addrinfo *list) {
  lua_newtable(L);
  int n = 0;
  for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    bool is_v4 = a->ai_family == AF_INET && a->ai_addrlen >= sizeof in;
    if (!is_v4 && (a->ai_family != AF_INET6 || a->ai_addrlen < sizeof in6)) {
      continue;
    }
    lua_createtable(L, 0, 3);
    if (is_v4) {
      memcpy(&in, a->ai_addr, sizeof in);
      lua_pushinteger(L, ntohs(in.sin_port));
      inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    } else {
      memcpy(&in6, a->ai_addr, sizeof in6);
      lua_pushinteger(L, ntohs(in6.sin6_port));
      inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    }
    lua_setfield(L, -2, "port");
    lua_pushstring(L, text);
    lua_setfield(L, -2, "address");
    lua_pushstring(L, is_v4 ? "inet" : "inet6");
    lua_setfield(L, -2, "family");
    lua_rawseti(L, -2, ++n);
  }
}

// Pushes what the callback gets.
static int push_result(lua_State *L, const struct work_result *result) {
  if (result->code != 0) {
    bind_fail(L, result->code, result->what);
    if (result->detail != NULL) {
      lua_pushfstring(L, "%s: %s", result->what, result->detail);
      lua_replace(L, -3);
    }
    return 3;
  }
  if (result->addresses != NULL) {
    push_addresses(L, result->addresses);
    return 1;
  }
  if (result->bytes != NULL) {
    lua_pushlstring(L, result->bytes, result->size);
    lua_pushnumber(L, (lua_Number)result->file_size);
    return 2;
  }
  lua_pushboolean(L, true);
  return 1;
}

// Called in the callback's place, so that making its arguments is protected as well.
static int deliver(lua_State *L) {
  const struct work_result *result = lua_touserdata(L, 2);
  lua_settop(L, 1);
  int n = push_result(L, result);
  lua_call(L, n, 0);
  return 0;
}

static void done(const struct work_result *result, void *data) {
  struct lua_work *self = data;
  lua_State *L = self->L;
  struct loop *loop = self->loop;
  lua_pushcfunction(L, deliver);
  bind_push(L, self->self);
  lua_getfenv(L, -1);
  lua_pushnumber(L, (lua_Number)result->id);
  lua_gettable(L, -2); // deliver, self, env, callback
  lua_pushnumber(L, (lua_Number)result->id);
  lua_pushnil(L);
  lua_rawset(L, -4);
  lua_replace(L, -3); // deliver, callback, env
  lua_pop(L, 1);
  struct work_result copy = *result;
  lua_pushlightuserdata(L, &copy);
  unpin_idle(L, self); // the callback may start the next job, or close
  bind_call(L, loop, 2);
}

// Starts the job whose callback is at index fn; the path or host for messages is what.
static int submit(lua_State *L, struct lua_work *self, struct work_request *request, int fn,
                  const char *what) {
  request->done = done;
  request->data = self;
  lua_getfenv(L, 1);
  if (self->self == LUA_NOREF) {
    self->self = bind_pin(L, 1);
  }
  uint64_t id = 0;
  int code = work_submit(self->work, request, &id);
  if (code != 0) {
    unpin_idle(L, self);
    return bind_fail(L, code, what);
  }
  lua_pushnumber(L, (lua_Number)id);
  lua_pushvalue(L, fn);
  lua_rawset(L, -3);
  lua_pushnumber(L, (lua_Number)id);
  return 1;
}

static int lua_work_new(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  lua_State *main_state = bind_main(L);
  struct lua_work *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_work){.loop = loop, .L = main_state, .self = LUA_NOREF};
  luaL_getmetatable(L, WORK);
  lua_setmetatable(L, -2);
  lua_createtable(L, 1, 1);
  lua_pushliteral(L, "loop");
  lua_pushvalue(L, 1); // must not be collected before this
  lua_rawset(L, -3);
  lua_setfenv(L, -2);
  int code = work_new(loop, &self->work);
  return code != 0 ? bind_fail(L, code, NULL) : 1;
}

static double check_size(lua_State *L, int table, const char *key, double missing) {
  lua_getfield(L, table, key);
  double value = lua_isnil(L, -1) ? missing : luaL_checknumber(L, -1);
  lua_pop(L, 1);
  if (!(value >= 0 && value < FILE_SIZE_MAX)) {
    luaL_error(L, "%s: not a size", key);
  }
  return value;
}

// work:write_file(path, bytes, {mode=0600, sync=true, follow=false, parents=false}, fn) -> id
static int lua_work_write_file(lua_State *L) {
  static const char *const names[] = {"mode", "sync", "follow", "parents", NULL};
  struct lua_work *self = check_work(L);
  struct work_request request = {.kind = WORK_WRITE, .path = luaL_checkstring(L, 2)};
  request.bytes = luaL_checklstring(L, 3, &request.size);
  luaL_checktype(L, 4, LUA_TTABLE);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  bind_only_keys(L, 4, names);
  lua_getfield(L, 4, "mode");
  lua_Integer mode = luaL_optinteger(L, -1, 0600);
  luaL_argcheck(L, mode >= 0 && mode <= MODE_MAX, 4, "mode: not a file mode");
  request.write.mode = (mode_t)mode;
  lua_getfield(L, 4, "sync");
  request.write.sync = lua_isnil(L, -1) || lua_toboolean(L, -1);
  lua_getfield(L, 4, "follow");
  request.write.follow = lua_toboolean(L, -1);
  lua_getfield(L, 4, "parents");
  request.parents = lua_toboolean(L, -1);
  return submit(L, self, &request, 5, request.path);
}

// The whole file was asked for: more than there may be is an error.
static int deliver_whole(lua_State *L);

// work:read_file(path, {max=, offset=}, fn) -> id; fn(bytes, file_size) or fn(nil, message, code)
static int lua_work_read_file(lua_State *L) {
  static const char *const names[] = {"max", "offset", NULL};
  struct lua_work *self = check_work(L);
  struct work_request request = {.kind = WORK_READ, .path = luaL_checkstring(L, 2)};
  luaL_checktype(L, 3, LUA_TTABLE);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  bind_only_keys(L, 3, names);
  request.offset = (uint64_t)check_size(L, 3, "offset", 0);
  request.max = (size_t)check_size(L, 3, "max", WHOLE_FILE_MAX + 1.0);
  lua_getfield(L, 3, "max");
  int fn = 4;
  if (lua_isnil(L, -1)) {
    lua_pushvalue(L, 4);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, deliver_whole, 2);
    fn = lua_gettop(L);
  }
  return submit(L, self, &request, fn, request.path);
}

static int deliver_whole(lua_State *L) {
  if (lua_type(L, 1) == LUA_TSTRING && lua_objlen(L, 1) > WHOLE_FILE_MAX) {
    lua_settop(L, 0);
    bind_fail(L, ERR_LIMIT, lua_tostring(L, lua_upvalueindex(2)));
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

static int sync_job(lua_State *L, bool data_only) {
  struct lua_work *self = check_work(L);
  struct work_request request = {.kind = WORK_SYNC, .data_only = data_only};
  request.fd = (int)luaL_checkinteger(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  return submit(L, self, &request, 3, "fsync");
}

// work:fsync(fd, fn) -> id; the descriptor is duplicated and may be closed at once
static int lua_work_fsync(lua_State *L) {
  return sync_job(L, false);
}

static int lua_work_fdatasync(lua_State *L) {
  return sync_job(L, true);
}

// work:resolve(host, port, fn) -> id; fn({{family=, address=, port=}, ...}) or fn(nil, message,
// code)
static int lua_work_resolve(lua_State *L) {
  struct lua_work *self = check_work(L);
  struct work_request request = {.kind = WORK_RESOLVE, .host = luaL_checkstring(L, 2)};
  request.port = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  return submit(L, self, &request, 4, request.host);
}

// work:cancel(id) -> whether there was such a job; its callback will not come
static int lua_work_cancel(lua_State *L) {
  struct lua_work *self = check_work(L);
  double id = luaL_checknumber(L, 2);
  bool found = id >= 0 && id < FILE_SIZE_MAX && work_cancel(self->work, (uint64_t)id);
  if (found) {
    lua_getfenv(L, 1);
    lua_pushnumber(L, id);
    lua_pushnil(L);
    lua_rawset(L, -3);
    unpin_idle(L, self);
  }
  lua_pushboolean(L, found);
  return 1;
}

static int lua_work_pending(lua_State *L) {
  const struct lua_work *self = luaL_checkudata(L, 1, WORK);
  lua_pushnumber(L, self->work == NULL ? 0 : (lua_Number)work_pending(self->work));
  return 1;
}

static int lua_work_close(lua_State *L) {
  struct lua_work *self = luaL_checkudata(L, 1, WORK);
  work_free(self->work);
  self->work = NULL;
  bind_unpin(L, &self->self);
  lua_newtable(L); // lets go of the callbacks and the loop
  lua_setfenv(L, 1);
  return 0;
}

int luaopen_farcall_core_work(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"write_file", lua_work_write_file},
      {"read_file", lua_work_read_file},
      {"fsync", lua_work_fsync},
      {"fdatasync", lua_work_fdatasync},
      {"resolve", lua_work_resolve},
      {"cancel", lua_work_cancel},
      {"pending", lua_work_pending},
      {"close", lua_work_close},
      {NULL, NULL},
  };
  bind_type(L, WORK, methods, lua_work_close);
  lua_newtable(L);
  lua_pushcfunction(L, lua_work_new);
  lua_setfield(L, -2, "new");
  return 1;
}
