// SPDX-License-Identifier: MIT
#include "connect.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char bytes[65536];

static int fail(const char *path) {
  fprintf(stderr, "farcall-runner: %s: %s\n", path, strerror(errno));
  return 1;
}

static int open_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// What the socket has, to standard output; of a line that is waited for, no more than that. The end
// is 0, a failure -1.
static ssize_t answer(int fd, bool *line) {
  static char answers[65536];
  ssize_t size = recv(fd, answers, sizeof answers, 0);
  const char *end = *line && size > 0 ? memchr(answers, '\n', (size_t)size) : NULL;
  if (end != NULL) {
    *line = false;
    size = end + 1 - answers;
  }
  for (ssize_t at = 0; at < size;) {
    ssize_t written = write(STDOUT_FILENO, answers + at, (size_t)(size - at));
    if (written < 0 && errno != EINTR) {
      return -1;
    }
    at += written > 0 ? written : 0;
  }
  return end != NULL ? 0 : size;
}

int connect_main(const char *path, bool line) {
  int fd = open_socket(path);
  if (fd < 0) {
    return fail(path);
  }
  ssize_t size = 0, at = 0; // of what has been read and not been sent
  for (int input = STDIN_FILENO;;) {
    struct pollfd fds[] = {{.fd = fd, .events = (short)(POLLIN | (at < size ? POLLOUT : 0))},
                           {.fd = at < size ? -1 : input, .events = POLLIN}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) {
      return fail(path);
    }
    if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      ssize_t got = answer(fd, &line);
      if (got == 0 && line) {
        errno = ECONNRESET;
        return fail(path);
      } else if (got <= 0) {
        return got == 0 ? 0 : fail(path);
      }
    }
    if (fds[1].revents != 0) {
      at = 0;
      size = read(input, bytes, sizeof bytes);
      if (size <= 0) {
        size = 0;
        input = -1;
        if (!line) {
          shutdown(fd, SHUT_WR);
        }
      }
    }
    if (at < size) {
      ssize_t sent = send(fd, bytes + at, (size_t)(size - at), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        input = -1;
        at = size;
      }
      at += sent > 0 ? sent : 0;
    }
  }
}
