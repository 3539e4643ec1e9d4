// SPDX-License-Identifier: MIT
// farcall.core.base64: encode(bytes) -> text; decode(text) -> bytes, or nil, message, "SYNTAX" and
// the offset of the first wrong character, counted from 1; level() and force(level).

#include <stdint.h>

#include "base64.h"
#include "bind.h"
#include "err.h"
#include "modules.h"

// Results up to this size are made on the C stack; larger ones in a userdata, which an error while
// the Lua string is made cannot leak.
enum { ON_STACK = 4096 };

static int l_encode(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  size_t room = base64_encoded_size(size);
  char small[ON_STACK];
  char *text = room <= sizeof small ? small : lua_newuserdata(L, room);
  base64_encode(bytes, size, text);
  lua_pushlstring(L, text, room);
  return 1;
}

static int l_decode(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  size_t room = base64_decoded_max(size);
  char small[ON_STACK];
  char *bytes = room <= sizeof small ? small : lua_newuserdata(L, room);
  size_t decoded;
  size_t bad_at;
  int failed = base64_decode(text, size, bytes, &decoded, &bad_at);
  if (failed != 0) {
    lua_pushnil(L);
    if (bad_at == size) {
      lua_pushfstring(L, "base64: ends too early, at byte %d", (int)bad_at + 1);
    } else {
      lua_pushfstring(L, "base64: wrong character at byte %d", (int)bad_at + 1);
    }
    lua_pushstring(L, err_name(failed));
    lua_pushnumber(L, (lua_Number)bad_at + 1);
    return 4;
  }
  lua_pushlstring(L, bytes, decoded);
  return 1;
}

static int l_level(lua_State *L) {
  lua_pushstring(L, base64_level_name(base64_level()));
  return 1;
}

static int l_force(lua_State *L) {
  static const char *const names[] = {"scalar", "avx2", "avx512vbmi", NULL};
  int level = luaL_checkoption(L, 1, NULL, names);
  int failed = base64_force((enum base64_level)level);
  if (failed != 0) {
    return bind_fail(L, failed, names[level]);
  }
  lua_pushboolean(L, 1);
  return 1;
}

int luaopen_farcall_core_base64(lua_State *L) {
  static const luaL_Reg functions[] = {{"encode", l_encode},
                                       {"decode", l_decode},
                                       {"level", l_level},
                                       {"force", l_force},
                                       {NULL, NULL}};
  lua_createtable(L, 0, 4);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
