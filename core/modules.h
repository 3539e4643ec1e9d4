// SPDX-License-Identifier: MIT
#ifndef FARCALL_MODULES_H
#define FARCALL_MODULES_H

// The bindings by name, in one list from which declarations and registration come.

#include <lua.h>

#include "bind.h"

#define MODULE_LIST(X)                                                                             \
  X(atomicfile)                                                                                    \
  X(base64)                                                                                        \
  X(fdbuf)                                                                                         \
  X(fs)                                                                                            \
  X(json)                                                                                          \
  X(loop)                                                                                          \
  X(mux)                                                                                           \
  X(proc)                                                                                          \
  X(sandbox)                                                                                       \
  X(sha256)                                                                                        \
  X(sock)                                                                                          \
  X(system)                                                                                        \
  X(text)                                                                                          \
  X(watchdog)                                                                                      \
  X(work)

#define MODULE_DECLARE(name) BIND_EXPORT int luaopen_farcall_core_##name(lua_State *L);
MODULE_LIST(MODULE_DECLARE)
#undef MODULE_DECLARE

// Makes every binding loadable as require "farcall.core.NAME" without a search.
void modules_preload(lua_State *L);

#endif
