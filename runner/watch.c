// SPDX-License-Identifier: MIT
#include "watch.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

int watches_open(struct watches *set) {
  set->count = set->at = 0;
  set->epoll = epoll_create1(EPOLL_CLOEXEC);
  return set->epoll < 0 ? -errno : 0;
}

int watches_wait(struct watches *set, int timeout_ms) {
  set->count = epoll_wait(set->epoll, set->ready, WATCH_BATCH, timeout_ms);
  if (set->count < 0) {
    set->count = 0;
    return errno == EINTR ? 0 : -errno;
  }
  for (set->at = 0; set->at < set->count;) {
    const struct epoll_event *event = &set->ready[set->at++];
    struct watch *w = event->data.ptr;
    if (w != NULL) {
      w->fn(w->data, event->events);
    }
  }
  return 0;
}

void watch_init(struct watch *w, int fd, watch_fn fn, void *data) {
  *w = (struct watch){.fd = fd, .fn = fn, .data = data};
}

int watch_set(struct watches *set, struct watch *w, uint32_t events) {
  if (w->fd < 0 || events == w->events) {
    return 0;
  }
  struct epoll_event event = {.events = events, .data.ptr = w};
  // What is not waited for is taken out, because hang-ups would be told all the time.
  int how = events == 0 ? EPOLL_CTL_DEL : w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (epoll_ctl(set->epoll, how, w->fd, &event) != 0) {
    return -errno;
  }
  w->events = events;
  return 0;
}

void watch_close(struct watches *set, struct watch *w) {
  if (w->fd < 0) {
    return;
  }
  // By itself it would leave only with the last copy of the descriptor, which a child may hold.
  watch_set(set, w, 0);
  close(w->fd);
  w->fd = -1;
  for (int i = set->at; i < set->count; i++) {
    if (set->ready[i].data.ptr == w) {
      set->ready[i].data.ptr = NULL;
    }
  }
}
