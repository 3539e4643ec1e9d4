// SPDX-License-Identifier: MIT
#ifndef FARCALL_LOOP_H
#define FARCALL_LOOP_H

// The poll loop: descriptors, timers, child exits and wake-ups from other threads, on one epoll
// instance. Everything but loop_wake_send belongs to the thread that runs the loop. The structs
// are embedded by their users, zeroed before their first start, and kept alive until the matching
// stop; a callback may stop or free any of them, its own included, and start others.

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4 };

struct loop_fd;
// ready: what of want is ready. When the other end is gone or an error is pending, that is all of
// want and LOOP_HANGUP, so that the next read or write tells what happened.
typedef void (*loop_fd_fn)(struct loop_fd *watch, unsigned ready);
struct loop_fd {
  struct loop *loop; // NULL when stopped
  int fd;            // borrowed
  unsigned want;
  unsigned armed; // what the kernel was asked for: want, and perhaps LOOP_READ too many
  uint32_t slot;  // the loop's number for it
  loop_fd_fn fn;
  void *data;
};

struct loop_timer;
typedef void (*loop_timer_fn)(struct loop_timer *timer);
struct loop_timer {
  struct loop *loop; // NULL when stopped
  uint64_t due_ns;
  uint64_t order; // of starts: among timers due together the first started is the first called
  size_t heap_index;
  loop_timer_fn fn;
  void *data;
};

struct loop_child;
// The child has been reaped when this is called, and the watch is stopped. exited: 1 and its exit
// code, or 0 and the signal that killed it (0 when somebody else had reaped it).
typedef void (*loop_child_fn)(struct loop_child *child, int exited, int code_or_signal);
struct loop_child {
  struct loop_fd watch; // on the pidfd
  pid_t pid;
  int pidfd; // owned while watch is started
  loop_child_fn fn;
  void *data;
};

struct loop_wake;
typedef void (*loop_wake_fn)(struct loop_wake *wake);
struct loop_wake {
  struct loop_fd watch; // on the eventfd
  int fd;               // owned while watch is started
  atomic_bool sent;     // and not called yet
  loop_wake_fn fn;
  void *data;
};

// A new loop in *out, to be freed by loop_free. 0 or -errno.
int loop_new(struct loop **out);
// Closes the loop: whatever is still started on it is stopped without being called, and from now on
// every start fails with ERR_CLOSED. The memory goes when the last holder has dropped it, at once
// when there is none. Accepts NULL. Not from within a callback of this loop.
void loop_free(struct loop *loop);
// For those who keep the pointer and cannot know whether the loop is freed before them.
struct loop *loop_hold(struct loop *loop);
void loop_drop(struct loop *loop);
bool loop_is_closed(const struct loop *loop);

// Monotonic time in nanoseconds, read afresh.
uint64_t loop_now_ns(void);

// Turns until loop_stop is called or nothing is started that could ever call back. 0 or -errno.
int loop_run(struct loop *loop);
// One turn that waits at most timeout_ms (-1: until something happens), then calls what is due:
// timers first, then a bounded number of descriptors. What a callback starts is not called in the
// same turn. 0 or -errno.
int loop_turn(struct loop *loop, int timeout_ms);
// Makes loop_run or loop_turn return after the callback that is running now; what was ready beside
// it is found again by the next turn. Does nothing when no callback runs.
void loop_stop(struct loop *loop);
// A descriptor, owned by the loop, readable when a turn has something to do: for a host with a loop
// of its own, which calls loop_turn(loop, 0) then. From the first call on, timers cost a system
// call when the earliest changes. -errno on failure.
int loop_pollfd(struct loop *loop);

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

// Sees every callback from outside: enter before the loop becomes busy, leave after it is no
// longer, both on the loop's thread. One a loop (NULL removes it); the struct is borrowed, and
// leave may free it after removing it. For the watchdog.
struct loop_observer {
  void (*enter)(struct loop_observer *observer);
  void (*leave)(struct loop_observer *observer);
};
void loop_observe(struct loop *loop, struct loop_observer *observer);

// Watches fd for want. Level-triggered; with want 0 nothing is ever called, a hangup included. One
// watch a descriptor. 0 or -errno. A regular file cannot be watched (-EPERM): it never blocks.
int loop_fd_start(struct loop *loop, struct loop_fd *watch, int fd, unsigned want, loop_fd_fn fn);
// Changes want. Costs a system call only when the kernel must be asked for more, or for no
// LOOP_WRITE any longer: LOOP_READ is taken back when it comes unwanted, so that a reader who
// pauses between question and answer pays nothing. ERR_CLOSED when stopped.
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
