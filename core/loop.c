// SPDX-License-Identifier: MIT
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "err.h"

// Events taken from the kernel at once: what one turn may do before timers are looked at again.
#define BATCH 64
#define NO_SLOT UINT32_MAX
#define NS_PER_MS UINT64_C(1000000)

// The kernel is given a slot's number and generation, never an address: an event that was taken
// before its watch was stopped finds a newer generation and is dropped.
struct slot {
  struct loop_fd *watch; // NULL when free
  uint32_t generation;
  uint32_t next_free;
};

struct loop {
  int epoll;
  int timerfd; // -1 until loop_pollfd is called
  uint64_t timerfd_due_ns;
  bool closed;
  bool stopping;
  size_t holders;
  struct slot *slots;
  uint32_t slot_count, first_free;
  size_t watches, active; // active: watches that want something
  size_t children, wakes;
  struct loop_timer **heap;
  size_t heap_size, heap_capacity;
  uint64_t starts; // of timers
  struct loop_observer *observer;
  atomic_bool busy;
  _Atomic uint64_t turn;
};

uint64_t loop_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec;
}

int loop_new(struct loop **out) {
  struct loop *loop = calloc(1, sizeof *loop);
  if (loop == NULL) {
    return -ENOMEM;
  }
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (loop->epoll < 0) {
    int failed = -errno;
    free(loop);
    return failed;
  }
  loop->timerfd = -1;
  loop->first_free = NO_SLOT;
  loop->holders = 1;
  *out = loop;
  return 0;
}

struct loop *loop_hold(struct loop *loop) {
  loop->holders++;
  return loop;
}

void loop_drop(struct loop *loop) {
  if (loop != NULL && --loop->holders == 0) {
    free(loop);
  }
}

bool loop_is_closed(const struct loop *loop) {
  return loop->closed;
}

void loop_free(struct loop *loop) {
  if (loop == NULL || loop->closed) {
    return;
  }
  loop->closed = true;
  loop->stopping = true;
  for (uint32_t i = 0; i < loop->slot_count; i++) {
    if (loop->slots[i].watch != NULL) {
      loop->slots[i].watch->loop = NULL;
    }
  }
  for (size_t i = 0; i < loop->heap_size; i++) {
    loop->heap[i]->loop = NULL;
  }
  close(loop->epoll);
  if (loop->timerfd >= 0) {
    close(loop->timerfd);
  }
  free(loop->slots);
  free((void *)loop->heap);
  loop->slots = NULL;
  loop->slot_count = 0;
  loop->heap = NULL;
  loop->heap_size = 0;
  loop->watches = loop->active = loop->children = loop->wakes = 0;
  loop_drop(loop);
}

// Descriptors

static uint32_t epoll_events(unsigned want) {
  return ((want & LOOP_READ) != 0 ? (uint32_t)EPOLLIN : 0) |
         ((want & LOOP_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0);
}

static int control(const struct loop_fd *watch, int operation, unsigned want) {
  const struct slot *slot = &watch->loop->slots[watch->slot];
  struct epoll_event event = {.events = epoll_events(want)};
  event.data.u64 = (uint64_t)slot->generation << 32 | watch->slot;
  return epoll_ctl(watch->loop->epoll, operation, watch->fd, &event) == 0 ? 0 : -errno;
}

static int grow_slots(struct loop *loop) {
  uint32_t count = loop->slot_count > 0 ? loop->slot_count * 2 : 16;
  struct slot *slots = realloc(loop->slots, count * sizeof *slots);
  if (slots == NULL) {
    return -ENOMEM;
  }
  for (uint32_t i = count; i-- > loop->slot_count;) {
    slots[i] = (struct slot){.next_free = loop->first_free};
    loop->first_free = i;
  }
  loop->slots = slots;
  loop->slot_count = count;
  return 0;
}

static void release_slot(struct loop *loop, uint32_t index) {
  struct slot *slot = &loop->slots[index];
  slot->watch = NULL;
  slot->generation++;
  slot->next_free = loop->first_free;
  loop->first_free = index;
}

// Makes the kernel report exactly this from now on.
static int arm(struct loop_fd *watch, unsigned want) {
  if (want == watch->armed) {
    return 0;
  }
  // Nothing wanted is no registration at all: the kernel would go on to report hangups.
  int operation = watch->armed == 0 ? EPOLL_CTL_ADD : want == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  int failed = control(watch, operation, want);
  if (failed == 0) {
    watch->armed = want;
  }
  return failed;
}

int loop_fd_want(struct loop_fd *watch, unsigned want) {
  struct loop *loop = watch->loop;
  if (loop == NULL) {
    return ERR_CLOSED;
  }
  want &= LOOP_READ | LOOP_WRITE;
  if ((watch->armed & want) != want || (watch->armed & ~want & LOOP_WRITE) != 0) {
    int failed = arm(watch, want);
    if (failed != 0) {
      return failed;
    }
  }
  loop->active += want != 0;
  loop->active -= watch->want != 0;
  watch->want = want;
  return 0;
}

int loop_fd_start(struct loop *loop, struct loop_fd *watch, int fd, unsigned want, loop_fd_fn fn) {
  if (loop->closed) {
    return ERR_CLOSED;
  }
  if (loop->first_free == NO_SLOT) {
    int failed = grow_slots(loop);
    if (failed != 0) {
      return failed;
    }
  }
  uint32_t index = loop->first_free;
  loop->first_free = loop->slots[index].next_free;
  loop->slots[index].watch = watch;
  watch->loop = loop;
  watch->fd = fd;
  watch->want = 0;
  watch->armed = 0;
  watch->slot = index;
  watch->fn = fn;
  int failed = loop_fd_want(watch, want);
  if (failed != 0) {
    watch->loop = NULL;
    release_slot(loop, index);
    return failed;
  }
  loop->watches++;
  return 0;
}

void loop_fd_stop(struct loop_fd *watch) {
  struct loop *loop = watch->loop;
  if (loop == NULL) {
    return;
  }
  // It can fail only when the descriptor was closed first, and then there is nothing to undo.
  arm(watch, 0);
  loop->active -= watch->want != 0;
  watch->want = 0;
  watch->loop = NULL;
  loop->watches--;
  release_slot(loop, watch->slot);
}

// Timers: a binary heap of pointers, each timer knowing its place.

static bool is_earlier(const struct loop_timer *a, const struct loop_timer *b) {
  return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void heap_put(struct loop *loop, size_t index, struct loop_timer *timer) {
  loop->heap[index] = timer;
  timer->heap_index = index;
}

static void sift_up(struct loop *loop, size_t index, struct loop_timer *timer) {
  while (index > 0) {
    size_t parent = (index - 1) / 2;
    if (!is_earlier(timer, loop->heap[parent])) {
      break;
    }
    heap_put(loop, index, loop->heap[parent]);
    index = parent;
  }
  heap_put(loop, index, timer);
}

static void sift_down(struct loop *loop, size_t index, struct loop_timer *timer) {
  for (;;) {
    size_t child = index * 2 + 1;
    if (child >= loop->heap_size) {
      break;
    }
    if (child + 1 < loop->heap_size && is_earlier(loop->heap[child + 1], loop->heap[child])) {
      child++;
    }
    if (!is_earlier(loop->heap[child], timer)) {
      break;
    }
    heap_put(loop, index, loop->heap[child]);
    index = child;
  }
  heap_put(loop, index, timer);
}

// Tells the timerfd, if there is one, when the earliest timer is due.
static void sync_timerfd(struct loop *loop) {
  uint64_t due_ns = loop->heap_size > 0 ? loop->heap[0]->due_ns : 0;
  if (loop->timerfd < 0 || due_ns == loop->timerfd_due_ns) {
    return;
  }
  loop->timerfd_due_ns = due_ns;
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due_ns / (1000 * NS_PER_MS)),
                                       .tv_nsec = (long)(due_ns % (1000 * NS_PER_MS))}};
  timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void remove_timer(struct loop_timer *timer) {
  struct loop *loop = timer->loop;
  struct loop_timer *last = loop->heap[--loop->heap_size];
  if (last != timer) {
    size_t index = timer->heap_index;
    if (index > 0 && is_earlier(last, loop->heap[(index - 1) / 2])) {
      sift_up(loop, index, last);
    } else {
      sift_down(loop, index, last);
    }
  }
  timer->loop = NULL;
}

static int reserve_timer(struct loop *loop) {
  if (loop->heap_size < loop->heap_capacity) {
    return 0;
  }
  size_t capacity = loop->heap_capacity > 0 ? loop->heap_capacity * 2 : 16;
  void *heap = realloc((void *)loop->heap, capacity * sizeof(struct loop_timer *));
  if (heap == NULL) {
    return -ENOMEM;
  }
  loop->heap = heap;
  loop->heap_capacity = capacity;
  return 0;
}

int loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms,
                     loop_timer_fn fn) {
  if (loop->closed) {
    return ERR_CLOSED;
  }
  int failed = reserve_timer(loop);
  if (failed != 0) {
    return failed;
  }
  if (timer->loop != NULL) {
    remove_timer(timer);
  }
  uint64_t now_ns = loop_now_ns();
  uint64_t most_ms = (INT64_MAX - now_ns) / NS_PER_MS;
  timer->loop = loop;
  timer->due_ns = now_ns + (delay_ms < most_ms ? delay_ms : most_ms) * NS_PER_MS;
  timer->order = loop->starts++;
  timer->fn = fn;
  sift_up(loop, loop->heap_size++, timer);
  sync_timerfd(loop);
  return 0;
}

void loop_timer_stop(struct loop_timer *timer) {
  struct loop *loop = timer->loop;
  if (loop != NULL) {
    remove_timer(timer);
    sync_timerfd(loop);
  }
}

// Children

static void child_ready(struct loop_fd *watch, unsigned ready) {
  (void)ready;
  struct loop_child *child = (struct loop_child *)watch;
  siginfo_t info = {0};
  int failed;
  do {
    failed = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG);
  } while (failed != 0 && errno == EINTR);
  if (failed == 0 && info.si_pid == 0) {
    return;
  }
  loop_child_stop(child);
  // The callback may free the child, so it comes last.
  if (failed != 0) {
    child->fn(child, 0, 0);
  } else {
    child->fn(child, info.si_code == CLD_EXITED, info.si_status);
  }
}

int loop_child_start(struct loop *loop, struct loop_child *child, pid_t pid, loop_child_fn fn) {
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd < 0) {
    return -errno;
  }
  int failed = loop_fd_start(loop, &child->watch, pidfd, LOOP_READ, child_ready);
  if (failed != 0) {
    close(pidfd);
    return failed;
  }
  child->pid = pid;
  child->pidfd = pidfd;
  child->fn = fn;
  loop->children++;
  return 0;
}

void loop_child_stop(struct loop_child *child) {
  struct loop *loop = child->watch.loop;
  loop_fd_stop(&child->watch);
  if (loop != NULL) {
    loop->children--;
  }
  if (child->fn != NULL && child->pidfd >= 0) {
    close(child->pidfd);
    child->pidfd = -1;
  }
}

// Wake-ups

static void wake_ready(struct loop_fd *watch, unsigned ready) {
  (void)ready;
  struct loop_wake *wake = (struct loop_wake *)watch;
  uint64_t count;
  if (read(wake->fd, &count, sizeof count) < 0 && errno != EAGAIN) {
    return;
  }
  // Emptied first, then the flag, then the callback: a send before the flag falls is seen by this
  // callback, a send after it writes again.
  atomic_exchange_explicit(&wake->sent, false, memory_order_acq_rel);
  wake->fn(wake);
}

int loop_wake_start(struct loop *loop, struct loop_wake *wake, loop_wake_fn fn) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) {
    return -errno;
  }
  int failed = loop_fd_start(loop, &wake->watch, fd, LOOP_READ, wake_ready);
  if (failed != 0) {
    close(fd);
    return failed;
  }
  wake->fd = fd;
  wake->fn = fn;
  atomic_init(&wake->sent, false);
  loop->wakes++;
  return 0;
}

void loop_wake_send(struct loop_wake *wake) {
  if (!atomic_exchange_explicit(&wake->sent, true, memory_order_acq_rel)) {
    int saved = errno;
    uint64_t one = 1;
    ssize_t written;
    do {
      written = write(wake->fd, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
    errno = saved;
  }
}

void loop_wake_stop(struct loop_wake *wake) {
  struct loop *loop = wake->watch.loop;
  loop_fd_stop(&wake->watch);
  if (loop != NULL) {
    loop->wakes--;
  }
  if (wake->fn != NULL && wake->fd >= 0) {
    close(wake->fd);
    wake->fd = -1;
  }
}

// Turns

bool loop_is_busy(const struct loop *loop) {
  return atomic_load_explicit(&loop->busy, memory_order_relaxed);
}

uint64_t loop_turn_number(const struct loop *loop) {
  return atomic_load_explicit(&loop->turn, memory_order_relaxed);
}

void loop_observe(struct loop *loop, struct loop_observer *observer) {
  loop->observer = observer;
}

static void enter(struct loop *loop) {
  uint64_t turn = atomic_load_explicit(&loop->turn, memory_order_relaxed);
  atomic_store_explicit(&loop->turn, turn + 1, memory_order_relaxed);
  // Between the two, so that a signal handler that finds the loop busy finds the observer ready.
  if (loop->observer != NULL) {
    loop->observer->enter(loop->observer);
  }
  atomic_signal_fence(memory_order_seq_cst);
  atomic_store_explicit(&loop->busy, true, memory_order_relaxed);
}

static void leave(struct loop *loop, bool was_busy) {
  atomic_store_explicit(&loop->busy, was_busy, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
  if (loop->observer != NULL) {
    loop->observer->leave(loop->observer);
  }
}

static void call_timers(struct loop *loop, bool was_busy) {
  if (loop->heap_size == 0) {
    return;
  }
  uint64_t now_ns = loop_now_ns();
  uint64_t last = loop->starts;
  // A timer that was started by one of these callbacks waits for the next turn, or two of them
  // could keep the descriptors waiting for ever.
  while (loop->heap_size > 0 && !loop->stopping) {
    struct loop_timer *timer = loop->heap[0];
    if (timer->due_ns > now_ns || timer->order >= last) {
      break;
    }
    remove_timer(timer);
    enter(loop);
    timer->fn(timer);
    leave(loop, was_busy);
  }
  sync_timerfd(loop);
}

static unsigned ready_of(const struct loop_fd *watch, uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && watch->want != 0) {
    return watch->want | LOOP_HANGUP;
  }
  unsigned ready = ((events & EPOLLIN) != 0 ? (unsigned)LOOP_READ : 0) |
                   ((events & EPOLLOUT) != 0 ? (unsigned)LOOP_WRITE : 0);
  return ready & watch->want;
}

static void call_watches(struct loop *loop, const struct epoll_event *events, int count,
                         bool was_busy) {
  for (int i = 0; i < count && !loop->stopping; i++) {
    uint32_t index = (uint32_t)events[i].data.u64;
    uint32_t generation = (uint32_t)(events[i].data.u64 >> 32);
    if (index >= loop->slot_count || loop->slots[index].generation != generation) {
      continue;
    }
    struct loop_fd *watch = loop->slots[index].watch;
    if (watch == NULL) {
      continue;
    }
    unsigned ready = ready_of(watch, events[i].events);
    if (ready == 0) {
      // Level-triggered: what nobody wants now would come again in every turn.
      arm(watch, watch->want);
    } else {
      enter(loop);
      watch->fn(watch, ready);
      leave(loop, was_busy);
    }
  }
}

static int wait_ms(const struct loop *loop, int timeout_ms) {
  if (loop->heap_size == 0 || timeout_ms == 0) {
    return timeout_ms;
  }
  uint64_t now_ns = loop_now_ns();
  uint64_t due_ns = loop->heap[0]->due_ns;
  if (due_ns <= now_ns) {
    return 0;
  }
  uint64_t ms = (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
  if (timeout_ms >= 0 && ms > (uint64_t)timeout_ms) {
    return timeout_ms;
  }
  return ms < INT_MAX ? (int)ms : INT_MAX;
}

int loop_turn(struct loop *loop, int timeout_ms) {
  if (loop->closed) {
    return ERR_CLOSED;
  }
  bool was_busy = loop_is_busy(loop);
  struct epoll_event events[BATCH];
  atomic_store_explicit(&loop->busy, false, memory_order_relaxed);
  int count = epoll_wait(loop->epoll, events, BATCH, wait_ms(loop, timeout_ms));
  if (count < 0) {
    int failed = errno == EINTR ? 0 : -errno;
    if (failed != 0) {
      atomic_store_explicit(&loop->busy, was_busy, memory_order_relaxed);
      return failed;
    }
    count = 0;
  }
  loop->stopping = false;
  call_timers(loop, was_busy);
  call_watches(loop, events, count, was_busy);
  atomic_store_explicit(&loop->busy, was_busy, memory_order_relaxed);
  return 0;
}

static bool is_alive(const struct loop *loop) {
  return loop->heap_size > 0 || loop->active > loop->wakes;
}

int loop_run(struct loop *loop) {
  int failed = 0;
  loop->stopping = loop->closed;
  while (failed == 0 && !loop->stopping && is_alive(loop)) {
    failed = loop_turn(loop, -1);
  }
  return failed;
}

void loop_stop(struct loop *loop) {
  loop->stopping = true;
}

int loop_pollfd(struct loop *loop) {
  if (loop->closed) {
    return ERR_CLOSED;
  }
  if (loop->timerfd < 0) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    // No slot has this number, so a turn passes over the event; setting the timer anew clears it.
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = NO_SLOT};
    if (fd < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
      int failed = -errno;
      if (fd >= 0) {
        close(fd);
      }
      return failed;
    }
    loop->timerfd = fd;
    sync_timerfd(loop);
  }
  return loop->epoll;
}

struct loop_census loop_census(const struct loop *loop) {
  return (struct loop_census){.fds = loop->watches - loop->children - loop->wakes,
                              .timers = loop->heap_size,
                              .children = loop->children,
                              .wakes = loop->wakes};
}
