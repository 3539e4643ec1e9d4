// SPDX-License-Identifier: MIT
// farcall.core.json: the strict JSON codec.
//   decode(text[, {max_depth=64, max_bytes=64 MiB, max_values=1048576}]) -> value
//   check(text[, limits]) -> true; fields(text[, limits]) -> {key = text of its value}
//     or nil, "reason: at byte N", "SYNTAX"|"NUMBER"|"UTF8"|"DUPLICATE"|"DEPTH"|"LIMIT", N
//   encode(value[, {max_depth=64, max_bytes=64 MiB}]) -> text
//     or nil, "path: reason", "TYPE"|"NUMBER"|"UTF8"|"DEPTH"|"LIMIT"
//   null; array(t), object(t): t, marked; is_array(v); raw(text): checked, is encoded as it is
// Arrays come marked, so do empty objects; other objects are plain tables. Integers beyond 2^53
// come as strings of their digits. An unmarked table with [1] is an array, any other an object.

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "bind.h"
#include "err.h"
#include "json.h"
#include "lua_json.h"
#include "modules.h"

// The bound of what max_depth may be: decoding and encoding recurse so deep in C.
enum { DEPTH_MAX = 1000, DEPTH = 64 };
static const double default_bytes = 64 << 20;
static const double default_values = 1 << 20;

// Upvalues of all functions: the marks of arrays and of objects, and the scratch memory.
enum { MARK_ARRAY = 1, MARK_OBJECT = 2, SCRATCH = 3 };

// Memory of a call, as userdata: an error that a collector or an allocator raises cannot leak it.
struct scratch {
  struct json_doc doc;
  struct json_writer writer;
  bool busy;
};

static int scratch_gc(lua_State *L) {
  struct scratch *scratch = lua_touserdata(L, 1);
  json_doc_fini(&scratch->doc);
  json_writer_fini(&scratch->writer);
  return 0;
}

static struct scratch *scratch_new(lua_State *L) {
  struct scratch *scratch = lua_newuserdata(L, sizeof *scratch);
  memset(scratch, 0, sizeof *scratch);
  json_doc_init(&scratch->doc);
  luaL_getmetatable(L, "farcall.json.scratch");
  lua_setmetatable(L, -2);
  return scratch;
}

// The function's scratch, pushed and taken. A finalizer that calls the same function in the middle
// of it, or the first call after an error has ended one, takes a new one.
static struct scratch *scratch_take(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(SCRATCH));
  struct scratch *scratch = lua_touserdata(L, -1);
  if (scratch->busy) {
    lua_pop(L, 1);
    scratch = scratch_new(L);
    lua_pushvalue(L, -1);
    lua_replace(L, lua_upvalueindex(SCRATCH));
  }
  scratch->busy = true;
  return scratch;
}

static void scratch_give(struct scratch *scratch) {
  json_doc_trim(&scratch->doc);
  json_writer_trim(&scratch->writer);
  scratch->busy = false;
}

static size_t limit(lua_State *L, const char *name, double otherwise, double most) {
  lua_getfield(L, 2, name);
  double value = otherwise;
  if (!lua_isnil(L, -1)) {
    if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0)) {
      luaL_error(L, "%s is a number, not negative", name);
    }
    value = lua_tonumber(L, -1) < most ? lua_tonumber(L, -1) : most;
  }
  lua_pop(L, 1);
  return (size_t)value;
}

static void read_limits(lua_State *L, struct json_limits *limits) {
  static const char *const names[] = {"max_depth", "max_bytes", "max_values", NULL};
  *limits = (struct json_limits){(size_t)default_bytes, (size_t)default_values, DEPTH};
  if (!lua_isnoneornil(L, 2)) {
    bind_only_keys(L, 2, names);
    limits->max_depth = limit(L, "max_depth", DEPTH, DEPTH_MAX);
    limits->max_bytes = limit(L, "max_bytes", default_bytes, (double)UINT32_MAX);
    limits->max_values = limit(L, "max_values", default_values, (double)UINT32_MAX);
  }
}

static int fail_parse(lua_State *L, const struct json_doc *doc, int code) {
  if (code == -ENOMEM) {
    return bind_fail(L, code, "json");
  }
  lua_pushnil(L);
  lua_Number at = (lua_Number)doc->bad_at + 1;
  lua_pushfstring(L, "%s: at byte %f", doc->reason, at);
  lua_pushstring(L, err_name(code));
  lua_pushnumber(L, at);
  return 4;
}

// Parses the text at 1 under the limits at 2; leaves the scratch on the stack, taken.
static int parse(lua_State *L, struct scratch **scratch) {
  struct json_limits limits;
  size_t size;
  luaL_checktype(L, 1, LUA_TSTRING);
  const char *text = lua_tolstring(L, 1, &size);
  read_limits(L, &limits);
  *scratch = scratch_take(L);
  return json_parse(&(*scratch)->doc, text, size, &limits);
}

static void mark(lua_State *L, int which) {
  lua_pushvalue(L, lua_upvalueindex(which));
  lua_setmetatable(L, -2);
}

static int table_size(uint32_t count) {
  return count < INT32_MAX / 2 ? (int)count : 0;
}

// Pushes the value of this node and returns the node behind it. Recurses as deep as the text is
// nested, which its parsing has bounded.
static const struct json_node *push_value(lua_State *L, const struct json_node *nodes,
                                          const struct json_node *node) {
  switch ((enum json_type)node->type) {
  case JSON_NULL:
    lua_pushlightuserdata(L, NULL);
    return node + 1;
  case JSON_FALSE:
  case JSON_TRUE:
    lua_pushboolean(L, node->type == JSON_TRUE);
    return node + 1;
  case JSON_NUMBER:
    lua_pushnumber(L, node->as.number);
    return node + 1;
  case JSON_INTEGER:
  case JSON_STRING:
    lua_pushlstring(L, node->text, node->size);
    return node + 1;
  case JSON_ARRAY:
  case JSON_OBJECT:
    break;
  }
  uint32_t count = node->as.in.count;
  const struct json_node *at = node + 1;
  if (node->type == JSON_ARRAY) {
    lua_createtable(L, table_size(count), 0);
    for (uint32_t i = 1; i <= count; i++) {
      at = push_value(L, nodes, at);
      lua_rawseti(L, -2, (int)i);
    }
    mark(L, MARK_ARRAY);
    return at;
  }
  lua_createtable(L, 0, table_size(count));
  for (uint32_t i = 0; i < count; i++) {
    lua_pushlstring(L, at->text, at->size);
    at = push_value(L, nodes, at + 1);
    lua_rawset(L, -3);
  }
  if (count == 0) {
    mark(L, MARK_OBJECT);
  }
  return at;
}

static int l_decode(lua_State *L) {
  struct scratch *scratch;
  int failed = parse(L, &scratch);
  if (failed != 0) {
    int results = fail_parse(L, &scratch->doc, failed);
    scratch_give(scratch);
    return results;
  }
  luaL_checkstack(L, (int)scratch->doc.depth * 2 + 8, "too deeply nested");
  push_value(L, scratch->doc.nodes, scratch->doc.nodes);
  scratch_give(scratch);
  return 1;
}

static int l_check(lua_State *L) {
  struct scratch *scratch;
  int failed = parse(L, &scratch);
  int results = 1;
  if (failed != 0) {
    results = fail_parse(L, &scratch->doc, failed);
  } else {
    lua_pushboolean(L, 1);
  }
  scratch_give(scratch);
  return results;
}

static int l_fields(lua_State *L) {
  struct scratch *scratch;
  int failed = parse(L, &scratch);
  const char *text = lua_tostring(L, 1);
  const struct json_node *nodes = scratch->doc.nodes;
  if (failed == 0 && nodes->type != JSON_OBJECT) {
    failed = ERR_TYPE;
    scratch->doc.bad_at = (size_t)(nodes->text - text);
    scratch->doc.reason = "not an object";
  }
  if (failed != 0) {
    int results = fail_parse(L, &scratch->doc, failed);
    scratch_give(scratch);
    return results;
  }
  lua_createtable(L, 0, table_size(nodes->as.in.count));
  for (uint32_t i = 1; i < nodes->as.in.next;) {
    const struct json_node *value = &nodes[i + 1];
    lua_pushlstring(L, nodes[i].text, nodes[i].size);
    if (value->type == JSON_STRING) {
      lua_pushlstring(L, text + value->as.raw.at, value->as.raw.size);
    } else {
      lua_pushlstring(L, value->text, value->size);
    }
    lua_rawset(L, -3);
    i = value->type < JSON_ARRAY ? i + 2 : value->as.in.next;
  }
  scratch_give(scratch);
  return 1;
}

static int l_encode(lua_State *L) {
  static const char *const names[] = {"max_depth", "max_bytes", NULL};
  size_t max_depth = DEPTH;
  size_t max_bytes = (size_t)default_bytes;
  luaL_checkany(L, 1);
  if (!lua_isnoneornil(L, 2)) {
    bind_only_keys(L, 2, names);
    max_depth = limit(L, "max_depth", DEPTH, DEPTH_MAX);
    max_bytes = limit(L, "max_bytes", default_bytes, (double)UINT32_MAX);
  }
  struct lua_json_marks marks = {lua_topointer(L, lua_upvalueindex(MARK_ARRAY)),
                                 lua_topointer(L, lua_upvalueindex(MARK_OBJECT))};
  struct scratch *scratch = scratch_take(L);
  struct json_writer *writer = &scratch->writer;
  writer->size = 0;
  writer->max_bytes = max_bytes;
  lua_pushvalue(L, 1);
  int failed = lua_json_write(L, writer, &marks, max_depth);
  int results = 1;
  if (failed == 0) {
    lua_pushlstring(L, writer->data, writer->size);
  } else {
    lua_pushnil(L);
    lua_insert(L, -2);
    lua_pushstring(L, err_name(failed));
    results = 3;
  }
  scratch_give(scratch);
  return results;
}

// What is encoded as it is must not break the lines of a protocol: outside of strings a line break
// is as good as a space, and inside there is none.
static void copy_raw(char *to, const char *from, size_t size) {
  memcpy(to, from, size);
  for (size_t i = 0; i < size; i++) {
    if (to[i] == '\n' || to[i] == '\r') {
      to[i] = ' ';
    }
  }
}

static int l_raw(lua_State *L) {
  struct scratch *scratch;
  int failed = parse(L, &scratch);
  if (failed != 0) {
    int results = fail_parse(L, &scratch->doc, failed);
    scratch_give(scratch);
    return results;
  }
  uint32_t depth = scratch->doc.depth;
  scratch_give(scratch);
  size_t size;
  const char *text = lua_tolstring(L, 1, &size);
  struct lua_json_raw *raw = lua_newuserdata(L, sizeof *raw + size);
  raw->size = size;
  raw->depth = depth;
  copy_raw((char *)(raw + 1), text, size);
  luaL_getmetatable(L, LUA_JSON_RAW);
  lua_setmetatable(L, -2);
  return 1;
}

static int raw_tostring(lua_State *L) {
  const struct lua_json_raw *raw = luaL_checkudata(L, 1, LUA_JSON_RAW);
  lua_pushlstring(L, (const char *)(raw + 1), raw->size);
  return 1;
}

static int l_array(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  mark(L, MARK_ARRAY);
  return 1;
}

static int l_object(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  mark(L, MARK_OBJECT);
  return 1;
}

static int l_is_array(lua_State *L) {
  bool is_array = false;
  luaL_checkany(L, 1);
  if (lua_istable(L, 1)) {
    const void *meta = NULL;
    if (lua_getmetatable(L, 1)) {
      meta = lua_topointer(L, -1);
    }
    is_array = meta == lua_topointer(L, lua_upvalueindex(MARK_ARRAY));
    if (!is_array && meta != lua_topointer(L, lua_upvalueindex(MARK_OBJECT))) {
      lua_rawgeti(L, 1, 1);
      is_array = !lua_isnil(L, -1);
    }
  }
  lua_pushboolean(L, is_array);
  return 1;
}

int luaopen_farcall_core_json(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"decode", l_decode}, {"encode", l_encode},     {"check", l_check},
      {"fields", l_fields}, {"raw", l_raw},           {"array", l_array},
      {"object", l_object}, {"is_array", l_is_array}, {NULL, NULL}};
  static const luaL_Reg raw_methods[] = {{"__tostring", raw_tostring}, {NULL, NULL}};
  static const luaL_Reg none[] = {{NULL, NULL}};
  bind_type(L, LUA_JSON_RAW, raw_methods, NULL);
  bind_type(L, "farcall.json.scratch", none, scratch_gc);
  luaL_newmetatable(L, "farcall.json.array");
  luaL_newmetatable(L, "farcall.json.object");
  lua_createtable(L, 0, 10);
  // Each function has scratch of its own, so that they do not meet in each other's.
  for (const luaL_Reg *each = functions; each->name != NULL; each++) {
    lua_pushvalue(L, -3);
    lua_pushvalue(L, -3);
    scratch_new(L);
    lua_pushcclosure(L, each->func, 3);
    lua_setfield(L, -2, each->name);
  }
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  return 1;
}
