// SPDX-License-Identifier: MIT
// farcall.core.http: HTTP requests. A transfer keeps its function, its client and its body in its
// environment table, and is pinned while it runs.

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "bind.h"
#include "err.h"
#include "http.h"
#include "http_head.h"

#define HTTP_TYPE "farcall.http"
#define TRANSFER_TYPE "farcall.transfer"

enum { FN = 1, CLIENT, BODY };

enum { HEADERS_MAX = 64 };

struct lua_http {
  struct http *http;
  struct loop *loop; // held
  lua_State *main;
};

struct lua_transfer {
  struct http_transfer *transfer; // NULL when closed
  struct loop *loop;              // held
  lua_State *main;
  int pin;
};

static struct lua_transfer *check_transfer(lua_State *L) {
  return luaL_checkudata(L, 1, TRANSFER_TYPE);
}

static void on_change(struct http_transfer *transfer, void *data) {
  struct lua_transfer *self = data;
  lua_State *L = self->main;
  struct loop *loop = self->loop;
  bind_push(L, self->pin); // on the stack, and so alive until the call is over
  if (!http_is_live(transfer)) {
    bind_unpin(L, &self->pin);
  }
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, FN);
  lua_remove(L, -2);
  if (lua_isfunction(L, -1)) {
    bind_call(L, loop, 0);
  } else {
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

// Strings of a request are borrowed from its table, which stays on the stack meanwhile.
static const char *text_field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  const char *text = NULL;
  if (!lua_isnil(L, -1)) {
    size_t size;
    luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, index, name);
    text = lua_tolstring(L, -1, &size);
    luaL_argcheck(L, strlen(text) == size, index, "no NUL in a text of a request");
  }
  lua_pop(L, 1);
  return text;
}

static uint64_t number_field(lua_State *L, int index, const char *name, double scale) {
  lua_getfield(L, index, name);
  lua_Number number = luaL_optnumber(L, -1, 0);
  luaL_argcheck(L, number >= 0 && number * scale <= 9e12, index, name);
  lua_pop(L, 1);
  return (uint64_t)(number * scale);
}

static bool flag_field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool set = lua_toboolean(L, -1) != 0;
  lua_pop(L, 1);
  return set;
}

static void read_headers(lua_State *L, int index, const char **lines) {
  lua_getfield(L, index, "headers");
  size_t count = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
  luaL_argcheck(L, lua_istable(L, -1) || lua_isnil(L, -1), index, "headers: a list expected");
  luaL_argcheck(L, count <= HEADERS_MAX, index, "headers: too many");
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, -1, (int)i + 1);
    size_t size;
    luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, index, "headers: a list of strings expected");
    lines[i] = lua_tolstring(L, -1, &size);
    luaL_argcheck(L, strlen(lines[i]) == size, index, "headers: no NUL");
    lua_pop(L, 1);
  }
  lines[count] = NULL;
  lua_pop(L, 1);
}

static void read_request(lua_State *L, int index, struct http_request *request) {
  static const char *const names[] = {
      "method",   "url",   "unix_path", "headers",         "body",    "ca_file", "cert_file",
      "key_file", "proxy", "fresh",     "connect_timeout", "timeout", "max_in",  NULL};
  bind_only_keys(L, index, names);
  request->method = text_field(L, index, "method");
  request->url = text_field(L, index, "url");
  luaL_argcheck(L, request->url != NULL, index, "url expected");
  request->unix_path = text_field(L, index, "unix_path");
  request->ca_file = text_field(L, index, "ca_file");
  request->cert_file = text_field(L, index, "cert_file");
  request->key_file = text_field(L, index, "key_file");
  request->proxy = text_field(L, index, "proxy");
  request->connect_timeout_ms = number_field(L, index, "connect_timeout", 1000);
  request->timeout_ms = number_field(L, index, "timeout", 1000);
  request->max_in = (size_t)number_field(L, index, "max_in", 1);
  request->fresh = flag_field(L, index, "fresh");
  lua_getfield(L, index, "body");
  if (!lua_isnil(L, -1)) {
    luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, index, "body: a string expected");
    request->body = lua_tolstring(L, -1, &request->body_size);
  }
  lua_pop(L, 1);
}

static int start(lua_State *L, bool connect) {
  struct lua_http *client = luaL_checkudata(L, 1, HTTP_TYPE);
  const char *lines[HEADERS_MAX + 1];
  struct http_request request = {.headers = lines, .connect = connect};
  luaL_checktype(L, 2, LUA_TTABLE);
  read_request(L, 2, &request);
  read_headers(L, 2, lines);
  lua_settop(L, 2);
  struct lua_transfer *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_transfer){
      .loop = loop_hold(client->loop), .main = client->main, .pin = LUA_NOREF};
  luaL_setmetatable(L, TRANSFER_TYPE);
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, CLIENT);
  lua_getfield(L, 2, "body");
  lua_rawseti(L, -2, BODY);
  lua_setfenv(L, 3);
  self->pin = bind_pin(L, 3);
  request.fn = on_change;
  request.data = self;
  int failed = http_start(client->http, &request, &self->transfer);
  if (failed != 0) {
    bind_unpin(L, &self->pin);
    return bind_fail(L, failed, request.url);
  }
  return 1;
}

static int http_lua_request(lua_State *L) {
  return start(L, false);
}

static int http_lua_connect(lua_State *L) {
  return start(L, true);
}

static int http_lua_close(lua_State *L) {
  struct lua_http *self = luaL_checkudata(L, 1, HTTP_TYPE);
  http_close(self->http);
  return 0;
}

static int http_lua_gc(lua_State *L) {
  struct lua_http *self = luaL_checkudata(L, 1, HTTP_TYPE);
  http_free(self->http);
  loop_drop(self->loop);
  self->http = NULL;
  self->loop = NULL;
  return 0;
}

static int http_lua_new(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  lua_State *main = bind_main(L);
  struct lua_http *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_http){.main = main};
  int failed = http_new(loop, &self->http);
  if (failed != 0) {
    return bind_fail(L, failed, "http");
  }
  self->loop = loop_hold(loop);
  luaL_setmetatable(L, HTTP_TYPE);
  return 1;
}

static struct http_transfer *check_open(lua_State *L) {
  struct lua_transfer *self = check_transfer(L);
  if (self->transfer == NULL) {
    luaL_error(L, "the transfer is closed");
  }
  return self->transfer;
}

// nil, message, code: what libcurl says where it says something.
static int fail(lua_State *L, const struct http_transfer *transfer, int code) {
  const char *text = http_error_text(transfer);
  int pushed = bind_fail(L, code, NULL);
  if (text[0] != 0 && code != ERR_EOF && code != ERR_CLOSED && code != -EAGAIN) {
    lua_pushstring(L, text);
    lua_replace(L, -3);
  }
  return pushed;
}

static int transfer_on_change(lua_State *L) {
  check_open(L);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
  }
  lua_settop(L, 2);
  lua_getfenv(L, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, FN);
  return 0;
}

static int transfer_status(lua_State *L) {
  int status = http_status(check_open(L));
  if (status == 0) {
    lua_pushnil(L);
  } else {
    lua_pushinteger(L, status);
  }
  return 1;
}

// Adds a field to the table on top of the stack, under its name in lower case. What comes more than
// once is joined by commas.
static void add_field(lua_State *L, const struct http_field *field) {
  luaL_Buffer name;
  luaL_buffinit(L, &name);
  for (size_t i = 0; i < field->name_size; i++) {
    luaL_addchar(&name, (char)tolower((unsigned char)field->name[i]));
  }
  luaL_pushresult(&name);
  lua_pushvalue(L, -1);
  lua_rawget(L, -3);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushlstring(L, field->value, field->value_size);
  } else {
    lua_pushliteral(L, ", ");
    lua_pushlstring(L, field->value, field->value_size);
    lua_concat(L, 3);
  }
  lua_rawset(L, -3);
}

static int transfer_headers(lua_State *L) {
  size_t size;
  const char *head = http_head(check_open(L), &size);
  struct http_field field;
  lua_newtable(L);
  while (http_head_next(&head, &size, &field)) {
    add_field(L, &field);
  }
  return 1;
}

static int transfer_read(lua_State *L) {
  struct http_transfer *transfer = check_open(L);
  lua_Integer max = luaL_optinteger(L, 2, 65536);
  luaL_argcheck(L, max >= 1, 2, "a number of bytes expected");
  const char *bytes;
  size_t size;
  int failed = http_read(transfer, (size_t)max, &bytes, &size);
  if (failed != 0) {
    return fail(L, transfer, failed);
  }
  lua_pushlstring(L, bytes, size);
  return 1;
}

static int transfer_take_fd(lua_State *L) {
  struct http_transfer *transfer = check_open(L);
  int fd;
  int failed = http_take_fd(transfer, &fd);
  if (failed != 0) {
    return fail(L, transfer, failed);
  }
  lua_pushinteger(L, fd);
  return 1;
}

static int transfer_close(lua_State *L) {
  struct lua_transfer *self = check_transfer(L);
  http_transfer_free(self->transfer);
  self->transfer = NULL;
  bind_unpin(L, &self->pin);
  return 0;
}

static int transfer_gc(lua_State *L) {
  struct lua_transfer *self = check_transfer(L);
  http_transfer_free(self->transfer);
  self->transfer = NULL;
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

BIND_EXPORT int luaopen_farcall_core_http(lua_State *L);
int luaopen_farcall_core_http(lua_State *L) {
  static const luaL_Reg client_methods[] = {{"request", http_lua_request},
                                            {"connect", http_lua_connect},
                                            {"close", http_lua_close},
                                            {NULL, NULL}};
  static const luaL_Reg transfer_methods[] = {{"on_change", transfer_on_change},
                                              {"status", transfer_status},
                                              {"read", transfer_read},
                                              {"headers", transfer_headers},
                                              {"take_fd", transfer_take_fd},
                                              {"close", transfer_close},
                                              {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", http_lua_new}, {NULL, NULL}};
  bind_type(L, HTTP_TYPE, client_methods, http_lua_gc);
  bind_type(L, TRANSFER_TYPE, transfer_methods, transfer_gc);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
