// SPDX-License-Identifier: MIT
// What a box has of the string library: the functions that take patterns, matched by pattern.c
// within the box's budget, and those of Lua's own that take no more time than the bytes they make.
#include <lauxlib.h>
#include <string.h>

#include "err.h"
#include "lua_box.h"
#include "pattern.h"

// So many steps of the matcher are paid like an instruction.
enum { STEPS = 2 };

struct text {
  const char *bytes;
  size_t length;
};

static struct text check_text(lua_State *B, int index) {
  struct text text;
  text.bytes = luaL_checklstring(B, index, &text.length);
  return text;
}

static uint64_t steps_left(struct box *box) {
  return box->left > 0 ? (uint64_t)box->left * STEPS : 0;
}

// Takes what a search has used off the budget, and raises if it went wrong.
static bool settle(lua_State *B, struct pattern *p, int found, uint64_t steps) {
  struct box *box = box_of(B);
  box->left = (int64_t)(steps / STEPS);
  if (found == ERR_INSTRUCTIONS) {
    box_hit(B, BOX_INSTRUCTIONS);
  }
  if (found < 0) {
    luaL_error(B, "%s", p != NULL ? p->problem : err_text(found));
  }
  return found > 0;
}

static void compile(lua_State *B, struct pattern *p, struct text text, bool anchors) {
  box_spend(B, 1 + (int64_t)(text.length / STEPS));
  if (pattern_compile(p, text.bytes, text.length, anchors) != 0) {
    luaL_error(B, "pattern too complex");
  }
}

static bool search(lua_State *B, struct pattern *p, struct text subject, size_t *start,
                   size_t *end) {
  uint64_t steps = steps_left(box_of(B));
  int found = pattern_search(p, subject.bytes, subject.length, start, &steps, end);
  return settle(B, p, found, steps);
}

static void push_capture(lua_State *B, const struct pattern *p, struct text subject,
                         unsigned index) {
  const struct pattern_capture *capture = &p->captures[index];
  if (capture->position) {
    lua_pushnumber(B, (lua_Number)(capture->start + 1));
  } else {
    lua_pushlstring(B, subject.bytes + capture->start, capture->end - capture->start);
  }
}

// The captures, or the whole match if there are none and whole says so. Returns how many.
static int push_captures(lua_State *B, const struct pattern *p, struct text subject, size_t start,
                         size_t end, bool whole) {
  luaL_checkstack(B, PATTERN_CAPTURES, "too many captures");
  if (p->capture_count == 0 && whole) {
    lua_pushlstring(B, subject.bytes + start, end - start);
    return 1;
  }
  for (unsigned i = 0; i < p->capture_count; i++) {
    push_capture(B, p, subject, i);
  }
  return (int)p->capture_count;
}

// Where a search begins: the argument counts from 1, or from the end when it is negative.
static size_t check_start(lua_State *B, int index, size_t length) {
  lua_Integer from = luaL_optinteger(B, index, 1);
  if (from < 0) {
    from += (lua_Integer)length + 1;
  }
  if (from < 1) {
    return 0;
  }
  return (size_t)from > length ? length : (size_t)from - 1;
}

static int safe_find(lua_State *B) {
  struct text subject = check_text(B, 1);
  struct text text = check_text(B, 2);
  size_t start = check_start(B, 3, subject.length);
  size_t end;
  struct pattern p;
  if (lua_toboolean(B, 4) || pattern_is_plain(text.bytes, text.length)) {
    uint64_t steps = steps_left(box_of(B));
    int found =
        pattern_find_plain(subject.bytes, subject.length, text.bytes, text.length, &start, &steps);
    if (!settle(B, NULL, found, steps)) {
      lua_pushnil(B);
      return 1;
    }
    lua_pushnumber(B, (lua_Number)(start + 1));
    lua_pushnumber(B, (lua_Number)(start + text.length));
    return 2;
  }
  compile(B, &p, text, true);
  if (!search(B, &p, subject, &start, &end)) {
    lua_pushnil(B);
    return 1;
  }
  lua_pushnumber(B, (lua_Number)(start + 1));
  lua_pushnumber(B, (lua_Number)end);
  return 2 + push_captures(B, &p, subject, start, end, false);
}

static int safe_match(lua_State *B) {
  struct text subject = check_text(B, 1);
  struct text text = check_text(B, 2);
  size_t start = check_start(B, 3, subject.length);
  size_t end;
  struct pattern p;
  compile(B, &p, text, true);
  if (!search(B, &p, subject, &start, &end)) {
    lua_pushnil(B);
    return 1;
  }
  return push_captures(B, &p, subject, start, end, true);
}

// Upvalues: subject, pattern, where to go on.
static int next_match(lua_State *B) {
  struct text subject = check_text(B, lua_upvalueindex(1));
  size_t start = (size_t)lua_tonumber(B, lua_upvalueindex(3));
  size_t end;
  struct pattern p;
  compile(B, &p, check_text(B, lua_upvalueindex(2)), false);
  if (start > subject.length || !search(B, &p, subject, &start, &end)) {
    lua_pushnil(B);
    return 1;
  }
  lua_pushnumber(B, (lua_Number)(end + (end == start)));
  lua_replace(B, lua_upvalueindex(3));
  return push_captures(B, &p, subject, start, end, true);
}

static int safe_gmatch(lua_State *B) {
  check_text(B, 1);
  check_text(B, 2);
  lua_settop(B, 2);
  lua_pushnumber(B, 0);
  lua_pushcclosure(B, next_match, 3);
  return 1;
}

// A growing text in memory of the box, at a place of the stack so that no error can leak it.
struct builder {
  lua_State *B;
  int slot;
  char *bytes;
  size_t length;
  size_t room;
};

static void append(struct builder *to, const char *bytes, size_t length) {
  if (length > to->room - to->length) {
    size_t room = 2 * (to->length + length) + 64;
    char *more = lua_newuserdata(to->B, room);
    if (to->length > 0) {
      memcpy(more, to->bytes, to->length);
    }
    lua_replace(to->B, to->slot);
    to->bytes = more;
    to->room = room;
  }
  if (length > 0) {
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
  }
}

// The value on top of the stack, a string or number, is appended and popped.
static void append_value(struct builder *to) {
  size_t length;
  const char *bytes = lua_tolstring(to->B, -1, &length);
  append(to, bytes, length);
  lua_pop(to->B, 1);
}

// gsub(subject, pattern, replacement, limit): what it works on.
struct gsub {
  lua_State *B;
  struct pattern *p;
  struct text subject;
  struct builder out;
};

enum { ARG_REPLACEMENT = 3 };

// %0 is the match, %1 to %9 are captures (%1 the match where there are none), %x otherwise x.
static void append_template(struct gsub *g, size_t start, size_t end) {
  size_t length;
  const char *template = lua_tolstring(g->B, ARG_REPLACEMENT, &length);
  box_spend(g->B, (int64_t)(length / 16));
  for (size_t i = 0; i < length; i++) {
    const char *percent = memchr(template + i, '%', length - i);
    size_t plain = percent != NULL ? (size_t)(percent - template) - i : length - i;
    append(&g->out, template + i, plain);
    i += plain;
    if (percent == NULL) {
      break;
    }
    unsigned char byte = (unsigned char)(++i < length ? template[i] : 0);
    if (byte < '0' || byte > '9') {
      append(&g->out, (const char *)&byte, 1);
    } else if (byte == '0' || (byte == '1' && g->p->capture_count == 0)) {
      append(&g->out, g->subject.bytes + start, end - start);
    } else if ((unsigned)(byte - '1') >= g->p->capture_count) {
      luaL_error(g->B, "invalid capture index");
    } else {
      push_capture(g->B, g->p, g->subject, (unsigned)(byte - '1'));
      append_value(&g->out);
    }
  }
}

// What a function or table says to a match; nil and false leave it as it is.
static void append_answer(struct gsub *g, size_t start, size_t end) {
  lua_State *B = g->B;
  if (lua_type(B, ARG_REPLACEMENT) == LUA_TFUNCTION) {
    lua_pushvalue(B, ARG_REPLACEMENT);
    lua_call(B, push_captures(B, g->p, g->subject, start, end, true), 1);
  } else {
    if (g->p->capture_count == 0) {
      lua_pushlstring(B, g->subject.bytes + start, end - start);
    } else {
      push_capture(B, g->p, g->subject, 0);
    }
    lua_gettable(B, ARG_REPLACEMENT);
  }
  if (!lua_toboolean(B, -1)) {
    lua_pop(B, 1);
    append(&g->out, g->subject.bytes + start, end - start);
  } else if (lua_isstring(B, -1)) {
    append_value(&g->out);
  } else {
    luaL_error(B, "invalid replacement value (a %s)", luaL_typename(B, -1));
  }
}

static int replace_matches(struct gsub *g, lua_Integer most) {
  bool template = lua_isstring(g->B, ARG_REPLACEMENT);
  lua_Integer count = 0;
  size_t at = 0;
  while (count < most) {
    size_t start = at;
    size_t end;
    bool found = search(g->B, g->p, g->subject, &start, &end);
    size_t kept = found ? start : g->subject.length;
    append(&g->out, g->subject.bytes + at, kept - at);
    at = kept;
    if (!found) {
      break;
    }
    count++;
    if (template) {
      append_template(g, start, end);
    } else {
      append_answer(g, start, end);
    }
    if (end > start) {
      at = end;
    } else if (at < g->subject.length) {
      append(&g->out, g->subject.bytes + at, 1);
      at++;
    } else {
      break;
    }
    if (g->p->anchored) {
      break;
    }
  }
  append(&g->out, g->subject.bytes + at, g->subject.length - at);
  return (int)count;
}

static int safe_gsub(lua_State *B) {
  struct gsub g = {.B = B, .subject = check_text(B, 1)};
  struct text text = check_text(B, 2);
  int type = lua_type(B, ARG_REPLACEMENT);
  luaL_argcheck(
      B, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE,
      ARG_REPLACEMENT, "string/function/table expected");
  lua_Integer most = luaL_optinteger(B, 4, (lua_Integer)g.subject.length + 1);
  struct pattern p;
  compile(B, &p, text, true);
  g.p = &p;
  lua_settop(B, 5);
  g.out = (struct builder){.B = B, .slot = 5};
  struct box *box = box_nest(B);
  int count = replace_matches(&g, most);
  box->nest--;
  lua_pushlstring(B, g.out.bytes != NULL ? g.out.bytes : "", g.out.length);
  lua_pushinteger(B, count);
  return 2;
}

// Lua's own format may call __tostring, which may call format: that nests in C.
static int safe_format(lua_State *B) {
  struct box *box = box_nest(B);
  lua_pushvalue(B, lua_upvalueindex(1));
  lua_insert(B, 1);
  lua_call(B, lua_gettop(B) - 1, LUA_MULTRET);
  box->nest--;
  return lua_gettop(B);
}

void box_open_string(lua_State *B) {
  static const char *const KEPT[] = {"byte",    "char", "len",   "lower", "rep",
                                     "reverse", "sub",  "upper", NULL};
  static const luaL_Reg OWN[] = {{"find", safe_find},
                                 {"match", safe_match},
                                 {"gmatch", safe_gmatch},
                                 {"gsub", safe_gsub},
                                 {NULL, NULL}};
  lua_newtable(B);
  lua_getglobal(B, "string");
  for (const char *const *name = KEPT; *name != NULL; name++) {
    lua_getfield(B, -1, *name);
    lua_setfield(B, -3, *name);
  }
  lua_getfield(B, -1, "format");
  lua_pushcclosure(B, safe_format, 1);
  lua_setfield(B, -3, "format");
  lua_pop(B, 1);
  for (const luaL_Reg *own = OWN; own->name != NULL; own++) {
    lua_pushcfunction(B, own->func);
    lua_setfield(B, -2, own->name);
  }
  // ("x"):rep(3) finds its method here.
  lua_pushliteral(B, "");
  lua_getmetatable(B, -1);
  lua_pushvalue(B, -3);
  lua_setfield(B, -2, "__index");
  lua_pop(B, 2);
  lua_setfield(B, -2, "string");
}
