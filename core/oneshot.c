// SPDX-License-Identifier: MIT
#include "oneshot.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { CACHE_LINE = 64, MAX_CAPACITY = 1 << 24 };

// A ring in which each cell carries the ticket that may use it next. For the cell at ticket t:
//   sequence == t             free, the producer that draws ticket t may fill it
//   sequence == t + 1         filled, the consumer at ticket t may take it
//   sequence == t + capacity  taken, free for the next round
// So a cell passes between threads by one store to its sequence, and nothing else is shared but the
// ticket counter.
struct cell {
  atomic_size_t sequence;
  void *item;
};

// The producers' counter and the consumer's have a cache line each, so that they do not fight over
// one.
struct oneshot {
  alignas(CACHE_LINE) atomic_size_t tail; // next ticket of the producers
  alignas(CACHE_LINE) size_t head;        // next ticket of the consumer, its own
  size_t mask;
  struct cell *cells;
  oneshot_fn fn;
  void *data;
  bool *freed; // set while items are handed out: tells the caller that fn freed the queue
  struct loop_wake wake;
};

static void hand_out(struct loop_wake *wake);

int oneshot_new(struct loop *loop, size_t capacity, oneshot_fn fn, void *data,
                struct oneshot **out) {
  if (capacity == 0 || capacity > MAX_CAPACITY) {
    return -EINVAL;
  }
  size_t size = 2;
  while (size < capacity) {
    size *= 2;
  }
  struct oneshot *queue = aligned_alloc(CACHE_LINE, sizeof *queue);
  struct cell *cells = malloc(size * sizeof *cells);
  if (queue == NULL || cells == NULL) {
    free(queue);
    free(cells);
    return -ENOMEM;
  }
  *queue = (struct oneshot){.mask = size - 1, .cells = cells, .fn = fn, .data = data};
  atomic_init(&queue->tail, 0);
  for (size_t i = 0; i < size; i++) {
    atomic_init(&cells[i].sequence, i);
  }
  int code = loop_wake_start(loop, &queue->wake, hand_out);
  if (code != 0) {
    free(cells);
    free(queue);
    return code;
  }
  queue->wake.data = queue;
  *out = queue;
  return 0;
}

void oneshot_free(struct oneshot *queue) {
  if (queue == NULL) {
    return;
  }
  if (queue->freed != NULL) {
    *queue->freed = true;
  }
  loop_wake_stop(&queue->wake);
  free(queue->cells);
  free(queue);
}

int oneshot_push(struct oneshot *queue, void *item) {
  // Relaxed: the counter only hands out tickets; the cell's sequence says whether ours is good.
  size_t ticket = atomic_load_explicit(&queue->tail, memory_order_relaxed);
  struct cell *cell;
  for (;;) {
    cell = &queue->cells[ticket & queue->mask];
    // Acquire, with the consumer's release: it has finished reading the item that was here.
    size_t sequence = atomic_load_explicit(&cell->sequence, memory_order_acquire);
    if (sequence == ticket) {
      // Relaxed for the same reason; on failure ticket is read anew.
      if (atomic_compare_exchange_weak_explicit(&queue->tail, &ticket, ticket + 1,
                                                memory_order_relaxed, memory_order_relaxed)) {
        break;
      }
    } else if ((ptrdiff_t)(sequence - ticket) < 0) {
      return -EAGAIN; // still holds the item of the round before
    } else {
      ticket = atomic_load_explicit(&queue->tail, memory_order_relaxed); // others were faster
    }
  }
  cell->item = item;
  // Release: the item, and all that the caller wrote before, go with the sequence.
  atomic_store_explicit(&cell->sequence, ticket + 1, memory_order_release);
  // After the store, never before: the callback that answers this wake-up, ours or one it is merged
  // with, begins after its flag was cleared by an exchange. Exchanges of one variable have one
  // order. If ours came first, the loop's acquired what we released and the callback sees the item;
  // if the loop's came first, ours found the flag down and has written to the eventfd. A plain load
  // of the flag could be answered before our store is visible, and the wake-up would be lost.
  loop_wake_send(&queue->wake);
  return 0;
}

void *oneshot_pop(struct oneshot *queue) {
  struct cell *cell = &queue->cells[queue->head & queue->mask];
  // Acquire, with the producer's release.
  size_t sequence = atomic_load_explicit(&cell->sequence, memory_order_acquire);
  if (sequence != queue->head + 1) {
    return NULL;
  }
  void *item = cell->item;
  // Release: a producer that sees the cell free must not overwrite the item before we read it.
  atomic_store_explicit(&cell->sequence, queue->head + queue->mask + 1, memory_order_release);
  queue->head++;
  return item;
}

size_t oneshot_capacity(const struct oneshot *queue) {
  return queue->mask + 1;
}

static void hand_out(struct loop_wake *wake) {
  struct oneshot *queue = wake->data;
  bool freed = false;
  bool *outer = queue->freed; // fn may turn the loop
  queue->freed = &freed;
  // One ringful at most, so that busy producers cannot keep the loop from its other work.
  size_t left = queue->mask + 1;
  void *item = NULL;
  while (left > 0 && (item = oneshot_pop(queue)) != NULL) {
    queue->fn(item, queue->data);
    if (freed) {
      if (outer != NULL) {
        *outer = true;
      }
      return;
    }
    left--;
  }
  queue->freed = outer;
  if (left == 0) {
    loop_wake_send(&queue->wake); // there may be more, of which nobody will tell again
  }
}
