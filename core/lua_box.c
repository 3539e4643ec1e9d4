// SPDX-License-Identifier: MIT
#include "lua_box.h"

#include <errno.h>
#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "err.h"

// What lua_newstate needs, and some more.
enum { ARENA_BYTES = 16384 };

// Memory beyond the limit that a full collection may take for its own tables.
#define COLLECT_BYTES ((size_t)1 << 20)

struct box *box_of(lua_State *B) {
  void *box;
  lua_getallocf(B, &box);
  return box;
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// The innermost line of a file, which is the operator's: what the prelude runs has no file.
static void note_where(struct box *box) {
  lua_Debug at;
  snprintf(box->where, sizeof(box->where), "%s%s", box->file, box->file[0] != 0 ? ": " : "");
  for (int level = 0; level < 20 && lua_getstack(box->B, level, &at); level++) {
    if (lua_getinfo(box->B, "Sl", &at) && at.source[0] == '@' && at.currentline > 0) {
      snprintf(box->where, sizeof(box->where), "%s:%d: ", at.source + 1, at.currentline);
      return;
    }
  }
}

static void strike(struct box *box, enum box_strike why) {
  if (box->struck == BOX_FINE) {
    box->struck = why;
    if (box->host != NULL) {
      note_where(box);
    }
  }
}

// One instruction may compare, scan or copy as much as there is memory: the more a box holds, the
// more often somebody looks at the clock.
static int period_for(size_t used) {
  if (used < (size_t)1 << 18) {
    return 1000;
  }
  return used < (size_t)1 << 22 ? 100 : 16;
}

static void on_count(lua_State *B, lua_Debug *at);

static void set_period(struct box *box, int period) {
  if (box->period != period) {
    box->period = period;
    lua_sethook(box->B, on_count, LUA_MASKCOUNT, period);
  }
}

static bool in_arena(const struct box *box, const void *block) {
  uintptr_t at = (uintptr_t)block;
  uintptr_t arena = (uintptr_t)box->arena;
  return at >= arena && at < arena + ARENA_BYTES;
}

// realloc, with the arena as the first place while the state is being made.
static void *resize(struct box *box, void *old, size_t old_size, size_t size) {
  size_t taken = (size + 15) & ~(size_t)15;
  if (box->B == NULL && old == NULL && taken <= ARENA_BYTES - box->arena_used) {
    void *block = box->arena + box->arena_used;
    box->arena_used += taken;
    return block;
  }
  if (old == NULL || !in_arena(box, old)) {
    return realloc(old, size);
  }
  void *block = malloc(size);
  if (block != NULL) {
    memcpy(block, old, old_size < size ? old_size : size);
  }
  return block;
}

static void *allocate(void *data, void *old, size_t old_size, size_t size) {
  struct box *box = data;
  if (size == 0) {
    if (!in_arena(box, old)) {
      free(old);
    }
    box->used -= old_size;
    return NULL;
  }
  size_t others = box->used - old_size;
  if (size > old_size && box->B != NULL) {
    if (size > box->limits.memory_bytes || others > box->limits.memory_bytes - size) {
      strike(box, BOX_MEMORY);
      return NULL;
    }
    // Filling memory takes time as well; the hook sees when that was too much.
    box->left -= (int64_t)((size - old_size) / 64);
  }
  void *block = resize(box, old, old_size, size);
  if (block == NULL) {
    if (size <= old_size) {
      return old;
    }
    strike(box, BOX_MEMORY);
    return NULL;
  }
  box->used = others + size;
  if (box->B != NULL && box->period > period_for(box->used)) {
    set_period(box, period_for(box->used));
  }
  return block;
}

int box_hit(lua_State *B, enum box_strike why) {
  struct box *box = box_of(B);
  strike(box, why);
  // From now on every single instruction strikes, whoever may have caught this one.
  set_period(box, 1);
  lua_pushnil(B);
  return lua_error(B);
}

// The wall is cheap to read; only when it is late there, the processor's time is asked for.
static bool too_late(struct box *box) {
  int64_t wall = clock_ns(CLOCK_MONOTONIC);
  if (box->wall_ns == 0) {
    box->wall_ns = wall;
    box->began_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return false;
  }
  int64_t allowed = box->limits.milliseconds * 1000000;
  return wall - box->wall_ns > allowed &&
         clock_ns(CLOCK_THREAD_CPUTIME_ID) - box->began_ns > allowed;
}

static void on_count(lua_State *B, lua_Debug *at) {
  (void)at;
  struct box *box = box_of(B);
  box->left -= box->period;
  if (box->struck != BOX_FINE || box->left <= 0) {
    box_hit(B, BOX_INSTRUCTIONS);
  } else if (too_late(box)) {
    box_hit(B, BOX_TIME);
  }
  set_period(box, period_for(box->used));
}

void box_spend(lua_State *B, int64_t n) {
  struct box *box = box_of(B);
  box->left -= n;
  if (box->struck != BOX_FINE || box->left <= 0) {
    box_hit(B, BOX_INSTRUCTIONS);
  }
}

struct box *box_nest(lua_State *B) {
  struct box *box = box_of(B);
  if (box->nest >= BOX_NEST) {
    luaL_error(B, "more than %d nested calls of pcall, gsub, sort or format", (int)BOX_NEST);
  }
  box->nest++;
  return box;
}

static int run_in_box(lua_State *B) {
  struct box *box = box_of(B);
  luaL_checkstack(B, BOX_SLOTS, "the box");
  int results = box->work(B);
  luaL_checkstack(B, BOX_SLOTS, "the box");
  return results;
}

static int collect(lua_State *B) {
  lua_gc(B, LUA_GCCOLLECT, 0);
  return 0;
}

// After a memory strike the box goes on only if a quarter of its memory is free again.
static void recover(struct box *box) {
  struct box_limits limits = box->limits;
  lua_settop(box->B, 0);
  box->limits.memory_bytes = limits.memory_bytes + COLLECT_BYTES;
  int status = lua_cpcall(box->B, collect, NULL);
  box->limits = limits;
  box->dead = status != 0 || box->used > limits.memory_bytes - limits.memory_bytes / 4;
  lua_settop(box->B, 0);
}

int box_enter(struct box *box, lua_CFunction fn) {
  static const int CODES[] = {[BOX_FINE] = ERR_RAISED,
                              [BOX_INSTRUCTIONS] = ERR_INSTRUCTIONS,
                              [BOX_TIME] = ERR_TIMEOUT,
                              [BOX_MEMORY] = ERR_MEMORY};
  if (box->dead) {
    return ERR_MEMORY;
  }
  lua_State *B = box->B;
  box->struck = BOX_FINE;
  box->left = box->limits.instructions;
  box->wall_ns = 0;
  box->nest = 0;
  box->where[0] = 0;
  set_period(box, period_for(box->used));
  lua_settop(B, 0);
  box->work = fn;
  lua_rawgeti(B, LUA_REGISTRYINDEX, 0);
  int status = lua_pcall(B, 0, LUA_MULTRET, 0);
  // A budget that ran out on the very last stretch has been overrun all the same.
  if (status == 0 && box->struck == BOX_FINE) {
    return 0;
  }
  int code = CODES[box->struck];
  if (box->struck == BOX_MEMORY) {
    recover(box);
  } else if (status == LUA_ERRMEM) {
    code = ERR_MEMORY;
  }
  return code;
}

static void open_library(lua_State *B, lua_CFunction open, const char *name) {
  lua_pushcfunction(B, open);
  lua_pushstring(B, name);
  lua_call(B, 1, 0);
}

static int set_up(lua_State *B) {
  luaJIT_setmode(B, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
  open_library(B, luaopen_base, "");
  open_library(B, luaopen_table, LUA_TABLIBNAME);
  open_library(B, luaopen_string, LUA_STRLIBNAME);
  open_library(B, luaopen_math, LUA_MATHLIBNAME);
  lua_newtable(B);
  box_open_base(B);
  box_open_table(B);
  box_open_string(B);
  // The listed functions are all that there is: libraries and the table of loaded modules go.
  lua_replace(B, LUA_GLOBALSINDEX);
  lua_newtable(B);
  lua_setfield(B, LUA_REGISTRYINDEX, "_LOADED");
  lua_pushcfunction(B, run_in_box);
  lua_rawseti(B, LUA_REGISTRYINDEX, 0);
  return 0;
}

int box_open(struct box *box, const struct box_limits *limits) {
  *box = (struct box){.limits = *limits, .left = INT64_MAX};
  // LuaJIT crashes when an allocation fails inside lua_newstate: there it takes what is here
  // already, and the limit is looked at later.
  box->arena = malloc(ARENA_BYTES);
  if (box->arena == NULL) {
    return -ENOMEM;
  }
  lua_State *B = lua_newstate(allocate, box);
  if (B == NULL) {
    free(box->arena);
    return -ENOMEM;
  }
  box->B = B;
  if (lua_cpcall(B, set_up, NULL) != 0) {
    box_close(box);
    return ERR_MEMORY;
  }
  return 0;
}

void box_close(struct box *box) {
  if (box->B != NULL) {
    lua_close(box->B);
    box->B = NULL;
    free(box->arena);
  }
}
