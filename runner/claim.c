// SPDX-License-Identifier: MIT
#include "claim.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "remove.h"

#define FILE_NAME "claim"
#define BOOT_SIZE 36

// What no other kernel calls itself, nor this one after its next start.
static bool read_boot(char boot[BOOT_SIZE]) {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t size = read(fd, boot, BOOT_SIZE);
  close(fd);
  return size == BOOT_SIZE;
}

int claim_take(const char *dir) {
  char path[PATH_MAX], boot[BOOT_SIZE];
  snprintf(path, sizeof path, "%s/" FILE_NAME, dir);
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  // In this order: what is marked has been locked.
  if (fd >= 0 && read_boot(boot) && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
      write(fd, boot, BOOT_SIZE) == BOOT_SIZE) {
    return fd;
  }
  if (fd >= 0) {
    unlink(path);
    close(fd);
  }
  return -1;
}

// The claim that nobody holds in a directory of ours, locked, or -1.
static int take_over(int parent, const char *name, const char boot[BOOT_SIZE]) {
  int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) {
    return -1;
  }
  struct stat st;
  int fd = fstat(dir, &st) == 0 && st.st_uid == geteuid()
               ? openat(dir, FILE_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
               : -1;
  close(dir);
  char theirs[BOOT_SIZE];
  if (fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) != 0 || read(fd, theirs, BOOT_SIZE) != BOOT_SIZE ||
                  memcmp(theirs, boot, BOOT_SIZE) != 0)) {
    close(fd);
    fd = -1;
  }
  return fd;
}

void claim_sweep(const char *dir) {
  char path[PATH_MAX], boot[BOOT_SIZE];
  const char *slash = strrchr(dir, '/');
  if (slash == NULL || snprintf(path, sizeof path, "%s", dir) >= (int)sizeof path ||
      !read_boot(boot)) {
    return;
  }
  size_t base = (size_t)(slash + 1 - dir);
  path[base] = '\0';
  DIR *list = opendir(path);
  if (list == NULL) {
    return;
  }
  for (const struct dirent *entry; (entry = readdir(list)) != NULL;) {
    const char *name = entry->d_name;
    if (strncmp(name, "farcall-run-", 12) != 0 && strncmp(name, "farcall-link-", 13) != 0) {
      continue;
    }
    int fd = take_over(dirfd(list), name, boot);
    if (fd >= 0) {
      snprintf(path + base, sizeof path - base, "%s", name);
      remove_tree(path);
      close(fd);
    }
  }
  closedir(list);
}
