// SPDX-License-Identifier: MIT
#include "sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"

// Connections accepted in one callback, and how long to wait when descriptors have run out.
#define ACCEPT_BATCH 16
#define PAUSE_MS 100

struct sock_listener {
  struct loop_fd watch;
  struct loop_timer pause;
  struct loop *loop; // held
  int fd;            // owned; -1 when closed
  unsigned calls;    // callbacks on the C stack
  sock_accept_fn fn;
  void *data;
  dev_t device;
  ino_t inode;
  struct sockaddr_un address;
};

size_t sock_path_max(void) {
  return sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
}

static int fill_address(struct sockaddr_un *address, const char *path) {
  size_t size = strlen(path);
  if (size == 0) {
    return -EINVAL;
  }
  if (size > sock_path_max()) {
    return -ENAMETOOLONG;
  }
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, size);
  return 0;
}

// Errors after which waiting helps, as others give back what they hold.
static bool is_shortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_connection(struct loop_fd *watch, unsigned ready);

static void on_pause_over(struct loop_timer *timer) {
  struct sock_listener *listener = timer->data;
  loop_fd_want(&listener->watch, LOOP_READ);
}

static void accept_one(struct sock_listener *listener, int fd) {
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    close(fd);
    return;
  }
  struct sock_peer peer = {credentials.pid, credentials.uid, credentials.gid};
  listener->fn(listener->data, fd, &peer);
}

static void release(struct sock_listener *listener) {
  if (listener->fd < 0 && listener->calls == 0) {
    loop_drop(listener->loop);
    free(listener);
  }
}

static void on_connection(struct loop_fd *watch, unsigned ready) {
  (void)ready;
  struct sock_listener *listener = watch->data;
  listener->calls++;
  for (int i = 0; i < ACCEPT_BATCH && listener->fd >= 0; i++) {
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      accept_one(listener, fd);
    } else if (is_shortage(errno)) {
      loop_fd_want(watch, 0);
      if (loop_timer_start(listener->loop, &listener->pause, PAUSE_MS, on_pause_over) != 0) {
        loop_fd_want(watch, LOOP_READ);
      }
      break;
    } else if (errno != ECONNABORTED && errno != EINTR) {
      // Nobody is waiting any more.
      break;
    }
  }
  listener->calls--;
  release(listener);
}

static int open_listener(struct sock_listener *listener, const struct sock_options *options) {
  mode_t mode = options != NULL && options->mode != 0 ? options->mode : S_IRUSR | S_IWUSR;
  int backlog = options != NULL && options->backlog > 0 ? options->backlog : 128;
  listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener->fd < 0) {
    return -errno;
  }
  const char *path = listener->address.sun_path;
  // On Linux the file gets the socket's own mode less the umask. So it is never more open than
  // asked, and chmod only gives back what the umask took.
  if (fchmod(listener->fd, mode) != 0 ||
      bind(listener->fd, (struct sockaddr *)&listener->address, sizeof listener->address) != 0) {
    return -errno;
  }
  struct stat info;
  if (lstat(path, &info) != 0) {
    return -errno;
  }
  listener->device = info.st_dev;
  listener->inode = info.st_ino;
  if (chmod(path, mode) != 0 || listen(listener->fd, backlog) != 0) {
    return -errno;
  }
  return loop_fd_start(listener->loop, &listener->watch, listener->fd, LOOP_READ, on_connection);
}

int sock_listen(struct loop *loop, const char *path, const struct sock_options *options,
                sock_accept_fn fn, void *data, struct sock_listener **out) {
  struct sock_listener *listener = calloc(1, sizeof *listener);
  if (listener == NULL) {
    return -ENOMEM;
  }
  listener->fd = -1;
  listener->loop = loop_hold(loop);
  listener->fn = fn;
  listener->data = data;
  listener->watch.data = listener;
  listener->pause.data = listener;
  int failed = fill_address(&listener->address, path);
  if (failed == 0) {
    failed = open_listener(listener, options);
  }
  if (failed != 0) {
    sock_close(listener);
    return failed;
  }
  *out = listener;
  return 0;
}

// The path may have been taken over by somebody else since.
static void remove_file(const struct sock_listener *listener) {
  struct stat info;
  if (listener->inode != 0 && lstat(listener->address.sun_path, &info) == 0 &&
      info.st_dev == listener->device && info.st_ino == listener->inode) {
    unlink(listener->address.sun_path);
  }
}

void sock_close(struct sock_listener *listener) {
  if (listener == NULL) {
    return;
  }
  loop_timer_stop(&listener->pause);
  loop_fd_stop(&listener->watch);
  remove_file(listener);
  if (listener->fd >= 0) {
    close(listener->fd);
    listener->fd = -1;
  }
  release(listener);
}

int sock_connect(const char *path, int *fd) {
  struct sockaddr_un address;
  int failed = fill_address(&address, path);
  if (failed != 0) {
    return failed;
  }
  int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) {
    return -errno;
  }
  if (connect(made, (struct sockaddr *)&address, sizeof address) != 0) {
    failed = -errno;
    close(made);
    return failed;
  }
  *fd = made;
  return 0;
}

int sock_pair(int ends[2]) {
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return -errno;
  }
  return 0;
}
