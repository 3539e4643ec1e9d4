// SPDX-License-Identifier: MIT
#ifndef FARCALL_ONESHOT_H
#define FARCALL_ONESHOT_H

// A bounded queue of pointers from any number of threads to the one thread that runs a loop, with a
// wake-up: how requests enter the engine from threads of an embedding program, and how the threads
// of work hand back what they have done. A producer takes no lock, allocates nothing and never
// waits; a full queue says so. It knows nothing of what the pointers point to, and owns none of it.

#include <stddef.h>

#include "loop.h"

struct oneshot;

// Called on the loop's thread for each item, in the order in which the pushes took their place;
// items of one producer thus come in the order of its pushes. It may free the queue.
typedef void (*oneshot_fn)(void *item, void *data);

// A new queue for capacity items (rounded up to a power of two, at least 2) whose items are given
// to fn on loop's thread. 0 and *out, or -errno; -EINVAL for a capacity of 0 or beyond 2^24. It
// does not keep loop_run going.
int oneshot_new(struct loop *loop, size_t capacity, oneshot_fn fn, void *data,
                struct oneshot **out);

// Loop's thread. No thread may push any more; items that are still queued are forgotten, so pop
// them first. Accepts NULL.
void oneshot_free(struct oneshot *queue);

// Any thread, or a signal handler: queues item (not NULL) and wakes the loop. Whatever the caller
// wrote before the push is visible to fn. 0, or -EAGAIN at once when the queue is full.
int oneshot_push(struct oneshot *queue, void *item);

// Loop's thread: takes the oldest item, or NULL. An item whose push has not returned yet may or may
// not be there; it hides those behind it until then, and its push wakes the loop again.
void *oneshot_pop(struct oneshot *queue);

// How many items fit.
size_t oneshot_capacity(const struct oneshot *queue);

#endif
