// SPDX-License-Identifier: MIT
#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "relay.h"

#define MAX_CONNECTIONS 512
#define BACKLOG 128

struct listener {
  struct port port;
  struct watch watch;
  size_t connections;
  bool closed; // only connections are left
  char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
};

int listen_at(const char *path, int type) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    return -ENAMETOOLONG;
  }
  memcpy(address.sun_path, path, strlen(path) + 1);
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return -errno;
  }
  mode_t before = umask(0177);
  int status = bind(fd, (struct sockaddr *)&address, sizeof address);
  int code = -errno;
  umask(before);
  if (status == 0 && listen(fd, BACKLOG) != 0) {
    code = -errno;
    status = -1;
    unlink(path);
  }
  if (status != 0) {
    close(fd);
    return code;
  }
  return fd;
}

int listen_accept(int fd, pid_t *pid, uid_t *uid) {
  int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (peer < 0) {
    return -errno;
  }
  struct ucred who;
  socklen_t size = sizeof who;
  if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 ||
      (who.uid != geteuid() && who.uid != 0)) {
    close(peer);
    return -EACCES;
  }
  *pid = who.pid;
  *uid = who.uid;
  return peer;
}

static void free_unused(struct listener *listener) {
  if (listener->closed && listener->connections == 0) {
    free(listener);
  }
}

static void on_over(void *data) {
  struct listener *listener = data;
  listener->connections--;
  if (!listener->closed) {
    watch_set(&listener->port.runner->watches, &listener->watch, EPOLLIN);
  }
  free_unused(listener);
}

static void on_connection(void *data, uint32_t events) {
  (void)events;
  struct listener *listener = data;
  struct runner *runner = listener->port.runner;
  pid_t pid = 0;
  uid_t uid = 0;
  int fd = listen_accept(listener->watch.fd, &pid, &uid);
  if (fd < 0) {
    // Without a descriptor for it the connection would be told of without end.
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
      watch_set(&runner->watches, &listener->watch, listener->connections > 0 ? 0 : EPOLLIN);
    }
    return;
  }
  char request[64];
  int size = snprintf(request, sizeof request, "accepted%c%u%c%ld%c%lu", 0,
                      (unsigned)mux_channel_id(listener->port.channel), 0, (long)pid, 0,
                      (unsigned long)uid);
  struct mux_channel *channel = NULL;
  if (mux_open(runner->mux, request, (size_t)size + 1, &channel) != 0) {
    close(fd);
    return;
  }
  listener->connections++;
  const struct relay_spec spec = {.from = fd, .to = fd, .over = on_over, .data = listener};
  if (relay_new(runner, channel, &spec) != 0) {
    on_over(listener);
  } else if (listener->connections >= MAX_CONNECTIONS) {
    watch_set(&runner->watches, &listener->watch, 0);
  }
}

static void stop(struct port *port) {
  struct listener *listener = (struct listener *)port;
  watch_close(&port->runner->watches, &listener->watch);
  unlink(listener->path);
  port_fini(port);
  listener->closed = true;
  free_unused(listener);
}

// Nothing is expected: bytes are dropped; the end or the abort closes it.
static void readable(struct port *port) {
  const char *bytes;
  size_t size;
  int code;
  while ((code = mux_peek(port->channel, &bytes, &size)) == 0) {
    mux_consume(port->channel, size);
  }
  if (code != -EAGAIN) {
    stop(port);
  }
}

static const struct port_kind LISTENER = {readable, NULL, stop, NULL};

void listen_start(struct runner *runner, struct mux_channel *channel, const struct words *words) {
  if (words->count != 2) {
    port_error(channel, "request", -EINVAL);
    return;
  }
  struct listener *listener = calloc(1, sizeof *listener);
  int fd = listener != NULL ? listen_at(words->at[1], SOCK_STREAM) : -ENOMEM;
  if (fd < 0) {
    free(listener);
    port_error(channel, "listen", fd);
    return;
  }
  snprintf(listener->path, sizeof listener->path, "%s", words->at[1]);
  watch_init(&listener->watch, fd, on_connection, listener);
  port_init(&listener->port, &LISTENER, runner, channel);
  port_ok(channel, "");
  watch_set(&runner->watches, &listener->watch, EPOLLIN);
}
