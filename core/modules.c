// SPDX-License-Identifier: MIT
#include "modules.h"

void modules_preload(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
#define MODULE_PRELOAD(name)                                                                       \
  lua_pushcfunction(L, luaopen_farcall_core_##name);                                               \
  lua_setfield(L, -2, "farcall.core." #name);
  MODULE_LIST(MODULE_PRELOAD)
#undef MODULE_PRELOAD
  lua_pop(L, 2);
}
