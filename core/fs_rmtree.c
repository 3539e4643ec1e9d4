// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs.h"

// The walk holds one directory open at a time, whatever the depth. It goes down by name without
// following links, and up by "..", which it believes only if that is the directory it came from:
// somebody who moves directories about while they are removed cannot lead it elsewhere.

enum { PASSES = 3 };

struct level {
  uint64_t device;
  uint64_t inode;
  size_t name;  // where its own name stands in walk.names
  size_t below; // the names of its directories that are left to do begin here
};

struct walk {
  int base; // the directory that holds the tree
  int fd;   // the directory we are in: base, or that of the last level
  uint64_t mount;
  struct level *levels;
  size_t depth, level_capacity;
  char *names; // a stack of strings
  size_t used, capacity;
  int failed; // the first failure
};

static void note(struct walk *walk, int code) {
  if (walk->failed == 0 && code != -ENOENT) {
    walk->failed = code;
  }
}

static int push_name(struct walk *walk, const char *name) {
  size_t size = strlen(name) + 1;
  if (walk->names == NULL || walk->capacity - walk->used < size) {
    size_t capacity = walk->capacity * 2 + size + 256;
    char *grown = realloc(walk->names, capacity);
    if (grown == NULL) {
      return -ENOMEM;
    }
    walk->names = grown;
    walk->capacity = capacity;
  }
  memcpy(walk->names + walk->used, name, size);
  walk->used += size;
  return 0;
}

static size_t last_name(const struct walk *walk) {
  size_t start = walk->used - 1;
  while (start > 0 && walk->names[start - 1] != '\0') {
    start--;
  }
  return start;
}

// Opens a directory that its owner, who is us, has closed to himself. The mode is changed through
// the descriptor, not the name, which may lead elsewhere by now.
static int open_closed(int parent, const char *name) {
  int path = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (path < 0) {
    return -errno;
  }
  struct stat st;
  int fd = -EACCES;
  if (fstat(path, &st) == 0 && st.st_uid == geteuid()) {
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", path);
    fd = chmod(proc, S_IRWXU) == 0 ? openat(path, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    fd = fd < 0 ? -errno : fd;
  }
  close(path);
  return fd;
}

static int open_dir(int parent, const char *name) {
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    return errno == EACCES ? open_closed(parent, name) : -errno;
  }
  return fd;
}

static uint64_t device_of(const struct statx *stx) {
  return (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor;
}

static int identify(int fd, struct statx *stx) {
  const unsigned want = STATX_TYPE | STATX_MODE | STATX_UID | STATX_INO | STATX_MNT_ID;
  return statx(fd, "", AT_EMPTY_PATH, want, stx) == 0 ? 0 : -errno;
}

// Removes what is not a directory and remembers the names of what is.
static int empty(struct walk *walk) {
  int copy = fcntl(walk->fd, F_DUPFD_CLOEXEC, 0);
  DIR *dir = copy < 0 ? NULL : fdopendir(copy);
  if (dir == NULL) {
    int code = -errno;
    if (copy >= 0) {
      close(copy);
    }
    return code;
  }
  int code = 0;
  while (code == 0) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (entry == NULL) {
      code = -errno;
      break;
    }
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
      continue;
    }
    if (entry->d_type == DT_DIR) {
      code = push_name(walk, name);
    } else if (unlinkat(walk->fd, name, 0) != 0) {
      if (errno == EISDIR) {
        code = push_name(walk, name);
      } else {
        note(walk, -errno);
      }
    }
  }
  closedir(dir);
  return code;
}

static int push_level(struct walk *walk, const struct statx *stx, size_t name) {
  if (walk->depth == walk->level_capacity) {
    size_t capacity = walk->level_capacity * 2 + 16;
    struct level *grown = realloc(walk->levels, capacity * sizeof *grown);
    if (grown == NULL) {
      return -ENOMEM;
    }
    walk->levels = grown;
    walk->level_capacity = capacity;
  }
  walk->levels[walk->depth++] = (struct level){
      .device = device_of(stx), .inode = stx->stx_ino, .name = name, .below = walk->used};
  return 0;
}

static void move_to(struct walk *walk, int fd) {
  if (walk->fd != walk->base) {
    close(walk->fd);
  }
  walk->fd = fd;
}

// Goes down into the directory whose name is the last on the stack.
static int enter(struct walk *walk) {
  size_t name = last_name(walk);
  int fd = open_dir(walk->fd, walk->names + name);
  if (fd < 0) {
    return fd;
  }
  struct statx stx;
  int code = identify(fd, &stx);
  if (code == 0 && walk->depth == 0) {
    walk->mount = stx.stx_mnt_id;
  } else if (code == 0 && stx.stx_mnt_id != walk->mount) {
    code = -EXDEV;
  }
  if (code == 0) {
    code = push_level(walk, &stx, name);
  }
  if (code != 0) {
    close(fd);
    return code;
  }
  if ((stx.stx_mode & S_IRWXU) != S_IRWXU && stx.stx_uid == geteuid()) {
    fchmod(fd, (stx.stx_mode & 07777U) | S_IRWXU); // if it fails, so will what needs it
  }
  move_to(walk, fd);
  note(walk, empty(walk));
  return 0;
}

// Goes up and removes the directory that has been emptied. A failure ends the walk.
static int leave(struct walk *walk) {
  int parent = walk->base;
  if (walk->depth > 1) {
    const struct level *above = &walk->levels[walk->depth - 2];
    parent = openat(walk->fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
      return -errno;
    }
    struct statx stx;
    int code = identify(parent, &stx);
    if (code == 0 && (device_of(&stx) != above->device || stx.stx_ino != above->inode)) {
      code = -ESTALE;
    }
    if (code != 0) {
      close(parent);
      return code;
    }
  }
  size_t name = walk->levels[--walk->depth].name;
  move_to(walk, parent);
  if (unlinkat(parent, walk->names + name, AT_REMOVEDIR) != 0) {
    note(walk, -errno);
  }
  walk->used = name;
  return 0;
}

static void next_below(struct walk *walk) {
  int code = enter(walk);
  if (code == 0) {
    return;
  }
  size_t name = last_name(walk);
  if (code == -ENOTDIR || code == -ELOOP) { // was replaced since we saw it
    code = unlinkat(walk->fd, walk->names + name, 0) == 0 ? 0 : -errno;
  }
  note(walk, code);
  walk->used = name;
}

static int remove_below(int base, const char *name) {
  struct walk walk = {.base = base, .fd = base};
  int code = push_name(&walk, name);
  if (code == 0) {
    next_below(&walk);
    while (code == 0 && walk.depth > 0) {
      if (walk.used > walk.levels[walk.depth - 1].below) {
        next_below(&walk);
      } else {
        code = leave(&walk);
      }
    }
  }
  move_to(&walk, base);
  free(walk.levels);
  free(walk.names);
  return walk.failed != 0 ? walk.failed : code;
}

// Splits path, without its trailing slashes, into the directory that holds it, opened, and *name.
static int open_base(char *path, const char **name) {
  size_t length = strlen(path);
  while (length > 0 && path[length - 1] == '/') {
    path[--length] = '\0';
  }
  char *slash = strrchr(path, '/');
  *name = slash != NULL ? slash + 1 : path;
  if (length == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
    return -EINVAL;
  }
  const char *parent = slash == NULL ? "." : slash == path ? "/" : path;
  if (slash != NULL) {
    *slash = '\0';
  }
  int fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

int fs_rmtree(const char *path) {
  char *copy = strdup(path);
  if (copy == NULL) {
    return -ENOMEM;
  }
  const char *name;
  int base = open_base(copy, &name);
  int code = base;
  if (base >= 0) {
    code = unlinkat(base, name, 0) == 0 ? 0 : -errno;
    // Somebody may add files while we remove them, and some file systems leave names out of a
    // listing while others are removed: so look again, but not for ever.
    for (int pass = 0; pass < PASSES && (code == -EISDIR || code == -ENOTEMPTY); pass++) {
      code = remove_below(base, name);
    }
    close(base);
  }
  free(copy);
  return code == -ENOENT ? 0 : code;
}
