// SPDX-License-Identifier: MIT
// A tool of the build: compiles the modules of the Lua tree into the one file that
// core/lua_bytecode.h describes. Debugging information stays in: errors name file and line.
//
//   farcall-compile OUT DIRECTORY FILE...        each FILE is relative to DIRECTORY
//
// A file that does not compile is left out; who requires it is told by the source what is wrong.
// OUT bears the time at which reading began: a source that is changed meanwhile is newer.

#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "buf.h"

enum {
  HEAD = 5, // magic, version and flags; the chunk's name, which is left out, comes next
  MAX_OUT = 64 << 20
};

static int append(lua_State *L, const void *bytes, size_t size, void *out) {
  (void)L;
  return buf_append(out, bytes, size);
}

// Where the chunk's name ends: a length of seven bits a byte and so many bytes.
static size_t after_name(const unsigned char *bytes) {
  size_t length = 0;
  size_t at = HEAD;
  unsigned shift = 0;
  do {
    length |= (size_t)(bytes[at] & 0x7F) << shift;
    shift += 7;
  } while (bytes[at++] & 0x80);
  return at + length;
}

// Compiles one file to the end of code and notes it in list.
static int compile(lua_State *L, const char *directory, const char *file, struct buf *list,
                   struct buf *code) {
  const char *path = lua_pushfstring(L, "%s/%s", directory, file);
  if (luaL_loadfile(L, path) != 0) {
    fprintf(stderr, "left out: %s\n", lua_tostring(L, -1));
    lua_settop(L, 0);
    return 0;
  }
  struct buf whole;
  buf_init(&whole, MAX_OUT);
  int result = lua_dump(L, append, &whole);
  if (result == 0) {
    const char *bytes = buf_peek(&whole);
    size_t rest = after_name((const unsigned char *)bytes);
    size_t size = HEAD + buf_size(&whole) - rest;
    char line[32];
    int length = snprintf(line, sizeof line, " %zu\n", size);
    result = buf_append(list, file, strlen(file));
    result = result != 0 ? result : buf_append(list, line, (size_t)length);
    result = result != 0 ? result : buf_append(code, bytes, HEAD);
    result = result != 0 ? result : buf_append(code, bytes + rest, size - HEAD);
  }
  buf_fini(&whole);
  lua_settop(L, 0);
  return result;
}

// Written beside and renamed, so that no program that starts meanwhile sees half of it.
static int write_out(const char *out, const struct buf *list, const struct buf *code,
                     struct timespec began) {
  char beside[PATH_MAX];
  int length = snprintf(beside, sizeof beside, "%s.new", out);
  FILE *file = length < (int)sizeof beside ? fopen(beside, "wb") : NULL;
  if (file == NULL) {
    return -1;
  }
  fputs("farcall bytecode 1\n", file);
  fwrite(buf_peek(list), 1, buf_size(list), file);
  fputc('\n', file);
  fwrite(buf_peek(code), 1, buf_size(code), file);
  struct timespec times[2] = {began, began};
  int failed = fflush(file) != 0 || ferror(file) || futimens(fileno(file), times) != 0;
  failed = fclose(file) != 0 || failed;
  return failed ? -1 : rename(beside, out);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fputs("usage: farcall-compile OUT DIRECTORY FILE...\n", stderr);
    return 2;
  }
  lua_State *L = luaL_newstate();
  struct timespec began;
  // The clock of files' times.
  if (L == NULL || clock_gettime(CLOCK_REALTIME_COARSE, &began) != 0) {
    return 1;
  }
  struct buf list;
  struct buf code;
  buf_init(&list, MAX_OUT);
  buf_init(&code, MAX_OUT);
  int result = 0;
  for (int i = 3; i < argc && result == 0; i++) {
    result = compile(L, argv[2], argv[i], &list, &code);
  }
  if (result != 0 || write_out(argv[1], &list, &code, began) != 0) {
    fprintf(stderr, "farcall-compile: %s cannot be written\n", argv[1]);
    result = 1;
  }
  buf_fini(&list);
  buf_fini(&code);
  lua_close(L);
  return result;
}
