// SPDX-License-Identifier: MIT
#include <lauxlib.h>

#include "lua_sandbox.h"

enum {
  MAX_NODES = 500000, // parts of one value that crosses
  CALLBACK_PRICE = 50 // instructions
};

void sandbox_begin_copy(struct box_copy *copy, struct sandbox *s, lua_State *from, lua_State *to) {
  lua_State *L = s->box.B == from ? to : from;
  lua_State *B = s->box.B;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->marks);
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  lua_remove(L, -3);
  lua_rawgeti(B, LUA_REGISTRYINDEX, BOX_ARRAY);
  lua_rawgeti(B, LUA_REGISTRYINDEX, BOX_OBJECT);
  *copy = (struct box_copy){.from = from,
                            .to = to,
                            .from_array = lua_gettop(from) - 1,
                            .from_object = lua_gettop(from),
                            .to_array = lua_gettop(to) - 1,
                            .to_object = lua_gettop(to),
                            .nodes = MAX_NODES,
                            .bytes = s->box.limits.memory_bytes};
}

struct exchange {
  struct sandbox *s;
  int number;
  const char *problem;
};

// On the host's side, protected there: calls the function with copies of the box's arguments.
static int host_side(lua_State *L) {
  struct exchange *exchange = lua_touserdata(L, 1);
  struct sandbox *s = exchange->s;
  lua_State *B = s->box.B;
  int count = lua_gettop(B);
  luaL_checkstack(L, BOX_SLOTS + count, "callback");
  struct box_copy copy;
  sandbox_begin_copy(&copy, s, B, L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->callbacks);
  int callbacks = lua_gettop(L);
  lua_rawgeti(L, callbacks, exchange->number);
  int code = 0;
  for (int i = 1; i <= count && code == 0; i++) {
    code = box_copy(&copy, i);
  }
  lua_settop(B, count);
  if (code != 0) {
    return luaL_error(L, "cannot be passed: %s", copy.problem);
  }
  lua_call(L, count, 1);
  lua_rawseti(L, callbacks, 0);
  return 0;
}

// In the box: a host function, by its number in upvalue 1.
int sandbox_call_host(lua_State *B) {
  struct sandbox *s = (struct sandbox *)box_of(B);
  lua_State *L = s->box.host;
  box_spend(B, CALLBACK_PRICE);
  luaL_argcheck(B, lua_gettop(B) <= SANDBOX_RESULTS, SANDBOX_RESULTS, "too many arguments");
  luaL_checkstack(B, BOX_SLOTS, "callback");
  struct exchange exchange = {.s = s, .number = (int)lua_tointeger(B, lua_upvalueindex(1))};
  int top = lua_gettop(L);
  if (lua_cpcall(L, host_side, &exchange) != 0) {
    luaL_where(B, 1);
    size_t length = 0;
    const char *message = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : "";
    lua_pushlstring(B, message, length);
    lua_settop(L, top);
    lua_concat(B, 2);
    return lua_error(B);
  }
  struct box_copy copy;
  sandbox_begin_copy(&copy, s, L, B);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->callbacks);
  lua_rawgeti(L, -1, 0);
  int code = box_copy(&copy, lua_gettop(L));
  lua_settop(L, top);
  if (code != 0) {
    return luaL_error(B, "cannot be passed: %s", copy.problem);
  }
  return 1;
}
