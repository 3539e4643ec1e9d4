// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs.h"

// Whether the path still leads to the file that fd has open.
static bool is_at(int fd, const char *path) {
  struct stat held;
  struct stat there;
  return fstat(fd, &held) == 0 && lstat(path, &there) == 0 && held.st_dev == there.st_dev &&
         held.st_ino == there.st_ino;
}

int fs_lock(const char *path, mode_t mode) {
  for (;;) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
    if (fd < 0) {
      return -errno;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      int code = -errno;
      close(fd);
      return code;
    }
    // Whoever held it before may have removed the file; then others lock another one.
    if (is_at(fd, path)) {
      return fd;
    }
    close(fd);
  }
}
