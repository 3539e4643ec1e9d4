// SPDX-License-Identifier: MIT
#ifndef FARCALL_WATCH_H
#define FARCALL_WATCH_H

// Descriptors that are waited for. Level-triggered; one thread.

#include <stdint.h>
#include <sys/epoll.h>

#define WATCH_BATCH 64

// The set of all that is watched.
struct watches {
  int epoll;
  struct epoll_event ready[WATCH_BATCH];
  int count, at; // what of the last wait has not been called yet
};

typedef void (*watch_fn)(void *data, uint32_t events);

struct watch {
  int fd; // owned; -1: none
  uint32_t events;
  watch_fn fn;
  void *data;
};

// 0 or -errno.
int watches_open(struct watches *set);
// Waits, at most so many milliseconds (-1: for ever), and calls back whoever has something. 0 or
// -errno.
int watches_wait(struct watches *set, int timeout_ms);

// Takes the descriptor over; nothing is waited for yet.
void watch_init(struct watch *w, int fd, watch_fn fn, void *data);
// Waits for these events: EPOLLIN, EPOLLOUT, both or 0. An error or a hang-up calls fn as well, but
// not while events are 0. 0 or -errno: -EPERM for what is always ready (a regular file).
int watch_set(struct watches *set, struct watch *w, uint32_t events);
// Closes the descriptor; fn is not called any more, so that w may be freed. Idempotent.
void watch_close(struct watches *set, struct watch *w);

#endif
