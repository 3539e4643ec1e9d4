// SPDX-License-Identifier: MIT
// farcall.core.text: clean(bytes, options) -> bytes, counts; cleaner(options) -> c with
// c:feed(bytes) -> bytes, c:finish() -> bytes, counts and c:close(). options = {escapes=, utf8=,
// secrets=}, each true when it is not given. counts = {escapes=, invalid=, secrets=}.

#include <stdint.h>

#include "bind.h"
#include "modules.h"
#include "text.h"

#define CLEANER "farcall.text"

struct cleaner {
  struct text *text; // NULL when closed, or after a failure
  struct buf out;    // what was made in this call; empty between calls
};

static unsigned check_options(lua_State *L, int index) {
  static const char *const names[] = {"escapes", "utf8", "secrets", NULL};
  static const unsigned flags[] = {TEXT_ESCAPES, TEXT_UTF8, TEXT_SECRETS};
  unsigned what = TEXT_ESCAPES | TEXT_UTF8 | TEXT_SECRETS;
  if (lua_isnoneornil(L, index)) {
    return what;
  }
  luaL_checktype(L, index, LUA_TTABLE);
  bind_only_keys(L, index, names);
  for (int i = 0; names[i] != NULL; i++) {
    lua_getfield(L, index, names[i]);
    if (!lua_isnil(L, -1) && !lua_toboolean(L, -1)) {
      what &= ~flags[i];
    }
    lua_pop(L, 1);
  }
  return what;
}

static struct cleaner *push_cleaner(lua_State *L, unsigned what, int *failed) {
  struct cleaner *c = lua_newuserdata(L, sizeof *c);
  c->text = NULL;
  buf_init(&c->out, SIZE_MAX / 4);
  luaL_setmetatable(L, CLEANER);
  *failed = text_new(what, &c->text);
  return c;
}

static void close_cleaner(struct cleaner *c) {
  text_free(c->text);
  c->text = NULL;
  buf_fini(&c->out);
}

static int fail(lua_State *L, struct cleaner *c, int code) {
  close_cleaner(c);
  return bind_fail(L, code, "text");
}

static void push_out(lua_State *L, struct cleaner *c) {
  lua_pushlstring(L, buf_peek(&c->out), buf_size(&c->out));
  buf_consume(&c->out, buf_size(&c->out));
}

static void push_counts(lua_State *L, const struct text *t) {
  struct text_counts counts = text_counts(t);
  lua_createtable(L, 0, 3);
  lua_pushnumber(L, (lua_Number)counts.escapes);
  lua_setfield(L, -2, "escapes");
  lua_pushnumber(L, (lua_Number)counts.invalid);
  lua_setfield(L, -2, "invalid");
  lua_pushnumber(L, (lua_Number)counts.secrets);
  lua_setfield(L, -2, "secrets");
}

static struct cleaner *check_cleaner(lua_State *L) {
  struct cleaner *c = luaL_checkudata(L, 1, CLEANER);
  if (c->text == NULL) {
    luaL_error(L, "the cleaner is closed");
  }
  return c;
}

static int l_clean(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  unsigned what = check_options(L, 2);
  int failed;
  struct cleaner *c = push_cleaner(L, what, &failed);
  // Ordinary text grows little or not at all, so that one block will do.
  char *room;
  if (failed == 0) {
    failed = buf_reserve(&c->out, size + size / 16, &room);
  }
  if (failed == 0) {
    failed = text_feed(c->text, bytes, size, &c->out);
  }
  if (failed == 0) {
    failed = text_finish(c->text, &c->out);
  }
  if (failed != 0) {
    return fail(L, c, failed);
  }
  push_out(L, c);
  push_counts(L, c->text);
  close_cleaner(c);
  return 2;
}

static int l_cleaner(lua_State *L) {
  unsigned what = check_options(L, 1);
  int failed;
  struct cleaner *c = push_cleaner(L, what, &failed);
  return failed != 0 ? fail(L, c, failed) : 1;
}

static int l_feed(lua_State *L) {
  struct cleaner *c = check_cleaner(L);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int failed = text_feed(c->text, bytes, size, &c->out);
  if (failed != 0) {
    return fail(L, c, failed);
  }
  push_out(L, c);
  return 1;
}

static int l_finish(lua_State *L) {
  struct cleaner *c = check_cleaner(L);
  int failed = text_finish(c->text, &c->out);
  if (failed != 0) {
    return fail(L, c, failed);
  }
  push_out(L, c);
  push_counts(L, c->text);
  close_cleaner(c);
  return 2;
}

static int l_close(lua_State *L) {
  close_cleaner(luaL_checkudata(L, 1, CLEANER));
  return 0;
}

int luaopen_farcall_core_text(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"feed", l_feed}, {"finish", l_finish}, {"close", l_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"clean", l_clean}, {"cleaner", l_cleaner}, {NULL, NULL}};
  bind_type(L, CLEANER, methods, l_close);
  lua_pop(L, 1);
  lua_createtable(L, 0, 2);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
