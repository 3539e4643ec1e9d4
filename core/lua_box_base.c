// SPDX-License-Identifier: MIT
// What a box has of the base and table libraries. Left out: whatever loads, dumps, reaches another
// environment or state, or controls the collector; coroutines; and time and chance (math.random).
#include <lauxlib.h>
#include <limits.h>

#include "lua_box.h"

// Unwinding a stack takes as long as so many instructions.
enum { CATCH_PRICE = 300 };

// A protected call that no strike stays in.
static int call_protected(lua_State *B, int arguments, int results) {
  struct box *box = box_nest(B);
  int nest = box->nest;
  int status = lua_pcall(B, arguments, results, 0);
  box->nest = nest - 1;
  if (box->struck != BOX_FINE) {
    lua_error(B);
  }
  if (status != 0) {
    box_spend(B, CATCH_PRICE);
  }
  return status;
}

static int safe_pcall(lua_State *B) {
  luaL_checkany(B, 1);
  int status = call_protected(B, lua_gettop(B) - 1, LUA_MULTRET);
  luaL_checkstack(B, 1, "pcall");
  lua_pushboolean(B, status == 0);
  lua_insert(B, 1);
  return lua_gettop(B);
}

// The handler runs after the stack has been unwound: inside the hook that strikes, where Lua would
// run it, no instruction is counted.
static int safe_xpcall(lua_State *B) {
  luaL_checkany(B, 2);
  lua_pushvalue(B, 2);
  lua_insert(B, 1); // handler, function, handler, arguments
  lua_remove(B, 3);
  int status = call_protected(B, lua_gettop(B) - 2, LUA_MULTRET);
  if (status != 0) {
    lua_pushvalue(B, 1);
    lua_insert(B, -2);
    call_protected(B, 1, 1);
  }
  luaL_checkstack(B, 1, "xpcall");
  lua_pushboolean(B, status == 0);
  lua_replace(B, 1);
  return lua_gettop(B);
}

// Whether the value at index a belongs before the one at index b.
static bool is_before(lua_State *B, int a, int b) {
  int64_t price = 1;
  if (lua_type(B, a) == LUA_TSTRING && lua_type(B, b) == LUA_TSTRING) {
    size_t la = lua_objlen(B, a);
    size_t lb = lua_objlen(B, b);
    price += (int64_t)((la < lb ? la : lb) / 64);
  }
  box_spend(B, price);
  if (lua_isnil(B, 2)) {
    return lua_lessthan(B, a, b);
  }
  lua_pushvalue(B, 2);
  lua_pushvalue(B, a < 0 ? a - 1 : a);
  lua_pushvalue(B, b < 0 ? b - 2 : b);
  lua_call(B, 2, 1);
  bool before = lua_toboolean(B, -1);
  lua_pop(B, 1);
  return before;
}

// The value on top of the stack goes down from place `at` of a heap with n places; it is popped.
static void sift(lua_State *B, int at, int n) {
  int value = lua_gettop(B);
  while (at <= n / 2) {
    int child = 2 * at;
    lua_rawgeti(B, 1, child);
    if (child < n) {
      lua_rawgeti(B, 1, child + 1);
      if (is_before(B, -2, -1)) {
        child++;
        lua_remove(B, -2);
      } else {
        lua_pop(B, 1);
      }
    }
    if (!is_before(B, value, -1)) {
      break;
    }
    lua_rawseti(B, 1, at);
    at = child;
  }
  lua_settop(B, value);
  lua_rawseti(B, 1, at);
}

// A heap sort: n log n steps whatever the order says, a contradictory one included.
static int safe_sort(lua_State *B) {
  luaL_checktype(B, 1, LUA_TTABLE);
  if (!lua_isnoneornil(B, 2)) {
    luaL_checktype(B, 2, LUA_TFUNCTION);
  }
  lua_settop(B, 2);
  struct box *box = box_nest(B);
  int n = (int)lua_objlen(B, 1);
  for (int at = n / 2; at >= 1; at--) {
    lua_rawgeti(B, 1, at);
    sift(B, at, n);
  }
  for (int last = n; last > 1; last--) {
    lua_rawgeti(B, 1, last);
    lua_rawgeti(B, 1, 1);
    lua_rawseti(B, 1, last);
    sift(B, 1, last - 1);
  }
  box->nest--;
  return 0;
}

// Only within the list: with any place, Lua's own one would shift for ever.
static int safe_insert(lua_State *B) {
  luaL_checktype(B, 1, LUA_TTABLE);
  int after = (int)lua_objlen(B, 1) + 1;
  int place = after;
  if (lua_gettop(B) == 3) {
    lua_Integer wanted = luaL_checkinteger(B, 2);
    luaL_argcheck(B, wanted >= 1 && wanted <= after, 2, "not a place in the list");
    place = (int)wanted;
  } else if (lua_gettop(B) != 2) {
    return luaL_error(B, "wrong number of arguments to 'insert'");
  }
  box_spend(B, 1 + (after - place) / 4);
  for (int at = after; at > place; at--) {
    lua_rawgeti(B, 1, at - 1);
    lua_rawseti(B, 1, at);
  }
  lua_rawseti(B, 1, place);
  return 0;
}

// Marks a list for JSON, so that an empty one is [] and not {}.
static int mark_array(lua_State *B) {
  lua_settop(B, 1);
  if (lua_isnil(B, 1)) {
    lua_newtable(B);
    lua_replace(B, 1);
  }
  luaL_checktype(B, 1, LUA_TTABLE);
  lua_rawgeti(B, LUA_REGISTRYINDEX, BOX_ARRAY);
  lua_setmetatable(B, 1);
  return 1;
}

// Copies what is listed from the table at index `from` to the one on top of the stack.
static void keep(lua_State *B, int from, const char *const *names) {
  for (; *names != NULL; names++) {
    lua_getfield(B, from, *names);
    lua_setfield(B, -2, *names);
  }
}

static void keep_library(lua_State *B, const char *name, const char *const *names) {
  lua_getfield(B, LUA_GLOBALSINDEX, name);
  lua_newtable(B);
  keep(B, lua_gettop(B) - 1, names);
  lua_setfield(B, -3, name);
  lua_pop(B, 1);
}

static void add(lua_State *B, const char *name, lua_CFunction fn) {
  lua_pushcfunction(B, fn);
  lua_setfield(B, -2, name);
}

static void add_mark(lua_State *B, int key) {
  lua_newtable(B);
  lua_pushboolean(B, 0);
  lua_setfield(B, -2, "__metatable");
  lua_rawseti(B, LUA_REGISTRYINDEX, key);
}

void box_open_base(lua_State *B) {
  static const char *const BASE[] = {"assert",       "error",    "getmetatable", "ipairs", "next",
                                     "pairs",        "rawequal", "rawget",       "rawset", "select",
                                     "setmetatable", "tonumber", "tostring",     "type",   "unpack",
                                     "_VERSION",     NULL};
  static const char *const MATH[] = {
      "abs",   "acos", "asin",  "atan", "atan2", "ceil", "cos",   "cosh", "deg", "exp",
      "floor", "fmod", "frexp", "huge", "ldexp", "log",  "log10", "max",  "min", "modf",
      "pi",    "pow",  "rad",   "sin",  "sinh",  "sqrt", "tan",   "tanh", NULL};
  keep(B, LUA_GLOBALSINDEX, BASE);
  keep_library(B, "math", MATH);
  add(B, "pcall", safe_pcall);
  add(B, "xpcall", safe_xpcall);
  add(B, "array", mark_array);
  lua_pushlightuserdata(B, NULL);
  lua_setfield(B, -2, "null");
  lua_pushvalue(B, -1);
  lua_setfield(B, -2, "_G");
  add_mark(B, BOX_ARRAY);
  add_mark(B, BOX_OBJECT);
}

void box_open_table(lua_State *B) {
  static const char *const TABLE[] = {"concat", "maxn", "move", "remove", NULL};
  keep_library(B, "table", TABLE);
  lua_getfield(B, -1, "table");
  add(B, "insert", safe_insert);
  add(B, "sort", safe_sort);
  lua_pop(B, 1);
}
