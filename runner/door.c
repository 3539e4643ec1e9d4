// SPDX-License-Identifier: MIT
#include "door.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "claim.h"
#include "listen.h"
#include "remove.h"
#include "spawn.h"

int door_path(const char *dir, char path[DOOR_PATH]) {
  return snprintf(path, DOOR_PATH, "%s/link", dir) < DOOR_PATH ? 0 : -ENAMETOOLONG;
}

// The time that it takes tells nothing of where they differ.
static bool is_same(const char *a, const char *b, size_t size) {
  volatile unsigned char differ = 0;
  for (size_t i = 0; i < size; i++) {
    differ |= (unsigned char)(a[i] ^ b[i]);
  }
  return differ == 0;
}

// Reads one message with its descriptors: -1 where none came.
static bool read_knock(int fd, struct door_knock *knock, int fds[2]) {
  union {
    struct cmsghdr head;
    char space[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec bytes = {.iov_base = knock, .iov_len = sizeof *knock};
  struct msghdr message = {.msg_iov = &bytes,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  fds[0] = fds[1] = -1;
  ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const struct cmsghdr *head = size < 0 ? NULL : CMSG_FIRSTHDR(&message);
  if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
    // One alone must not be lost either.
    size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(head), (count < 2 ? count : 2) * sizeof(int));
  }
  return size == (ssize_t)sizeof *knock && fds[1] >= 0;
}

static void refuse(int peer, const int fds[2]) {
  static const char ANSWER[] = "error token 13 that is another one";
  send(peer, ANSWER, sizeof ANSWER - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  for (int i = 0; i < 2; i++) {
    if (fds[i] >= 0) {
      close(fds[i]);
    }
  }
}

static void on_knock(void *data, uint32_t events) {
  (void)events;
  struct door_knocker *knocker = data;
  struct door *door = knocker->door;
  struct door_knock knock;
  int fds[2];
  if (!read_knock(knocker->watch.fd, &knock, fds) ||
      !is_same(knock.token, door->token, DOOR_TOKEN)) {
    refuse(knocker->watch.fd, fds);
    watch_close(door->watches, &knocker->watch);
    return;
  }
  int peer = knocker->watch.fd;
  watch_set(door->watches, &knocker->watch, 0);
  knocker->watch.fd = -1;
  door->fn(door->data, &knock, fds[0], fds[1], peer);
}

static void on_connection(void *data, uint32_t events) {
  (void)events;
  struct door *door = data;
  pid_t pid;
  uid_t uid;
  int fd = listen_accept(door->watch.fd, &pid, &uid);
  if (fd < 0) {
    return;
  }
  // Whoever comes and says nothing has to leave when others come.
  struct door_knocker *knocker = &door->knockers[door->next++ % DOOR_KNOCKERS];
  watch_close(door->watches, &knocker->watch);
  watch_init(&knocker->watch, fd, on_knock, knocker);
  watch_set(door->watches, &knocker->watch, EPOLLIN);
}

int door_open(struct door *door) {
  char path[DOOR_PATH];
  watch_init(&door->watch, -1, on_connection, door);
  for (int i = 0; i < DOOR_KNOCKERS; i++) {
    door->knockers[i].door = door;
    watch_init(&door->knockers[i].watch, -1, on_knock, &door->knockers[i]);
  }
  int code = door_path(door->dir, path);
  if (code != 0) {
    return code;
  }
  if (mkdir(door->dir, 0700) != 0) {
    return -errno;
  }
  int fd = listen_at(path, SOCK_SEQPACKET);
  if (fd < 0) {
    rmdir(door->dir);
    return fd;
  }
  door->claim = claim_take(door->dir);
  watch_init(&door->watch, fd, on_connection, door);
  return watch_set(door->watches, &door->watch, EPOLLIN);
}

void door_close(struct door *door) {
  for (int i = 0; i < DOOR_KNOCKERS; i++) {
    watch_close(door->watches, &door->knockers[i].watch);
  }
  if (door->watch.fd >= 0) {
    remove_tree(door->dir);
    close(door->claim);
    // How long that takes is for those who have left something to say.
    if (spawn_fork(NULL, 0) == 0) {
      claim_sweep(door->dir);
      _exit(0);
    }
  }
  watch_close(door->watches, &door->watch);
}
