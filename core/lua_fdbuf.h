// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_FDBUF_H
#define FARCALL_LUA_FDBUF_H

// For other bindings that hand descriptors to Lua.

#include <lua.h>

#include "fdbuf.h"

// Pushes a farcall.fdbuf that owns fd, with options NULL or as fdbuf_new takes them. On failure
// pushes nothing, closes fd and returns -errno. (When memory runs out it raises, and fd is closed.)
int bind_push_fdbuf(lua_State *L, struct loop *loop, int fd, const struct fdbuf_options *options);

#endif
