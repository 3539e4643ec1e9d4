// SPDX-License-Identifier: MIT
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"

struct file {
  struct port port;
  int fd;
  uint64_t left; // bytes that are to be written or read
  mode_t mode;
  bool deaf;                                     // the engine's direction has ended
  bool done;                                     // ours has
  char path[PATH_MAX], temporary[PATH_MAX + 32]; // of `put`
};

static void file_free(struct port *port) {
  struct file *file = (struct file *)port;
  close(file->fd);
  if (file->temporary[0] != '\0') {
    unlink(file->temporary);
  }
  port_fini(port);
  free(file);
}

static void file_fail(struct file *file, const char *stage, int code) {
  port_error(file->port.channel, stage, code);
  file_free(&file->port);
}

// All bytes have come.
static void put_done(struct file *file) {
  if (file->left > 0) {
    file_fail(file, "size", -EINVAL);
  } else if (fchmod(file->fd, file->mode) != 0) {
    file_fail(file, "mode", -errno);
  } else if (rename(file->temporary, file->path) != 0) {
    file_fail(file, "rename", -errno);
  } else {
    file->temporary[0] = '\0';
    port_ok(file->port.channel, "");
    mux_finish(file->port.channel);
    file_free(&file->port);
  }
}

static void put_readable(struct port *port) {
  struct file *file = (struct file *)port;
  const char *bytes;
  size_t size;
  int code;
  while ((code = mux_peek(port->channel, &bytes, &size)) == 0) {
    if (size > file->left) {
      file_fail(file, "size", -EINVAL);
      return;
    }
    ssize_t written = write(file->fd, bytes, size);
    if (written < 0 && errno != EINTR) {
      file_fail(file, "write", -errno);
      return;
    }
    written = written < 0 ? 0 : written;
    mux_consume(port->channel, (size_t)written);
    file->left -= (size_t)written;
  }
  if (code == ERR_EOF) {
    put_done(file);
  } else if (code != -EAGAIN) {
    file_free(port);
  }
}

static const struct port_kind PUT = {put_readable, NULL, file_free, NULL};

static int open_temporary(struct file *file) {
  for (int attempt = 0; attempt < 16; attempt++) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
      return -errno;
    }
    snprintf(file->temporary, sizeof file->temporary, "%s.%016llx", file->path,
             (unsigned long long)number);
    int fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 || errno != EEXIST) {
      return fd < 0 ? -errno : fd;
    }
  }
  return -EEXIST;
}

// Makes the port from a request with a path and two numbers.
static struct file *file_new(const struct words *words, unsigned base, uint64_t max,
                             uint64_t numbers[2]) {
  if (words->count != 4 || words->at[1][0] != '/' || strlen(words->at[1]) >= PATH_MAX ||
      !words_number(words->at[2], base, max, &numbers[0]) ||
      !words_number(words->at[3], 10, INT64_MAX, &numbers[1])) {
    errno = EINVAL;
    return NULL;
  }
  struct file *file = calloc(1, sizeof *file);
  if (file != NULL) {
    snprintf(file->path, sizeof file->path, "%s", words->at[1]);
    file->left = numbers[1];
  }
  return file;
}

void files_put(struct runner *runner, struct mux_channel *channel, const struct words *words) {
  uint64_t numbers[2];
  struct file *file = file_new(words, 8, 07777, numbers);
  if (file == NULL) {
    port_error(channel, "request", -errno);
    return;
  }
  file->mode = (mode_t)numbers[0];
  file->fd = open_temporary(file);
  if (file->fd < 0) {
    port_error(channel, "open", file->fd);
    free(file);
    return;
  }
  port_init(&file->port, &PUT, runner, channel);
  put_readable(&file->port);
}

// All has been read. Until the engine has ended its direction too, the channel is kept, because to
// close it would abort it.
static void get_done(struct file *file) {
  mux_finish(file->port.channel);
  file->done = true;
  if (file->deaf) {
    file_free(&file->port);
  }
}

// The next piece, when nothing waits for the link. May free the file.
static void send_more(struct port *port) {
  struct file *file = (struct file *)port;
  char *buffer = port->runner->buffer;
  while (!file->done && mux_pending(port->channel) == 0) {
    size_t room = sizeof port->runner->buffer;
    ssize_t size = read(file->fd, buffer, file->left < room ? (size_t)file->left : room);
    if (size > 0 && mux_write(port->channel, buffer, (size_t)size) == 0) {
      file->left -= (size_t)size;
    } else if (size == 0) {
      get_done(file);
      return;
    } else if (size > 0 || errno != EINTR) {
      // A part of it has been sent as good: only an abort tells.
      file_free(port);
      return;
    }
  }
}

static void get_readable(struct port *port) {
  struct file *file = (struct file *)port;
  const char *bytes;
  size_t size;
  int code;
  while ((code = mux_peek(port->channel, &bytes, &size)) == 0) {
    mux_consume(port->channel, size);
  }
  file->deaf = code == ERR_EOF;
  if (code != -EAGAIN && (code != ERR_EOF || file->done)) {
    file_free(port);
  }
}

static const struct port_kind GET = {get_readable, send_more, file_free, NULL};

// A descriptor of a regular file, or -errno. Nothing happens to a device or FIFO, nothing waits.
static int open_regular(const char *path, struct stat *st) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    return -errno;
  }
  int code = fstat(fd, st) != 0 ? -errno : S_ISDIR(st->st_mode) ? -EISDIR : 0;
  if (code == 0 && !S_ISREG(st->st_mode)) {
    code = -EINVAL;
  }
  if (code != 0) {
    close(fd);
    return code;
  }
  return fd;
}

void files_get(struct runner *runner, struct mux_channel *channel, const struct words *words) {
  uint64_t numbers[2];
  struct stat st = {0};
  struct file *file = file_new(words, 10, INT64_MAX, numbers);
  if (file == NULL) {
    port_error(channel, "request", -errno);
    return;
  }
  file->fd = open_regular(file->path, &st);
  int code = file->fd < 0 ? file->fd : 0;
  if (code == 0 && numbers[0] > 0 && lseek(file->fd, (off_t)numbers[0], SEEK_SET) < 0) {
    code = -errno;
    close(file->fd);
  }
  if (code != 0) {
    port_error(channel, "open", code);
    free(file);
    return;
  }
  port_init(&file->port, &GET, runner, channel);
  char size[32];
  snprintf(size, sizeof size, "%lld", (long long)st.st_size);
  port_ok(channel, size);
  send_more(&file->port);
}
