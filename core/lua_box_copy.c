// SPDX-License-Identifier: MIT
#include "err.h"
#include "lua_box.h"

static int refuse(struct box_copy *copy, int code, const char *problem) {
  copy->problem = problem;
  return code;
}

static int copy_value(struct box_copy *copy, int index, int depth);

// Keeps the mark that says whether an empty table is [] or {}.
static void copy_mark(struct box_copy *copy, int index) {
  if (!lua_getmetatable(copy->from, index)) {
    return;
  }
  int mark = 0;
  if (lua_rawequal(copy->from, -1, copy->from_array)) {
    mark = copy->to_array;
  } else if (lua_rawequal(copy->from, -1, copy->from_object)) {
    mark = copy->to_object;
  }
  lua_pop(copy->from, 1);
  if (mark != 0) {
    lua_pushvalue(copy->to, mark);
    lua_setmetatable(copy->to, -2);
  }
}

static int copy_table(struct box_copy *copy, int index, int depth) {
  if (depth == BOX_DEPTH) {
    return refuse(copy, ERR_DEPTH, "a table nested too deeply, or in itself");
  }
  lua_State *from = copy->from;
  lua_State *to = copy->to;
  size_t length = lua_objlen(from, index);
  if (length > copy->nodes) {
    return refuse(copy, ERR_LIMIT, "a table with too many fields");
  }
  lua_createtable(to, (int)length, 0);
  lua_pushnil(from);
  while (lua_next(from, index)) {
    int value = lua_gettop(from);
    int type = lua_type(from, value - 1);
    int code = type == LUA_TSTRING || type == LUA_TNUMBER
                   ? copy_value(copy, value - 1, depth + 1)
                   : refuse(copy, ERR_TYPE, "a key that is not a string or number");
    if (code == 0) {
      code = copy_value(copy, value, depth + 1);
      if (code != 0) {
        lua_pop(to, 1);
      }
    }
    if (code != 0) {
      lua_pop(to, 1);
      lua_pop(from, 2);
      return code;
    }
    lua_rawset(to, -3);
    lua_pop(from, 1);
  }
  copy_mark(copy, index);
  return 0;
}

static int copy_value(struct box_copy *copy, int index, int depth) {
  if (copy->nodes == 0) {
    return refuse(copy, ERR_LIMIT, "a value with too many parts");
  }
  copy->nodes--;
  switch (lua_type(copy->from, index)) {
  case LUA_TNIL:
    lua_pushnil(copy->to);
    return 0;
  case LUA_TBOOLEAN:
    lua_pushboolean(copy->to, lua_toboolean(copy->from, index));
    return 0;
  case LUA_TNUMBER:
    lua_pushnumber(copy->to, lua_tonumber(copy->from, index));
    return 0;
  case LUA_TSTRING: {
    size_t length;
    const char *bytes = lua_tolstring(copy->from, index, &length);
    if (length > copy->bytes) {
      return refuse(copy, ERR_LIMIT, "strings that are too long together");
    }
    copy->bytes -= length;
    lua_pushlstring(copy->to, bytes, length);
    return 0;
  }
  case LUA_TTABLE:
    return copy_table(copy, index, depth);
  case LUA_TLIGHTUSERDATA:
    if (lua_touserdata(copy->from, index) == NULL) {
      lua_pushlightuserdata(copy->to, NULL);
      return 0;
    }
    return refuse(copy, ERR_TYPE, "a pointer");
  case LUA_TFUNCTION:
    if (copy->functions) {
      lua_pushboolean(copy->to, 1);
      return 0;
    }
    return refuse(copy, ERR_TYPE, "a function");
  default:
    return refuse(copy, ERR_TYPE, "a value of a type that cannot cross");
  }
}

int box_copy(struct box_copy *copy, int index) {
  return copy_value(copy, index, 0);
}
