// SPDX-License-Identifier: MIT
#include "remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// One descriptor is held for each level.
#define MAX_DEPTH 400
// Somebody may add files while others are removed.
#define PASSES 3

// Opens a directory that its owner, who is us, has closed to himself. The mode is changed through
// the descriptor, not the name, which may lead elsewhere by now.
static void open_up(int parent, const char *name) {
  int path = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (path >= 0) {
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", path);
    chmod(proc, S_IRWXU);
    close(path);
  }
}

static int open_dir(int parent, const char *name) {
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int fd = openat(parent, name, flags);
  if (fd < 0 && errno == EACCES) {
    open_up(parent, name);
    fd = openat(parent, name, flags);
  }
  return fd;
}

static void remove_at(int parent, const char *name, dev_t device, int depth);

static void empty(int fd, dev_t device, int depth) {
  DIR *list = fdopendir(fd);
  if (list == NULL) {
    close(fd);
    return;
  }
  for (const struct dirent *entry; (entry = readdir(list)) != NULL;) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
      continue;
    }
    if (unlinkat(fd, name, 0) != 0 && (errno == EISDIR || errno == EPERM || errno == EACCES)) {
      remove_at(fd, name, device, depth + 1);
    }
  }
  closedir(list);
}

static void remove_at(int parent, const char *name, dev_t device, int depth) {
  for (int pass = 0; pass < PASSES && depth < MAX_DEPTH; pass++) {
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
      return;
    }
    int fd = open_dir(parent, name);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || (depth > 0 && st.st_dev != device)) {
      if (fd >= 0) {
        close(fd);
      }
      return;
    }
    if (st.st_uid == geteuid()) {
      fchmod(fd, S_IRWXU);
    }
    empty(fd, st.st_dev, depth);
  }
  unlinkat(parent, name, AT_REMOVEDIR);
}

void remove_tree(const char *path) {
  remove_at(AT_FDCWD, path, 0, 0);
}
