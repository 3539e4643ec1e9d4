// SPDX-License-Identifier: MIT
#include "tcp.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct tcp_connect {
  struct loop_fd watch;
  struct loop *loop; // held
  int fd;            // owned
  tcp_connect_fn fn;
  void *data;
};

static void release(struct tcp_connect *attempt) {
  loop_fd_stop(&attempt->watch);
  if (attempt->fd >= 0) {
    close(attempt->fd);
  }
  loop_drop(attempt->loop);
  free(attempt);
}

// Whoever connected at once is writable at once, so this is the only way to the end.
static void on_writable(struct loop_fd *watch, unsigned ready) {
  (void)ready;
  struct tcp_connect *attempt = watch->data;
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
    error = errno;
  }
  tcp_connect_fn fn = attempt->fn;
  void *data = attempt->data;
  int fd = attempt->fd;
  loop_fd_stop(watch);
  if (error != 0) {
    release(attempt);
    fn(data, -error, -1);
    return;
  }
  attempt->fd = -1;
  release(attempt);
  fn(data, 0, fd);
}

static int begin(struct tcp_connect *attempt, const struct addrinfo *to) {
  int one = 1;
  attempt->fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (attempt->fd < 0 || setsockopt(attempt->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) {
    return -errno;
  }
  if (connect(attempt->fd, to->ai_addr, to->ai_addrlen) != 0 && errno != EINPROGRESS) {
    return -errno;
  }
  return loop_fd_start(attempt->loop, &attempt->watch, attempt->fd, LOOP_WRITE, on_writable);
}

int tcp_connect_start(struct loop *loop, const char *address, const char *port, tcp_connect_fn fn,
                      void *data, struct tcp_connect **out) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
  struct addrinfo *to = NULL;
  if (getaddrinfo(address, port, &hints, &to) != 0) {
    return -EINVAL;
  }
  struct tcp_connect *attempt = calloc(1, sizeof *attempt);
  if (attempt == NULL) {
    freeaddrinfo(to);
    return -ENOMEM;
  }
  attempt->loop = loop_hold(loop);
  attempt->fn = fn;
  attempt->data = data;
  attempt->watch.data = attempt;
  int failed = begin(attempt, to);
  freeaddrinfo(to);
  if (failed != 0) {
    release(attempt);
    return failed;
  }
  *out = attempt;
  return 0;
}

void tcp_connect_stop(struct tcp_connect *attempt) {
  release(attempt);
}
