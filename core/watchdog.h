// SPDX-License-Identifier: MIT
#ifndef FARCALL_WATCHDOG_H
#define FARCALL_WATCHDOG_H

// Notices, while it happens, that a callback holds the loop: a timer of the kernel signals the
// loop's thread now and then, and the signal handler looks whether the loop is still in the same
// callback. The timer runs only while the loop has work; a busy loop pays a clock reading without
// system call for each callback, an idle one nothing. Times are exact to about a quarter of
// warn_ms.
//
// It takes the highest real-time signal that nobody handles, for as long as it lives. Children do
// not inherit the timer.

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"

struct watchdog;

struct watchdog_options {
  unsigned warn_ms; // at least 1
  unsigned stop_ms; // 0: never
  // From the signal handler, on the loop's thread, in the middle of the callback: once with stop
  // false after warn_ms, once with stop true after stop_ms. Only what a signal handler may do.
  void (*late)(void *data, bool stop);
  // When a callback for which late was called is over. May free the watchdog.
  void (*over)(void *data, uint64_t held_ms);
  void *data;
};

// Watches loop; the calling thread must be the one that runs it. One watchdog a loop. 0 or -errno.
int watchdog_new(struct loop *loop, const struct watchdog_options *options, struct watchdog **out);
// Accepts NULL. The loop must still be open, or have been closed for good.
void watchdog_free(struct watchdog *w);

// True while the timer runs.
bool watchdog_is_armed(const struct watchdog *w);

#endif
