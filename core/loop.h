// SPDX-License-Identifier: MIT
#ifndef FARCALL_LOOP_H
#define FARCALL_LOOP_H

// The poll loop: descriptors, timers, child exits and wake-ups from other threads, on one epoll
// instance. Everything but loop_wake_send belongs to the thread that runs the loop. The structs
// are embedded by their users, which keep them alive until the matching stop; a callback may stop
// or free any of them, its own included, and start others.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4 };

struct loop_fd;
// ready: LOOP_READ and/or LOOP_WRITE; LOOP_HANGUP comes with both, so that a reader sees the end.
typedef void (*loop_fd_fn)(struct loop_fd *watch, unsigned ready);
struct loop_fd {
  struct loop *loop; // NULL when stopped
  int fd;            // borrowed
  unsigned want;
  loop_fd_fn fn;
  void *data;
};

struct loop_timer;
typedef void (*loop_timer_fn)(struct loop_timer *timer);
struct loop_timer {
  struct loop *loop; // NULL when stopped
  uint64_t due_ns;
  size_t heap_index;
  loop_timer_fn fn;
  void *data;
};

struct loop_child;
// status: as waitid reports it; the child has been reaped when this is called.
typedef void (*loop_child_fn)(struct loop_child *child, int exited, int code_or_signal);
struct loop_child {
  struct loop_fd watch; // on the pidfd
  pid_t pid;
  int pidfd; // owned; -1 when stopped
  loop_child_fn fn;
  void *data;
};

struct loop_wake;
typedef void (*loop_wake_fn)(struct loop_wake *wake);
struct loop_wake {
  struct loop_fd watch; // on the eventfd
  int fd;               // owned; -1 when stopped
  loop_wake_fn fn;
  void *data;
};

// A new loop in *out, to be freed by loop_free. 0 or -errno.
int loop_new(struct loop **out);
// Frees the loop. Whatever is still started on it is forgotten (its loop pointer becomes dangling),
// so stop everything first. Accepts NULL.
void loop_free(struct loop *loop);

// Monotonic time in nanoseconds, read afresh.
uint64_t loop_now_ns(void);

// Turns until loop_stop is called or nothing is started that could ever call back. 0 or -errno.
int loop_run(struct loop *loop);
// One turn that waits at most timeout_ms (-1: until something happens). 0 or -errno.
int loop_turn(struct loop *loop, int timeout_ms);
// Makes loop_run return after the callback that is running now.
void loop_stop(struct loop *loop);
// The epoll descriptor, readable when a turn has something to do: for a host with a loop of its own.
int loop_pollfd(const struct loop *loop);

// What is started now, by kind: for leak checks.
struct loop_census {
  size_t fds, timers, children, wakes;
};
struct loop_census loop_census(const struct loop *loop);

// True while a callback of this loop runs, false while it sleeps in epoll: for the watchdog. The
// turn number goes up by one each time a callback is entered. Both may be read from a signal
// handler.
bool loop_is_busy(const struct loop *loop);
uint64_t loop_turn_number(const struct loop *loop);

// Watches fd for want (may be 0). Level-triggered. 0 or -errno. A regular file cannot be watched
// (-EPERM): it never blocks.
int loop_fd_start(struct loop *loop, struct loop_fd *watch, int fd, unsigned want, loop_fd_fn fn);
int loop_fd_want(struct loop_fd *watch, unsigned want);
void loop_fd_stop(struct loop_fd *watch); // idempotent; before the fd is closed

// Calls fn once, delay_ms from now; starting a started timer moves it. 0 or -ENOMEM.
int loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms,
                     loop_timer_fn fn);
void loop_timer_stop(struct loop_timer *timer); // idempotent

// Reaps pid (a child of this process that nobody else waits for) when it ends and then calls fn. A
// child that has ended already is reported on the next turn. 0 or -errno.
int loop_child_start(struct loop *loop, struct loop_child *child, pid_t pid, loop_child_fn fn);
void loop_child_stop(struct loop_child *child); // idempotent; the child is then not reaped

// A wake-up that any thread or signal handler may send. Sends that come before the callback has
// run are merged into one. A started wake does not by itself keep loop_run going.
int loop_wake_start(struct loop *loop, struct loop_wake *wake, loop_wake_fn fn);
void loop_wake_send(struct loop_wake *wake);
void loop_wake_stop(struct loop_wake *wake); // idempotent; no thread may send any more

#endif
