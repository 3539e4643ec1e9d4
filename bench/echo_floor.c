// SPDX-License-Identifier: MIT
// The floor under a tool call, in C: an epoll server on the Unix socket named by its argument that
// answers each line with itself. bench/echo_client.py calls it. It knows no partial lines beyond
// what an echo needs: bytes go back as they came.

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || strlen(path) >= sizeof address.sun_path) {
    return -1;
  }
  strcpy(address.sun_path, path);
  unlink(path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0) {
    return -1;
  }
  return fd;
}

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void echo(int fd) {
  char bytes[65536];
  ssize_t got = read(fd, bytes, sizeof bytes);
  if (got <= 0 || send(fd, bytes, (size_t)got, MSG_NOSIGNAL) != got) {
    close(fd);
  }
}

int main(int argc, char **argv) {
  int listener = argc == 2 ? listen_at(argv[1]) : -1;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (listener < 0 || epoll < 0) {
    fputs("usage: echo_floor PATH\n", stderr);
    return 2;
  }
  watch(epoll, listener);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd == listener) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
          watch(epoll, fd);
        }
      } else {
        echo(events[i].data.fd);
      }
    }
  }
}
