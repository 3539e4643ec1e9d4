// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_JSON_H
#define FARCALL_LUA_JSON_H

// How Lua values become JSON text; the inside of farcall.core.json, called by lua_json.c only.

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

// The metatables that mark arrays and objects, by address.
struct lua_json_marks {
  const void *array;
  const void *object;
};

// The type of json.raw: a userdata with this head, followed by text that has been checked.
#define LUA_JSON_RAW "farcall.json.raw"
struct lua_json_raw {
  size_t size;
  uint32_t depth;
};

// Writes the value on top of the stack, which stays there. 0; or ERR_TYPE, ERR_NUMBER, ERR_UTF8,
// ERR_DEPTH, ERR_LIMIT or -ENOMEM, and then a message with the path of what is wrong is on top of
// the stack.
int lua_json_write(lua_State *L, struct json_writer *writer, const struct lua_json_marks *marks,
                   size_t max_depth);

#endif
