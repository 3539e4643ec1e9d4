// SPDX-License-Identifier: MIT
#ifndef FARCALL_BIND_H
#define FARCALL_BIND_H

// What every lua_x.c shares. Rules of a binding: check every argument before allocating anything
// (a Lua error is a longjmp); scratch memory that must survive Lua calls is userdata; bytes are
// pointer + length; an object that the loop can still call is pinned in the registry; failure is
// nil, message, "CODE" and misuse raises; C never yields.

#include <lauxlib.h>
#include <lua.h>

#include "loop.h"

#if defined(__GNUC__)
#define BIND_EXPORT __attribute__((visibility("default")))
#else
#define BIND_EXPORT
#endif

// Pushes nil, a message ("what: text of the code"; what may be NULL) and the code's name.
// Returns 3.
int bind_fail(lua_State *L, int code, const char *what);

// Makes a metatable `type` with these methods (also as __index), __gc and __name, and leaves it on
// the stack; a type that exists already is only pushed. __tostring gives "type: address" unless
// methods has one.
void bind_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction gc);

// Raises unless the table at index has only string keys from names (NULL-terminated).
void bind_only_keys(lua_State *L, int index, const char *const *names);

// Pins the value at index in the registry and returns a reference for bind_unpin; sets *ref to
// LUA_NOREF afterwards. bind_push pushes the pinned value (nil for LUA_NOREF).
int bind_pin(lua_State *L, int index);
void bind_unpin(lua_State *L, int *ref);
void bind_push(lua_State *L, int ref);

// The one way in which a callback of the loop enters Lua: calls the function under nargs arguments
// in protected mode, with a traceback, discarding results. An error is a bug: it is kept, the loop
// is stopped, and loop:run raises it. L must be bind_main's.
void bind_call(lua_State *L, struct loop *loop, int nargs);

// Raises the first error that bind_call kept for this loop, if any, and forgets it.
void bind_raise_kept(lua_State *L, struct loop *loop);

// A thread of the state that is pinned for the state's whole life: what callbacks that fire later
// run on, because the coroutine that made an object may be dead by then.
lua_State *bind_main(lua_State *L);

#define BIND_LOOP_TYPE "farcall.loop"

// The loop userdata at index, or an error (also when it has been closed); see lua_loop.c. Never
// NULL. An object that keeps the pointer beyond the call calls loop_hold, and loop_drop in its
// __gc.
struct loop *bind_check_loop(lua_State *L, int index);

#endif
