// SPDX-License-Identifier: MIT
// The engine's thread of libfarcall: a Lua state that runs farcall.embed, which sees the rest of
// this file as the module farcall.core.embed. When Lua fails, which is a bug, the thread stays and
// answers every request with that.

#include <dlfcn.h>
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "embed.h"
#include "lua_tree.h"

static struct farcall *handle_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static void set_string(lua_State *L, const char *key, const char *value) {
  if (value != NULL) {
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
  }
}

// options() -> {config, environ, ignore_here, max_running}, before opened(). Of a variable that is
// there twice the first counts, as with getenv.
static int l_options(lua_State *L) {
  const struct farcall_options *options = &handle_of(L)->options;
  lua_newtable(L);
  set_string(L, "config", options->config);
  lua_pushboolean(L, options->ignore_here);
  lua_setfield(L, -2, "ignore_here");
  lua_pushnumber(L, (lua_Number)options->max_running);
  lua_setfield(L, -2, "max_running");
  if (options->environment == NULL) {
    return 1;
  }
  lua_newtable(L);
  for (const char *const *entry = options->environment; *entry != NULL; entry++) {
    const char *equals = strchr(*entry, '=');
    if (equals == NULL) {
      continue;
    }
    lua_pushlstring(L, *entry, (size_t)(equals - *entry));
    lua_pushvalue(L, -1);
    lua_rawget(L, -3);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushstring(L, equals + 1);
      lua_rawset(L, -3);
    } else {
      lua_pop(L, 2);
    }
  }
  lua_setfield(L, -2, "environ");
  return 1;
}

// opened() or opened(error): what farcall_open returns. Once.
static int l_opened(lua_State *L) {
  const char *error = luaL_optstring(L, 1, NULL);
  embed_opened(handle_of(L), error != NULL ? FARCALL_EOPEN : FARCALL_OK,
               error != NULL ? error : "");
  return 0;
}

// pollfd() -> a descriptor that is readable when turn() has something to do.
static int l_pollfd(lua_State *L) {
  int fd = handoff_pollfd(handle_of(L)->handoff);
  if (fd < 0) {
    return bind_fail(L, fd, "queue of requests");
  }
  lua_pushinteger(L, fd);
  return 1;
}

// turn(): collects what has come, for take.
static int l_turn(lua_State *L) {
  int code = handoff_turn(handle_of(L)->handoff, 0);
  if (code != 0) {
    return bind_fail(L, code, "queue of requests");
  }
  lua_pushboolean(L, 1);
  return 1;
}

// Adds a field to the table on top of the stack.
static void push_field(lua_State *L, const struct request_field *field) {
  int table = lua_gettop(L);
  if (field->group != NULL) {
    lua_getfield(L, table, field->group);
    if (lua_isnil(L, -1)) {
      lua_newtable(L);
      lua_pushvalue(L, -1);
      lua_setfield(L, table, field->group);
      lua_replace(L, -2);
    }
  }
  lua_pushlstring(L, field->value, field->size);
  if (field->name != NULL) {
    lua_setfield(L, -2, field->name);
  } else {
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
  }
  lua_settop(L, table);
}

static void push_request(lua_State *L, const struct request *request) {
  lua_newtable(L);
  set_string(L, "kind", request->kind);
  for (size_t i = 0; i < REQUEST_NUMBERS; i++) {
    if (request->numbers[i].value > 0) {
      lua_pushnumber(L, request->numbers[i].value);
      lua_setfield(L, -2, request->numbers[i].name);
    }
  }
  for (size_t i = 0; i < request->count; i++) {
    push_field(L, &request->fields[i]);
  }
}

// take() -> "request", id, table; "cancel", id; "stop"; "close"; or nothing.
static int l_take(lua_State *L) {
  static const char *const NAMES[] = {NULL, "request", "cancel", "stop", "close"};
  struct farcall *handle = handle_of(L);
  struct handoff_event event = handoff_take(handle->handoff);
  if (event.what == HANDOFF_NOTHING) {
    return 0;
  }
  handle->has_closed = handle->has_closed || event.what == HANDOFF_CLOSE;
  lua_pushstring(L, NAMES[event.what]);
  lua_pushnumber(L, (lua_Number)event.id);
  if (event.what != HANDOFF_REQUEST) {
    return 2;
  }
  const struct embed_parcel *parcel = event.request;
  push_request(L, parcel->request);
  return 3;
}

static bool flag(lua_State *L, const char *key) {
  lua_getfield(L, 2, key);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int number(lua_State *L, const char *key, int missing) {
  lua_getfield(L, 2, key);
  int value = lua_isnumber(L, -1) ? (int)lua_tointeger(L, -1) : missing;
  lua_pop(L, 1);
  return value;
}

// finish(id, {exit_code, signal, timed_out, truncated, restarted, out, err, json, signal_name,
// error_kind, error_op, error_text, error_hint, error_code}): all may be nil.
static int l_finish(lua_State *L) {
  static const char *const NAMES[EMBED_TEXTS] = {"out",         "err",        "json",
                                                 "signal_name", "error_kind", "error_op",
                                                 "error_text",  "error_hint", "error_code"};
  uint64_t id = (uint64_t)luaL_checknumber(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checkstack(L, EMBED_TEXTS + 4, NULL);
  struct embed_outcome outcome = {
      .exit_code = number(L, "exit_code", -1),
      .signal = number(L, "signal", 0),
      .timed_out = flag(L, "timed_out"),
      .truncated = flag(L, "truncated"),
      .restarted = flag(L, "restarted"),
  };
  for (int i = 0; i < EMBED_TEXTS; i++) {
    lua_getfield(L, 2, NAMES[i]); // stays on the stack, so that the text stays
    outcome.texts[i].bytes = lua_tolstring(L, -1, &outcome.texts[i].size);
  }
  embed_finish(handle_of(L), id, &outcome);
  return 0;
}

// unfinished() -> how many requests are accepted and not finished, those to come included.
static int l_unfinished(lua_State *L) {
  lua_pushnumber(L, (lua_Number)handoff_unfinished(handle_of(L)->handoff));
  return 1;
}

// ended(): everything is finished and cleaned up; those who wait for results are told.
static int l_ended(lua_State *L) {
  handoff_end(handle_of(L)->handoff);
  return 0;
}

// log(level, text)
static int l_log(lua_State *L) {
  const struct farcall *handle = handle_of(L);
  const char *level = luaL_checkstring(L, 1);
  const char *text = luaL_checkstring(L, 2);
  if (handle->options.log != NULL) {
    handle->options.log(handle->options.log_data, level, text);
  }
  return 0;
}

static int open_module(lua_State *L) {
  static const luaL_Reg FUNCTIONS[] = {
      {"options", l_options}, {"opened", l_opened}, {"pollfd", l_pollfd},
      {"turn", l_turn},       {"take", l_take},     {"finish", l_finish},
      {"log", l_log},         {"ended", l_ended},   {"unfinished", l_unfinished},
      {NULL, NULL},
  };
  lua_newtable(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  luaL_setfuncs(L, FUNCTIONS, 1);
  return 1;
}

static int traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL && luaL_callmeta(L, 1, "__tostring")) {
    message = lua_tostring(L, -1);
  }
  luaL_traceback(L, L, message != NULL ? message : "an error that is not a text", 1);
  return 1;
}

// require("farcall.embed").main(), called with the handle as light userdata.
static int run(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, open_module, 1);
  lua_setfield(L, -2, "farcall.core.embed");
  lua_settop(L, 0);
  lua_pushcfunction(L, traceback);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "farcall.embed");
  if (lua_pcall(L, 1, 1, 1) != 0) {
    return lua_error(L);
  }
  lua_getfield(L, -1, "main");
  if (lua_pcall(L, 0, 0, 1) != 0) {
    return lua_error(L);
  }
  return 0;
}

static void fail(struct farcall *handle, uint64_t id, const char *message) {
  struct embed_outcome outcome = {.exit_code = -1};
  outcome.texts[EMBED_ERROR_KIND] = (struct embed_text){"internal", strlen("internal")};
  outcome.texts[EMBED_ERROR_OP] = (struct embed_text){"engine", strlen("engine")};
  outcome.texts[EMBED_ERROR_TEXT] = (struct embed_text){message, strlen(message)};
  embed_finish(handle, id, &outcome);
}

// In the place of Lua, once that has failed.
static void serve_failures(struct farcall *handle, const char *message) {
  uint64_t id;
  while (handoff_any_taken(handle->handoff, &id)) {
    fail(handle, id, message);
  }
  handoff_stop(handle->handoff);
  bool ended = false;
  for (;;) {
    struct handoff_event event = handoff_take(handle->handoff);
    if (event.what == HANDOFF_CLOSE) {
      return;
    } else if (event.what == HANDOFF_REQUEST) {
      fail(handle, event.id, message);
    } else if (event.what == HANDOFF_NOTHING) {
      if (handle->has_closed) {
        return; // Lua failed while it was closing
      }
      if (!ended && handoff_unfinished(handle->handoff) == 0) {
        handoff_end(handle->handoff);
        ended = true;
      }
      int code = handoff_turn(handle->handoff, -1);
      if (code != 0 && code != -EINTR) {
        abort(); // the loop is broken: nothing would ever come
      }
    }
  }
}

// Modules such as lua-cjson take the names of Lua for granted. In a program they are there; when
// this library was loaded as a plugin, by dlopen without RTLD_GLOBAL, LuaJIT is seen by nobody
// else.
static void show_lua(void) {
  union {
    lua_State *(*function)(lua_Alloc, void *);
    void *address;
  } lua = {.function = lua_newstate};
  Dl_info info;
  if (dladdr(lua.address, &info) != 0 && info.dli_fname != NULL) {
    dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD); // for good
  }
}

static pthread_once_t shown = PTHREAD_ONCE_INIT;

void *embed_serve(void *argument) {
  struct farcall *handle = argument;
  pthread_once(&shown, show_lua);
  lua_State *L = lua_tree_open(handle->tree);
  if (L == NULL) {
    embed_opened(handle, FARCALL_ENOMEM, farcall_strerror(FARCALL_ENOMEM));
    return NULL;
  }
  int failed = lua_cpcall(L, run, handle);
  const char *text = failed != 0 ? lua_tostring(L, -1) : NULL;
  char message[sizeof handle->error];
  snprintf(message, sizeof message, "this is a bug, please report it: %s",
           text != NULL ? text : "an error that is not a text");
  lua_close(L);
  if (failed != 0 && !handle->has_opened) {
    embed_opened(handle, FARCALL_EOPEN, message);
  } else if (failed != 0) {
    if (handle->options.log != NULL) {
      handle->options.log(handle->options.log_data, "error", message);
    }
    serve_failures(handle, message);
  }
  return NULL;
}
