// SPDX-License-Identifier: MIT
// farcall.core.sha256: sha256.hex(bytes) -> 64 hexadecimal digits.

#include "bind.h"
#include "modules.h"
#include "sha256.h"

static int l_hex(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  struct sha256 h;
  uint8_t digest[SHA256_SIZE];
  char text[SHA256_HEX_SIZE + 1];
  sha256_begin(&h);
  sha256_update(&h, bytes, size);
  sha256_end(&h, digest);
  sha256_hex(digest, text);
  lua_pushlstring(L, text, SHA256_HEX_SIZE);
  return 1;
}

int luaopen_farcall_core_sha256(lua_State *L) {
  static const luaL_Reg functions[] = {{"hex", l_hex}, {NULL, NULL}};
  lua_createtable(L, 0, 1);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
