// SPDX-License-Identifier: MIT
// farcall.core.sandbox: boxes as a program sees them. Values cross as copies; what a box raises or
// overruns comes back as nil, message, code. No error of one state ever passes frames of the other.
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"
#include "err.h"
#include "lua_sandbox.h"
#include "modules.h"

#define TYPE "farcall.sandbox"

enum {
  DEFAULT_MEMORY = 32 << 20,
  DEFAULT_INSTRUCTIONS = 5000000,
  DEFAULT_MILLISECONDS = 250,
  MAX_MESSAGE = 2000
};

static struct sandbox *check_open(lua_State *L) {
  struct sandbox *s = luaL_checkudata(L, 1, TYPE);
  luaL_argcheck(L, s->box.B != NULL, 1, "the box is closed");
  luaL_argcheck(L, s->box.host == NULL, 1, "the box is busy with a call");
  return s;
}

// nil, the message on top of the stack, code.
static int fail(lua_State *L, int code) {
  lua_pushnil(L);
  lua_insert(L, -2);
  lua_pushstring(L, err_name(code));
  return 3;
}

// Inside the box: ends the call because a value cannot cross.
static int refuse(lua_State *B, struct sandbox *s, int code, const char *problem) {
  s->problem = problem;
  s->problem_code = code;
  lua_pushnil(B);
  return lua_error(B);
}

struct source {
  const char *bytes;
  size_t length;
};

static const char *read_source(lua_State *B, void *data, size_t *length) {
  (void)B;
  struct source *source = data;
  *length = source->length;
  source->length = 0;
  return *length > 0 ? source->bytes : NULL;
}

// Host's stack in every entry: 1 the box, then what the function says.

// 2 source, 3 chunk name.
static int enter_load(lua_State *B) {
  struct sandbox *s = (struct sandbox *)box_of(B);
  lua_State *L = s->box.host;
  struct source source;
  source.bytes = lua_tolstring(L, 2, &source.length);
  const char *name = lua_tostring(L, 3);
  if (source.length > 0 && source.bytes[0] == '\033') {
    return luaL_error(B, "%s:1: this is compiled code; only text is loaded", name + 1);
  }
  if (lua_loadx(B, read_source, &source, name, "t") != 0) {
    return lua_error(B);
  }
  lua_getfield(B, LUA_REGISTRYINDEX, "_LOADED");
  lua_getfield(B, -1, "ffi");
  if (!lua_isnil(B, -1)) {
    return luaL_error(B, "%s:1: numbers of 64 bits and imaginary ones are not there", name + 1);
  }
  lua_pop(B, 2);
  if (s->prelude) {
    lua_rawgeti(B, LUA_REGISTRYINDEX, BOX_METHODS);
    lua_getfield(B, -1, "load");
    lua_replace(B, -2);
    lua_insert(B, -2);
  }
  lua_call(B, 0, 1);
  if (s->prelude) {
    lua_call(B, 1, LUA_MULTRET);
    return lua_gettop(B);
  }
  if (!lua_istable(B, -1)) {
    return luaL_error(B, "%s:1: the file must return a table", name + 1);
  }
  lua_pushvalue(B, -1);
  lua_rawseti(B, LUA_REGISTRYINDEX, BOX_METHODS);
  return 1;
}

// 2 name of the method, then its arguments.
static int enter_call(lua_State *B) {
  struct sandbox *s = (struct sandbox *)box_of(B);
  lua_State *L = s->box.host;
  int last = lua_gettop(L);
  size_t length;
  const char *name = lua_tolstring(L, 2, &length);
  struct box_copy copy;
  sandbox_begin_copy(&copy, s, L, B);
  lua_rawgeti(B, LUA_REGISTRYINDEX, BOX_METHODS);
  if (lua_isnil(B, -1)) {
    return refuse(B, s, ERR_TYPE, "nothing has been loaded");
  }
  lua_pushlstring(B, name, length);
  lua_rawget(B, -2);
  if (!lua_isfunction(B, -1)) {
    return refuse(B, s, ERR_TYPE, "no such function");
  }
  luaL_checkstack(B, BOX_SLOTS + last, "arguments");
  for (int i = 3; i <= last; i++) {
    int code = box_copy(&copy, i);
    if (code != 0) {
      return refuse(B, s, code, copy.problem);
    }
  }
  int base = copy.to_object + 1; // the table of methods
  lua_call(B, last - 2, LUA_MULTRET);
  return lua_gettop(B) - base;
}

// 2 prelude, 3 names of callbacks in the order of their numbers; each may be nil.
static int enter_new(lua_State *B) {
  lua_State *L = box_of(B)->host;
  struct source prelude = {.bytes = NULL};
  prelude.bytes = lua_tolstring(L, 2, &prelude.length);
  if (prelude.bytes != NULL && lua_load(B, read_source, &prelude, "=farcall") != 0) {
    return lua_error(B);
  }
  if (prelude.bytes != NULL) {
    lua_newtable(B);
  } else {
    lua_pushvalue(B, LUA_GLOBALSINDEX);
  }
  for (int i = 1; i <= (int)lua_objlen(L, 3); i++) {
    lua_rawgeti(L, 3, i);
    size_t length;
    const char *name = lua_tolstring(L, -1, &length);
    lua_pushlstring(B, name, length);
    lua_pushinteger(B, i);
    lua_pushcclosure(B, sandbox_call_host, 1);
    lua_rawset(B, -3);
    lua_pop(L, 1);
  }
  if (prelude.bytes != NULL) {
    lua_call(B, 1, 1);
    luaL_checktype(B, -1, LUA_TTABLE);
    lua_rawseti(B, LUA_REGISTRYINDEX, BOX_METHODS);
  }
  return 0;
}

// The message of a failed entry, as a string on the host's stack.
static void push_message(lua_State *L, struct sandbox *s, int code, bool was_dead) {
  const struct box *box = &s->box;
  if (was_dead) {
    lua_pushfstring(L, "out of service since it needed more than %d bytes of memory",
                    (int)box->limits.memory_bytes);
  } else if (code == ERR_INSTRUCTIONS) {
    lua_pushfstring(L, "%sran more than %d instructions", box->where,
                    (int)box->limits.instructions);
  } else if (code == ERR_TIMEOUT) {
    lua_pushfstring(L, "%sran longer than %d ms", box->where, (int)box->limits.milliseconds);
  } else if (code == ERR_MEMORY) {
    lua_pushfstring(L, "%sneeded more than %d bytes of memory", box->where,
                    (int)box->limits.memory_bytes);
  } else if (s->problem != NULL) {
    lua_pushfstring(L, "cannot be passed: %s", s->problem);
  } else if (lua_type(box->B, -1) == LUA_TSTRING) {
    size_t length;
    const char *message = lua_tolstring(box->B, -1, &length);
    lua_pushlstring(L, message, length < MAX_MESSAGE ? length : MAX_MESSAGE);
  } else {
    lua_pushfstring(L, "raised an error that is a %s, not a message", luaL_typename(box->B, -1));
  }
}

// Enters the box; 0 with its results on its stack, or 3 for nil, message, code on the host's.
static int enter(lua_State *L, struct sandbox *s, lua_CFunction fn) {
  int top = lua_gettop(L);
  bool was_dead = s->box.dead;
  luaL_checkstack(L, BOX_SLOTS, "sandbox");
  s->problem = NULL;
  s->box.host = L;
  int code = box_enter(&s->box, fn);
  s->box.host = NULL;
  lua_settop(L, top);
  if (code == 0) {
    return 0;
  }
  if (code == ERR_RAISED && s->problem != NULL) {
    code = s->problem_code;
  }
  push_message(L, s, code, was_dead);
  return fail(L, code);
}

// Copies what the entry has returned behind a true.
static int return_results(lua_State *L, struct sandbox *s, bool functions) {
  lua_State *B = s->box.B;
  int count = lua_gettop(B);
  if (count > SANDBOX_RESULTS) {
    lua_pushliteral(L, "cannot be passed: too many results");
    return fail(L, ERR_LIMIT);
  }
  luaL_checkstack(L, BOX_SLOTS + count, "sandbox");
  struct box_copy copy;
  sandbox_begin_copy(&copy, s, B, L);
  copy.functions = functions;
  lua_pushboolean(L, 1);
  for (int i = 1; i <= count; i++) {
    int code = box_copy(&copy, i);
    if (code != 0) {
      lua_pushfstring(L, "cannot be passed: %s", copy.problem);
      return fail(L, code);
    }
  }
  lua_settop(B, 0);
  return count + 1;
}

static int sandbox_load(lua_State *L) {
  struct sandbox *s = check_open(L);
  luaL_checkstring(L, 2);
  const char *name = luaL_checkstring(L, 3);
  luaL_argcheck(L, name[0] == '@' || name[0] == '=', 3, "must begin with @ or =");
  lua_settop(L, 3);
  snprintf(s->box.file, sizeof(s->box.file), "%s", name + 1);
  int failed = enter(L, s, enter_load);
  return failed ? failed : return_results(L, s, true);
}

static int sandbox_call(lua_State *L) {
  struct sandbox *s = check_open(L);
  luaL_checkstring(L, 2);
  int failed = enter(L, s, enter_call);
  return failed ? failed : return_results(L, s, false);
}

static int sandbox_usage(lua_State *L) {
  struct sandbox *s = check_open(L);
  lua_createtable(L, 0, 2);
  lua_pushnumber(L, (lua_Number)s->box.used);
  lua_setfield(L, -2, "memory_bytes");
  lua_pushnumber(L, (lua_Number)(s->box.limits.instructions - s->box.left));
  lua_setfield(L, -2, "instructions");
  lua_pushboolean(L, s->box.dead);
  lua_setfield(L, -2, "dead");
  return 1;
}

static int sandbox_close(lua_State *L) {
  struct sandbox *s = luaL_checkudata(L, 1, TYPE);
  luaL_argcheck(L, s->box.host == NULL, 1, "the box is busy with a call");
  box_close(&s->box);
  luaL_unref(L, LUA_REGISTRYINDEX, s->callbacks);
  s->callbacks = LUA_NOREF;
  return 0;
}

static int64_t check_limit(lua_State *L, const char *key, int64_t otherwise) {
  lua_getfield(L, 1, key);
  lua_Number value = lua_isnil(L, -1) ? (lua_Number)otherwise : lua_tonumber(L, -1);
  if (!(value >= 1 && value <= 2e9)) {
    luaL_error(L, "%s must be a number from 1 to 2e9", key);
  }
  lua_pop(L, 1);
  return (int64_t)value;
}

// Leaves a list of names on top of the stack, and below it the table {function, ...}.
static void check_callbacks(lua_State *L) {
  lua_newtable(L);
  lua_newtable(L);
  int names = lua_gettop(L);
  lua_getfield(L, 1, "callbacks");
  if (!lua_isnil(L, -1)) {
    luaL_checktype(L, -1, LUA_TTABLE);
    int number = 0;
    for (lua_pushnil(L); lua_next(L, names + 1);) {
      if (lua_type(L, -2) != LUA_TSTRING || !lua_isfunction(L, -1)) {
        luaL_error(L, "callbacks must be functions by name");
      }
      lua_rawseti(L, names - 1, ++number);
      lua_pushvalue(L, -1);
      lua_rawseti(L, names, number);
    }
  }
  lua_settop(L, names);
}

// Upvalue 1: the reference of the marks.
static int sandbox_new(lua_State *L) {
  static const char *const KEYS[] = {"memory_bytes", "instructions", "milliseconds",
                                     "prelude",      "callbacks",    NULL};
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bind_only_keys(L, 1, KEYS);
  struct box_limits limits = {.memory_bytes =
                                  (size_t)check_limit(L, "memory_bytes", DEFAULT_MEMORY),
                              .instructions = check_limit(L, "instructions", DEFAULT_INSTRUCTIONS),
                              .milliseconds = check_limit(L, "milliseconds", DEFAULT_MILLISECONDS)};
  lua_getfield(L, 1, "prelude"); // 2
  luaL_argcheck(L, lua_isnil(L, 2) || lua_type(L, 2) == LUA_TSTRING, 1, "prelude is not a string");
  check_callbacks(L); // 3 and 4
  struct sandbox *s = lua_newuserdata(L, sizeof(*s));
  memset(s, 0, sizeof(*s));
  s->prelude = !lua_isnil(L, 2);
  s->marks = (int)lua_tointeger(L, lua_upvalueindex(1));
  s->callbacks = LUA_NOREF;
  luaL_getmetatable(L, TYPE);
  lua_setmetatable(L, -2);
  lua_replace(L, 1);
  lua_pushvalue(L, 3);
  s->callbacks = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_remove(L, 3); // 1 box, 2 prelude, 3 names: as enter_new wants it
  int code = box_open(&s->box, &limits);
  if (code != 0) {
    return bind_fail(L, code, "sandbox");
  }
  int failed = enter(L, s, enter_new);
  if (failed) {
    return failed;
  }
  lua_settop(L, 1);
  return 1;
}

// Keeps the metatables with which the JSON module marks arrays and objects. Returns a reference.
static int find_marks(lua_State *L) {
  lua_createtable(L, 2, 0);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "farcall.core.json");
  lua_call(L, 1, 1);
  static const char *const MAKERS[] = {"array", "object"};
  for (int i = 0; i < 2; i++) {
    lua_getfield(L, -1, MAKERS[i]);
    lua_newtable(L);
    lua_call(L, 1, 1);
    if (!lua_getmetatable(L, -1)) {
      return luaL_error(L, "farcall.core.json does not mark with metatables");
    }
    lua_rawseti(L, -4, i + 1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

int luaopen_farcall_core_sandbox(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"load", sandbox_load},
                                     {"call", sandbox_call},
                                     {"usage", sandbox_usage},
                                     {"close", sandbox_close},
                                     {NULL, NULL}};
  bind_type(L, TYPE, METHODS, sandbox_close);
  lua_pop(L, 1);
  lua_createtable(L, 0, 1);
  lua_pushinteger(L, find_marks(L));
  lua_pushcclosure(L, sandbox_new, 1);
  lua_setfield(L, -2, "new");
  return 1;
}
