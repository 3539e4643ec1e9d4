// SPDX-License-Identifier: MIT
#include "lua_bytecode.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char TITLE[] = "farcall bytecode 1\n";
static const char PREFIX[] = "farcall.";

enum {
  HEAD = 5,           // magic, version and flags of LuaJIT's bytecode; the chunk's name comes next
  MAX_FILE = 64 << 20 // bytes
};

struct bundle {
  struct timespec made;
  size_t size;
  char bytes[];
};

// What lua_load reads: the head, the name of the chunk, everything after it.
struct pieces {
  const char *at[3];
  size_t size[3];
  int next;
};

static const char *next_piece(lua_State *L, void *data, size_t *size) {
  (void)L;
  struct pieces *pieces = data;
  if (pieces->next == 3) {
    *size = 0;
    return NULL;
  }
  *size = pieces->size[pieces->next];
  return pieces->at[pieces->next++];
}

// The name with its length in front, seven bits a byte, the lowest first.
static size_t put_name(unsigned char *out, const char *name, size_t length) {
  size_t used = 0;
  size_t left = length;
  while (left >= 0x80) {
    out[used++] = (unsigned char)((left & 0x7F) | 0x80);
    left >>= 7;
  }
  out[used++] = (unsigned char)left;
  memcpy(out + used, name, length);
  return used + length;
}

static bool is_newer(const struct timespec *a, const struct timespec *b) {
  return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

// Pushes the module's chunk, named after its source; false when the source counts or there is none.
static bool load(lua_State *L, const struct bundle *bundle, const char *path, const char *bytes,
                 size_t size) {
  struct stat source;
  if (stat(path, &source) != 0 || is_newer(&source.st_mtim, &bundle->made)) {
    return false;
  }
  char chunk[PATH_MAX + 1];
  unsigned char name[PATH_MAX + 8];
  int length = snprintf(chunk, sizeof chunk, "@%s", path);
  struct pieces pieces = {{bytes, (const char *)name, bytes + HEAD},
                          {HEAD, put_name(name, chunk, (size_t)length), size - HEAD},
                          0};
  if (lua_load(L, next_piece, &pieces, chunk) != 0) {
    lua_pop(L, 1);
    return false;
  }
  return true;
}

// A loader of package.loaders. Upvalues: the bundle, NAME -> {offset, size}, the tree.
static int search(lua_State *L) {
  static const char *const FORMS[] = {"%s.lua", "%s/init.lua"};
  const struct bundle *bundle = lua_touserdata(L, lua_upvalueindex(1));
  const char *module = luaL_checkstring(L, 1);
  if (strncmp(module, PREFIX, sizeof PREFIX - 1) != 0) {
    return 0;
  }
  const char *relative = luaL_gsub(L, module + sizeof PREFIX - 1, ".", "/");
  for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
    lua_pushfstring(L, FORMS[i], relative);
    lua_pushvalue(L, -1);
    lua_rawget(L, lua_upvalueindex(2));
    if (lua_istable(L, -1)) {
      lua_rawgeti(L, -1, 1);
      lua_rawgeti(L, -2, 2);
      char path[PATH_MAX];
      int length = snprintf(path, sizeof path, "%s/farcall/%s",
                            lua_tostring(L, lua_upvalueindex(3)), lua_tostring(L, -4));
      return length < (int)sizeof path &&
             load(L, bundle, path, bundle->bytes + (size_t)lua_tonumber(L, -2),
                  (size_t)lua_tonumber(L, -1));
    }
    lua_pop(L, 2);
  }
  return 0;
}

static ssize_t read_all(int fd, char *bytes, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t got = read(fd, bytes + done, size - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      break;
    }
    done += (size_t)got;
  }
  return (ssize_t)done;
}

// Pushes the file as a bundle.
static bool read_bundle(lua_State *L, const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  struct stat info;
  bool good = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size <= MAX_FILE;
  if (good) {
    size_t size = (size_t)info.st_size;
    // One byte more ends the text of the list, whatever is in it.
    struct bundle *bundle = lua_newuserdata(L, sizeof *bundle + size + 1);
    bundle->made = info.st_mtim;
    bundle->size = size;
    bundle->bytes[size] = '\0';
    good = read_all(fd, bundle->bytes, size) == (ssize_t)size;
    if (!good) {
      lua_pop(L, 1);
    }
  }
  close(fd);
  return good;
}

// Pushes the map of NAME -> {offset, size}. Sizes are checked against the file's.
static bool read_list(lua_State *L, const struct bundle *bundle) {
  if (bundle->size < sizeof TITLE || memcmp(bundle->bytes, TITLE, sizeof TITLE - 1) != 0) {
    return false;
  }
  const char *list = bundle->bytes + sizeof TITLE - 1;
  const char *end = strstr(list, "\n\n");
  if (end == NULL) {
    return false;
  }
  size_t offset = (size_t)(end + 2 - bundle->bytes);
  lua_newtable(L);
  for (const char *line = list; line < end;) {
    const char *space = strchr(line, ' ');
    char *rest = NULL;
    unsigned long size = space != NULL ? strtoul(space + 1, &rest, 10) : 0;
    if (rest == NULL || *rest != '\n' || size <= HEAD || size > bundle->size - offset) {
      lua_pop(L, 1);
      return false;
    }
    lua_pushlstring(L, line, (size_t)(space - line));
    lua_createtable(L, 2, 0);
    lua_pushnumber(L, (lua_Number)offset);
    lua_rawseti(L, -2, 1);
    lua_pushnumber(L, (lua_Number)size);
    lua_rawseti(L, -2, 2);
    lua_rawset(L, -3);
    offset += size;
    line = rest + 1;
  }
  return true;
}

// Puts the function on top of the stack second in package.loaders, behind package.preload.
static void insert_loader(lua_State *L) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "loaders");
  for (int i = (int)lua_objlen(L, -1); i >= 2; i--) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushvalue(L, -3);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 3);
}

bool bytecode_use(lua_State *L, const char *tree) {
  char path[PATH_MAX];
  int length = snprintf(path, sizeof path, "%s/farcall.bytecode", tree);
  if (length >= (int)sizeof path || !read_bundle(L, path)) {
    return false;
  }
  if (!read_list(L, lua_touserdata(L, -1))) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushstring(L, tree);
  lua_pushcclosure(L, search, 3);
  insert_loader(L);
  return true;
}
