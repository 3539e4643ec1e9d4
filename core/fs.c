// SPDX-License-Identifier: MIT
#include "fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"

enum { FIRST_READ = 64 * 1024, LIST_MAX = 1 << 28 };

// The signal is sent to the writing thread, so blocking it here is enough and harms no other.
ssize_t fs_write_once(int fd, const void *bytes, size_t size) {
  sigset_t limit;
  sigset_t before;
  sigemptyset(&limit);
  sigaddset(&limit, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &limit, &before);
  ssize_t n;
  do {
    n = write(fd, bytes, size);
  } while (n < 0 && errno == EINTR);
  ssize_t result = n < 0 ? -errno : n;
  if (result == -EFBIG && !sigismember(&before, SIGXFSZ)) {
    sigtimedwait(&limit, NULL, &(struct timespec){0});
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return result;
}

static bool is_dir(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int make_parents(const char *path, mode_t mode) {
  char *copy = strdup(path);
  if (copy == NULL) {
    return -ENOMEM;
  }
  int code = 0;
  for (char *p = copy + strspn(copy, "/"); code == 0 && (p = strchr(p, '/')) != NULL;) {
    *p = '\0';
    if (mkdir(copy, mode | S_IRWXU) != 0) {
      code = errno != EEXIST ? -errno : is_dir(copy) ? 0 : -ENOTDIR;
    }
    *p = '/';
    p += strspn(p, "/");
  }
  free(copy);
  return code;
}

int fs_mkdir(const char *path, mode_t mode, bool parents) {
  int code = parents ? make_parents(path, mode) : 0;
  if (code != 0) {
    return code;
  }
  if (mkdir(path, mode) == 0) {
    return 0;
  }
  code = -errno;
  return parents && code == -EEXIST && is_dir(path) ? 0 : code;
}

int fs_list(const char *path, char **names, size_t *size) {
  DIR *dir = opendir(path);
  if (dir == NULL) {
    return -errno;
  }
  struct buf all;
  buf_init(&all, LIST_MAX);
  int code = 0;
  while (code == 0) {
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (entry == NULL) {
      code = -errno;
      break;
    }
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      code = buf_append(&all, entry->d_name, strlen(entry->d_name) + 1);
    }
  }
  closedir(dir);
  char *copy = code == 0 ? malloc(buf_size(&all) + 1) : NULL;
  if (copy != NULL) {
    *size = buf_size(&all);
    if (*size > 0) {
      memcpy(copy, buf_peek(&all), *size);
    }
    *names = copy;
  } else if (code == 0) {
    code = -ENOMEM;
  }
  buf_fini(&all);
  return code;
}

static int check_regular(mode_t mode) {
  return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? -EISDIR : ERR_NOTFILE;
}

// Reads to the end or to max. The size that fstat told is a hint: the file may grow meanwhile, and
// files of /proc tell 0.
static int read_all(int fd, uint64_t offset, size_t max, struct fs_bytes *out) {
  uint64_t rest = out->file_size > offset ? out->file_size - offset : 0;
  size_t room = (rest > 0 && rest < SIZE_MAX ? (size_t)rest : FIRST_READ - 1) + 1;
  room = room < max ? room : max;
  char *bytes = malloc(room + 1);
  if (bytes == NULL) {
    return -ENOMEM;
  }
  size_t size = 0;
  while (size < max) {
    if (size == room) {
      room = room < max / 2 ? room * 2 : max;
      char *grown = realloc(bytes, room + 1);
      if (grown == NULL) {
        free(bytes);
        return -ENOMEM;
      }
      bytes = grown;
    }
    ssize_t n = pread(fd, bytes + size, room - size, (off_t)(offset + size));
    if (n == 0) {
      break;
    }
    if (n < 0 && errno != EINTR) {
      int code = -errno;
      free(bytes);
      return code;
    }
    size += n > 0 ? (size_t)n : 0;
  }
  out->bytes = bytes;
  out->size = size;
  return 0;
}

int fs_read(const char *path, uint64_t offset, size_t max, struct fs_bytes *out) {
  if (offset > INT64_MAX - max || max >= INT64_MAX) {
    return -EINVAL;
  }
  // Looked at before it is opened, because opening alone does something to a FIFO or a device; and
  // again after, because it may have been replaced in between. O_NONBLOCK is for that case.
  struct stat st;
  int code = stat(path, &st) != 0 ? -errno : check_regular(st.st_mode);
  if (code != 0) {
    return code;
  }
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    return -errno;
  }
  code = fstat(fd, &st) != 0 ? -errno : check_regular(st.st_mode);
  if (code == 0) {
    out->file_size = (uint64_t)st.st_size;
    code = read_all(fd, offset, max, out);
  }
  close(fd);
  return code;
}

int fs_append_open(const char *path, mode_t mode) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  int fd = open(path, flags, mode);
  if (fd < 0) {
    return errno == ENXIO ? ERR_NOTFILE : -errno; // a FIFO that nobody reads, or a socket
  }
  struct stat st;
  int code = fstat(fd, &st) != 0 ? -errno : check_regular(st.st_mode);
  if (code != 0) {
    close(fd);
    return code;
  }
  return fd;
}

int fs_append(int fd, const void *bytes, size_t size) {
  ssize_t n = fs_write_once(fd, bytes, size);
  if (n < 0) {
    return (int)n;
  }
  return (size_t)n == size ? 0 : ERR_PARTIAL;
}
