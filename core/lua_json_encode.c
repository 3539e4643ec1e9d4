// SPDX-License-Identifier: MIT
#include "lua_json.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

#include "err.h"

// A step of the path from the outermost value: a key, or an index when key is NULL. The key is a
// string that stands on the Lua stack meanwhile.
struct step {
  const struct step *up;
  const char *key;
  size_t key_size;
  size_t index;
  size_t depth;
};

struct encoder {
  lua_State *L;
  struct json_writer *writer;
  const struct lua_json_marks *marks;
  size_t max_depth;
};

// Of a path, and of a key in it, a message shows so much.
enum { STEPS_SHOWN = 16, KEY_SHOWN = 40 };

static bool is_name(const char *key, size_t size) {
  for (size_t i = 0; i < size; i++) {
    bool is_letter = (key[i] | 32) >= 'a' && (key[i] | 32) <= 'z';
    if (!is_letter && key[i] != '_' && !(i > 0 && key[i] >= '0' && key[i] <= '9')) {
      return false;
    }
  }
  return size > 0 && size <= KEY_SHOWN;
}

// Any key as plain ASCII in brackets.
static void add_odd_key(luaL_Buffer *buffer, const char *key, size_t size) {
  static const char digits[] = "0123456789ABCDEF";
  luaL_addstring(buffer, "[\"");
  for (size_t i = 0; i < size && i < KEY_SHOWN; i++) {
    unsigned char byte = (unsigned char)key[i];
    if (byte >= 0x20 && byte < 0x7F) {
      luaL_addchar(buffer, key[i]);
    } else {
      const char escape[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
      luaL_addlstring(buffer, escape, sizeof escape);
    }
  }
  luaL_addstring(buffer, size > KEY_SHOWN ? "...\"]" : "\"]");
}

static void add_index(luaL_Buffer *buffer, size_t index) {
  char digits[24];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + index % 10);
    index /= 10;
  } while (index != 0);
  luaL_addchar(buffer, '[');
  luaL_addlstring(buffer, digits + at, sizeof digits - at);
  luaL_addchar(buffer, ']');
}

static void add_path(luaL_Buffer *buffer, const struct step *step) {
  if (step->up == NULL) {
    return;
  }
  add_path(buffer, step->up);
  if (step->depth > STEPS_SHOWN) {
    if (step->depth == STEPS_SHOWN + 1) {
      luaL_addstring(buffer, "...");
    }
  } else if (step->key == NULL) {
    add_index(buffer, step->index);
  } else if (is_name(step->key, step->key_size)) {
    if (step->depth > 1) {
      luaL_addchar(buffer, '.');
    }
    luaL_addlstring(buffer, step->key, step->key_size);
  } else {
    add_odd_key(buffer, step->key, step->key_size);
  }
}

// Leaves "path: reason" on top of the stack and returns the code.
static int refuse(struct encoder *encoder, const struct step *step, int code, const char *reason) {
  luaL_checkstack(encoder->L, LUA_MINSTACK, "no room for a message");
  luaL_Buffer buffer;
  luaL_buffinit(encoder->L, &buffer);
  if (step->up == NULL) {
    luaL_addstring(&buffer, "the value");
  } else {
    add_path(&buffer, step);
  }
  luaL_addstring(&buffer, ": ");
  luaL_addstring(&buffer, reason);
  luaL_pushresult(&buffer);
  return code;
}

static int refuse_type(struct encoder *encoder, const struct step *step) {
  luaL_checkstack(encoder->L, 4, "no room for a message");
  const char *reason =
      lua_pushfstring(encoder->L, "a %s has no JSON", luaL_typename(encoder->L, -1));
  return refuse(encoder, step, ERR_TYPE, reason);
}

static int write_value(struct encoder *encoder, const struct step *step);

static int write_byte(struct encoder *encoder, const struct step *step, char byte) {
  int failed = json_write_raw(encoder->writer, &byte, 1);
  return failed == 0 ? 0 : refuse(encoder, step, failed, err_text(failed));
}

static int write_string(struct encoder *encoder, const struct step *step, int index) {
  size_t size;
  const char *bytes = lua_tolstring(encoder->L, index, &size);
  int failed = json_write_string(encoder->writer, bytes, size);
  return failed == 0 ? 0 : refuse(encoder, step, failed, err_text(failed));
}

// All elements are there, 1 to n, and nothing else: *count is n.
static int check_array(struct encoder *encoder, const struct step *step, size_t *count) {
  lua_State *L = encoder->L;
  double largest = 0;
  *count = 0;
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
    double key = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
    if (!(key >= 1 && key <= (double)INT32_MAX && key == (double)(int32_t)key)) {
      return refuse(encoder, step, ERR_TYPE, "an array that also has other keys");
    }
    largest = key > largest ? key : largest;
    ++*count;
  }
  if ((size_t)largest != *count) {
    return refuse(encoder, step, ERR_TYPE, "an array with holes");
  }
  return 0;
}

static int write_element(struct encoder *encoder, struct step *inner, size_t index) {
  inner->index = index;
  if (index > 1) {
    int failed = write_byte(encoder, inner, ',');
    if (failed != 0) {
      return failed;
    }
  }
  return write_value(encoder, inner);
}

// The elements of an array that lua_next does not give in their order.
static int write_checked(struct encoder *encoder, const struct step *step, struct step *inner) {
  size_t count;
  int failed = check_array(encoder, step, &count);
  for (size_t i = 1; i <= count && failed == 0; i++) {
    lua_rawgeti(encoder->L, -1, (int)i);
    failed = write_element(encoder, inner, i);
    if (failed == 0) {
      lua_pop(encoder->L, 1);
    }
  }
  return failed;
}

static int write_array(struct encoder *encoder, const struct step *step) {
  lua_State *L = encoder->L;
  struct step inner = {.up = step, .depth = step->depth + 1};
  int failed = write_byte(encoder, step, '[');
  if (failed != 0) {
    return failed;
  }
  size_t start = encoder->writer->size;
  size_t i = 1;
  // The elements nearly always come in their order, and then one look at each is enough.
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1), i++) {
    if (lua_type(L, -2) != LUA_TNUMBER || lua_tonumber(L, -2) != (double)i) {
      lua_pop(L, 2);
      encoder->writer->size = start;
      failed = write_checked(encoder, step, &inner);
      return failed != 0 ? failed : write_byte(encoder, step, ']');
    }
    failed = write_element(encoder, &inner, i);
    if (failed != 0) {
      return failed;
    }
  }
  return write_byte(encoder, step, ']');
}

// A pair, at -2 and -1.
static int write_pair(struct encoder *encoder, struct step *inner) {
  lua_State *L = encoder->L;
  if (lua_type(L, -2) != LUA_TSTRING) {
    const char *reason = lua_type(L, -2) == LUA_TNUMBER ? "a number as the key of an object"
                                                        : "a key that is not a string";
    return refuse(encoder, inner->up, ERR_TYPE, reason);
  }
  inner->key = lua_tolstring(L, -2, &inner->key_size);
  int failed = write_string(encoder, inner, -2);
  if (failed == 0) {
    failed = write_byte(encoder, inner, ':');
  }
  return failed != 0 ? failed : write_value(encoder, inner);
}

// An object, of which lua_next has pushed the first pair.
static int write_pairs(struct encoder *encoder, const struct step *step) {
  lua_State *L = encoder->L;
  struct step inner = {.up = step, .depth = step->depth + 1};
  char before = '{';
  do {
    int failed = write_byte(encoder, step, before);
    if (failed == 0) {
      failed = write_pair(encoder, &inner);
    }
    if (failed != 0) {
      return failed;
    }
    before = ',';
    lua_pop(L, 1);
  } while (lua_next(L, -2) != 0);
  return write_byte(encoder, step, '}');
}

static int write_table(struct encoder *encoder, const struct step *step) {
  lua_State *L = encoder->L;
  if (step->depth >= encoder->max_depth) {
    return refuse(encoder, step, ERR_DEPTH, "nested too deeply, or in itself");
  }
  luaL_checkstack(L, 8, "too deeply nested");
  const void *meta = NULL;
  if (lua_getmetatable(L, -1)) {
    meta = lua_topointer(L, -1);
    lua_pop(L, 1);
  }
  if (meta == encoder->marks->array) {
    return write_array(encoder, step);
  }
  lua_pushnil(L);
  if (lua_next(L, -2) == 0) {
    int failed = write_byte(encoder, step, '{');
    return failed != 0 ? failed : write_byte(encoder, step, '}');
  }
  if (lua_type(L, -2) == LUA_TNUMBER && meta != encoder->marks->object) {
    lua_pop(L, 2);
    return write_array(encoder, step);
  }
  return write_pairs(encoder, step);
}

static int write_userdata(struct encoder *encoder, const struct step *step) {
  const struct lua_json_raw *raw = luaL_testudata(encoder->L, -1, LUA_JSON_RAW);
  if (raw == NULL) {
    return refuse_type(encoder, step);
  }
  if (step->depth + raw->depth > encoder->max_depth) {
    return refuse(encoder, step, ERR_DEPTH, "nested too deeply");
  }
  int failed = json_write_raw(encoder->writer, (const char *)(raw + 1), raw->size);
  return failed == 0 ? 0 : refuse(encoder, step, failed, err_text(failed));
}

static int write_word(struct encoder *encoder, const struct step *step, const char *word) {
  int failed = json_write_raw(encoder->writer, word, strlen(word));
  return failed == 0 ? 0 : refuse(encoder, step, failed, err_text(failed));
}

// The value on top of the stack. On success the stack is as it was.
static int write_value(struct encoder *encoder, const struct step *step) {
  lua_State *L = encoder->L;
  int failed;
  switch (lua_type(L, -1)) {
  case LUA_TNIL:
    return write_word(encoder, step, "null");
  case LUA_TBOOLEAN:
    return write_word(encoder, step, lua_toboolean(L, -1) ? "true" : "false");
  case LUA_TNUMBER:
    failed = json_write_number(encoder->writer, lua_tonumber(L, -1));
    return failed == 0 ? 0 : refuse(encoder, step, failed, err_text(failed));
  case LUA_TSTRING:
    return write_string(encoder, step, -1);
  case LUA_TTABLE:
    return write_table(encoder, step);
  case LUA_TUSERDATA:
    return write_userdata(encoder, step);
  case LUA_TLIGHTUSERDATA:
    if (lua_touserdata(L, -1) == NULL) {
      return write_word(encoder, step, "null");
    }
    return refuse_type(encoder, step);
  default:
    return refuse_type(encoder, step);
  }
}

int lua_json_write(lua_State *L, struct json_writer *writer, const struct lua_json_marks *marks,
                   size_t max_depth) {
  struct encoder encoder = {L, writer, marks, max_depth};
  struct step step = {0};
  return write_value(&encoder, &step);
}
