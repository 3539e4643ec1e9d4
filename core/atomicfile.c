// SPDX-License-Identifier: MIT
#include "atomicfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "fs.h"

#define INFIX ".farcall-"

enum {
  DIGITS = 16,
  TAIL = sizeof INFIX - 1 + DIGITS,
  NAME_KEPT = NAME_MAX - 1 - TAIL, // of a very long name only the beginning
  TRIES = 32,
};

static int make_name(char name[NAME_MAX + 1], const char *base) {
  unsigned long long random;
  // Eight bytes come whole or not at all, and never interrupted.
  if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
    return -errno;
  }
  snprintf(name, NAME_MAX + 1, ".%.*s" INFIX "%0*llx", NAME_KEPT, base, DIGITS, random);
  return 0;
}

static bool is_leftover(const char *name) {
  size_t length = strlen(name);
  if (name[0] != '.' || length < 1 + TAIL ||
      strncmp(name + length - TAIL, INFIX, sizeof INFIX - 1) != 0) {
    return false;
  }
  return strspn(name + length - DIGITS, "0123456789abcdef") == DIGITS;
}

// A new empty file, locked, so that atomicfile_clean in another process knows that it is in use.
// Between our open and our lock a cleaner may take it for a leftover: it then holds the lock or has
// unlinked the file, and we take another name. Where there are no locks, nothing is ever cleaned.
static int create_beside(int dir, const char *base, char name[NAME_MAX + 1]) {
  for (int i = 0; i < TRIES; i++) {
    int code = make_name(name, base);
    if (code != 0) {
      return code;
    }
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
      if (errno == EEXIST) {
        continue;
      }
      return -errno;
    }
    bool taken = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    struct stat st;
    if (!taken && fstat(fd, &st) == 0 && st.st_nlink > 0) {
      return fd;
    }
    close(fd);
  }
  return -EEXIST;
}

static int check_target(int dir, const char *base) {
  struct stat st;
  if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? 0 : -errno;
  }
  switch (st.st_mode & S_IFMT) {
  case S_IFREG:
    return 0;
  case S_IFDIR:
    return -EISDIR;
  case S_IFLNK:
    return -ELOOP;
  default:
    return ERR_NOTFILE;
  }
}

static int write_all(int fd, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = fs_write_once(fd, bytes, size);
    if (n < 0) {
      return (int)n;
    }
    if (n == 0) {
      return -EIO;
    }
    bytes += n;
    size -= (size_t)n;
  }
  return 0;
}

static int fill(int fd, const void *bytes, size_t size, const struct atomicfile_options *options) {
  int code = write_all(fd, bytes, size);
  if (code == 0 && fchmod(fd, options->mode) != 0) {
    code = -errno;
  }
  if (code == 0 && options->sync && fsync(fd) != 0) {
    code = -errno;
  }
  return code;
}

static int replace(int dir, const char *base, const void *bytes, size_t size,
                   const struct atomicfile_options *options) {
  int code = check_target(dir, base);
  if (code != 0) {
    return code;
  }
  char name[NAME_MAX + 1];
  int fd = create_beside(dir, base, name);
  if (fd < 0) {
    return fd;
  }
  code = fill(fd, bytes, size, options);
  if (code == 0 && renameat(dir, name, dir, base) != 0) {
    code = -errno;
  }
  if (code != 0) {
    unlinkat(dir, name, 0);
  } else if (options->sync && fsync(dir) != 0) {
    code = -errno;
  }
  close(fd); // only now: the lock has to outlive the name
  return code;
}

// Opens the directory part of path, and points *base at the rest.
static int open_parent(const char *path, bool sync, const char **base) {
  const char *slash = strrchr(path, '/');
  *base = slash != NULL ? slash + 1 : path;
  if (**base == '\0' || strcmp(*base, ".") == 0 || strcmp(*base, "..") == 0) {
    return *path == '\0' ? -ENOENT : -EISDIR;
  }
  char *parent = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
  if (parent == NULL) {
    return -ENOMEM;
  }
  // fsync needs a directory that is open for reading; otherwise it need not be readable.
  int fd = open(parent, (sync ? O_RDONLY : O_PATH) | O_DIRECTORY | O_CLOEXEC);
  int code = fd < 0 ? -errno : fd;
  free(parent);
  return code;
}

int atomicfile_write(const char *path, const void *bytes, size_t size,
                     const struct atomicfile_options *options) {
  struct stat st;
  char *real = NULL;
  if (options->follow && lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
    real = realpath(path, NULL);
    if (real == NULL) {
      return -errno;
    }
    path = real;
  }
  const char *base;
  int dir = open_parent(path, options->sync, &base);
  int code = dir;
  if (dir >= 0) {
    code = replace(dir, base, bytes, size, options);
    close(dir);
  }
  free(real);
  return code;
}

// True when name was the file of a dead writer and is gone now.
static bool remove_dead(int dir, const char *name) {
  int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  bool removed = false;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
    // With the lock in hand no writer can rename it any more; it may have done so before.
    struct stat ours;
    struct stat named;
    if (fstat(fd, &ours) == 0 && S_ISREG(ours.st_mode) &&
        fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == named.st_ino &&
        ours.st_dev == named.st_dev) {
      removed = unlinkat(dir, name, 0) == 0;
    }
  }
  close(fd);
  return removed;
}

int atomicfile_clean(const char *path, size_t *removed) {
  DIR *dir = opendir(path);
  if (dir == NULL) {
    return -errno;
  }
  int code = 0;
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (entry == NULL) {
      code = -errno;
      break;
    }
    if (is_leftover(entry->d_name) && remove_dead(dirfd(dir), entry->d_name) && removed != NULL) {
      *removed += 1;
    }
  }
  closedir(dir);
  return code;
}
