// SPDX-License-Identifier: MIT
#include "bind.h"

#include <stdint.h>
#include <string.h>

#include "err.h"

// Registry keys: addresses at which nothing can be. The same in every copy of this file, because
// the modules that are loaded on first use carry one each and must find what the others keep.
enum key { main_key = 0xFA1, handler_key, errors_key };

int bind_fail(lua_State *L, int code, const char *what) {
  lua_pushnil(L);
  if (what != NULL) {
    lua_pushfstring(L, "%s: %s", what, err_text(code));
  } else {
    lua_pushstring(L, err_text(code));
  }
  lua_pushstring(L, err_name(code));
  return 3;
}

static int describe(lua_State *L) {
  lua_pushfstring(L, "%s: %p", lua_tostring(L, lua_upvalueindex(1)), lua_topointer(L, 1));
  return 1;
}

void bind_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction gc) {
  if (luaL_newmetatable(L, type) == 0) {
    return;
  }
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_getfield(L, -1, "__tostring");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_pushstring(L, type);
    lua_pushcclosure(L, describe, 1);
  } else {
    lua_pushnil(L);
    lua_setfield(L, -3, "__tostring");
  }
  lua_setfield(L, -3, "__tostring");
  lua_setfield(L, -2, "__index");
  lua_pushstring(L, type);
  lua_setfield(L, -2, "__name");
  if (gc != NULL) {
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
  }
}

static int is_listed(const char *key, const char *const *names) {
  for (; *names != NULL; names++) {
    if (strcmp(key, *names) == 0) {
      return 1;
    }
  }
  return 0;
}

void bind_only_keys(lua_State *L, int index, const char *const *names) {
  luaL_checktype(L, index, LUA_TTABLE);
  lua_pushvalue(L, index);
  lua_pushnil(L);
  while (lua_next(L, -2) != 0) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
      luaL_error(L, "an option's name is a string, not a %s", luaL_typename(L, -1));
    }
    const char *key = lua_tostring(L, -1);
    if (!is_listed(key, names)) {
      luaL_error(L, "there is no option \"%s\"", key);
    }
  }
  lua_pop(L, 1);
}

int bind_pin(lua_State *L, int index) {
  lua_pushvalue(L, index);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

void bind_unpin(lua_State *L, int *ref) {
  luaL_unref(L, LUA_REGISTRYINDEX, *ref);
  *ref = LUA_NOREF;
}

void bind_push(lua_State *L, int ref) {
  if (ref == LUA_NOREF) {
    lua_pushnil(L);
  } else {
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  }
}

static void push_key(lua_State *L, enum key key) {
  union {
    uintptr_t from;
    void *to;
  } address = {.from = key};
  lua_pushlightuserdata(L, address.to);
}

static void registry_get(lua_State *L, enum key key) {
  push_key(L, key);
  lua_rawget(L, LUA_REGISTRYINDEX);
}

// Stores the value on top of the stack.
static void registry_set(lua_State *L, enum key key) {
  push_key(L, key);
  lua_insert(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);
}

// Only a string gets a traceback: an error that is an object belongs to whoever raised it.
static int add_traceback(lua_State *L) {
  if (lua_type(L, 1) == LUA_TSTRING) {
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
  }
  return 1;
}

lua_State *bind_main(lua_State *L) {
  registry_get(L, main_key);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  if (main == NULL) {
    lua_newtable(L);
    registry_set(L, errors_key);
    lua_pushcfunction(L, add_traceback);
    registry_set(L, handler_key);
    main = lua_newthread(L);
    registry_set(L, main_key);
  }
  return main;
}

void bind_call(lua_State *L, struct loop *loop, int nargs) {
  int function = lua_gettop(L) - nargs;
  registry_get(L, handler_key);
  lua_insert(L, function);
  if (lua_pcall(L, nargs, 0, function) != 0) {
    registry_get(L, errors_key);
    lua_pushlightuserdata(L, loop);
    lua_rawget(L, -2);
    if (lua_isnil(L, -1)) {
      lua_pushlightuserdata(L, loop);
      lua_pushvalue(L, -4);
      lua_rawset(L, -4);
    }
    lua_settop(L, function);
    loop_stop(loop);
  }
  lua_settop(L, function - 1);
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

// LuaJIT before 2.1.1 notes which thread runs when a call enters or a C function returns, but not
// when one raises. After callbacks on another thread it would take that thread for the running one
// until the next return, and a compiled trace that ends in between would crash. A call sets it
// right.
static void raise(lua_State *L) {
  lua_pushcfunction(L, nothing);
  lua_call(L, 0, 0);
  lua_error(L);
}

void bind_raise_kept(lua_State *L, struct loop *loop) {
  registry_get(L, errors_key);
  if (lua_istable(L, -1)) {
    lua_pushlightuserdata(L, loop);
    lua_rawget(L, -2);
    if (!lua_isnil(L, -1)) {
      lua_pushlightuserdata(L, loop);
      lua_pushnil(L);
      lua_rawset(L, -4);
      raise(L);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

struct loop *bind_check_loop(lua_State *L, int index) {
  struct loop *loop = *(struct loop **)luaL_checkudata(L, index, BIND_LOOP_TYPE);
  if (loop_is_closed(loop)) {
    luaL_error(L, "the loop is closed");
  }
  return loop;
}
