// SPDX-License-Identifier: MIT
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAY_PATIENCE_MS 5000

// A descriptor of the same pipe whose flags are our own; or -1.
static int own_pipe(int fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

void link_init(struct link *link, int in, int out) {
  struct stat st;
  link->shared = true;
  link->out_socket = false;
  link->in_socket = fstat(in, &st) == 0 && S_ISSOCK(st.st_mode);
  if (fstat(out, &st) == 0) {
    int own = S_ISFIFO(st.st_mode) ? own_pipe(out) : -1;
    if (own >= 0) {
      close(out);
      out = own;
    }
    link->out_socket = S_ISSOCK(st.st_mode);
    link->shared = own < 0 && !link->out_socket;
  }
  link->in.fd = in;
  link->out.fd = out;
}

// Somebody else may have taken what the descriptor was said to have.
static bool is_ready(int fd, short events) {
  struct pollfd poller = {.fd = fd, .events = events};
  return poll(&poller, 1, 0) > 0;
}

static ssize_t result(ssize_t size) {
  return size >= 0 ? size : errno == EINTR ? -EAGAIN : -errno;
}

ssize_t link_read(const struct link *link, char *buffer, size_t size) {
  int fd = link->in.fd;
  return result(link->in_socket ? recv(fd, buffer, size, MSG_DONTWAIT) : read(fd, buffer, size));
}

ssize_t link_write(const struct link *link, const char *bytes, size_t size) {
  int fd = link->out.fd;
  if (link->out_socket) {
    return result(send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  if (link->shared) {
    // A pipe that is ready takes so much at once.
    if (!is_ready(fd, POLLOUT)) {
      return -EAGAIN;
    }
    size = size < PIPE_BUF ? size : PIPE_BUF;
  }
  return result(write(fd, bytes, size));
}

int link_say(const struct link *link, const char *line) {
  for (size_t left = strlen(line); left > 0;) {
    ssize_t size = link_write(link, line, left);
    if (size == -EAGAIN) {
      struct pollfd poller = {.fd = link->out.fd, .events = POLLOUT};
      if (poll(&poller, 1, SAY_PATIENCE_MS) == 0) {
        return -ETIMEDOUT;
      }
      continue;
    }
    if (size < 0) {
      return (int)size;
    }
    line += size;
    left -= (size_t)size;
  }
  return 0;
}

void link_close(struct watches *set, struct link *link) {
  watch_close(set, &link->in);
  watch_close(set, &link->out);
}

bool link_is_open(const struct link *link) {
  return link->in.fd >= 0;
}
