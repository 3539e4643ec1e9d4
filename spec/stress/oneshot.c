// SPDX-License-Identifier: MIT
// Many producers and one loop on one queue: nothing may be lost, doubled, out of a producer's
// order, or left lying because a wake-up was lost. Usage: stress_oneshot [ITEMS_A_PRODUCER]

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "oneshot.h"

enum { PRODUCERS = 8, ITEMS = 500 * 1000, SHIFT = 32, LATE_MS = 120 * 1000 };

struct bout {
  struct loop *loop;
  struct oneshot *queue;
  struct loop_timer late;
  size_t items;                // of each producer
  bool one_at_a_time;          // each waits until its item has arrived
  uint32_t next[PRODUCERS];    // what must come next, the consumer's own
  atomic_uint seen[PRODUCERS]; // how many have come
  atomic_size_t refused;       // pushes that met a full queue
  size_t arrived;
  const char *failure;
};

struct producer {
  struct bout *bout;
  unsigned number;
  pthread_t thread;
};

// Written before the push and read after the pop without any synchronization of their own: TSan
// tells if the queue does not carry them over.
struct parcel {
  unsigned producer;
  uint32_t number;
};

static void push(struct bout *bout, struct parcel *parcel) {
  while (oneshot_push(bout->queue, parcel) == -EAGAIN) {
    atomic_fetch_add_explicit(&bout->refused, 1, memory_order_relaxed);
    sched_yield();
  }
}

static void *produce(void *argument) {
  const struct producer *self = argument;
  struct bout *bout = self->bout;
  for (uint32_t i = 0; i < bout->items; i++) {
    struct parcel *parcel = malloc(sizeof *parcel);
    if (parcel == NULL) {
      abort();
    }
    *parcel = (struct parcel){.producer = self->number, .number = i};
    push(bout, parcel);
    while (bout->one_at_a_time && atomic_load(&bout->seen[self->number]) != i + 1) {
      sched_yield();
    }
  }
  return NULL;
}

static void fail(struct bout *bout, const char *failure) {
  bout->failure = failure;
  loop_stop(bout->loop);
}

static void consume(void *item, void *data) {
  struct bout *bout = data;
  struct parcel *parcel = item;
  unsigned producer = parcel->producer;
  if (producer >= PRODUCERS || parcel->number != bout->next[producer]) {
    fail(bout, "lost, doubled or out of order");
    return;
  }
  free(parcel);
  bout->next[producer]++;
  atomic_fetch_add(&bout->seen[producer], 1);
  if (++bout->arrived == PRODUCERS * bout->items) {
    loop_stop(bout->loop);
  }
}

static void late(struct loop_timer *timer) {
  fail(timer->data, "items are missing: a wake-up was lost");
}

static int run(const char *name, size_t capacity, size_t items, bool one_at_a_time) {
  struct bout *bout = calloc(1, sizeof *bout);
  struct producer producers[PRODUCERS];
  if (bout == NULL || loop_new(&bout->loop) != 0 ||
      oneshot_new(bout->loop, capacity, consume, bout, &bout->queue) != 0) {
    abort();
  }
  bout->items = items;
  bout->one_at_a_time = one_at_a_time;
  bout->late.data = bout;
  loop_timer_start(bout->loop, &bout->late, LATE_MS, late);
  uint64_t start = loop_now_ns();
  for (unsigned i = 0; i < PRODUCERS; i++) {
    producers[i] = (struct producer){.bout = bout, .number = i};
    if (pthread_create(&producers[i].thread, NULL, produce, &producers[i]) != 0) {
      abort();
    }
  }
  int code = loop_run(bout->loop);
  double seconds = (double)(loop_now_ns() - start) / 1e9;
  if (bout->failure != NULL || code != 0) {
    printf("%s: FAILED: %s after %zu items\n", name,
           bout->failure != NULL ? bout->failure : "the loop failed", bout->arrived);
    exit(1); // producers may wait for ever
  }
  for (unsigned i = 0; i < PRODUCERS; i++) {
    pthread_join(producers[i].thread, NULL);
  }
  if (oneshot_pop(bout->queue) != NULL) {
    printf("%s: FAILED: more came out than went in\n", name);
    return 1;
  }
  printf("%-24s %8zu items in %6.2f s: %5.2f million/s, %zu pushes met a full queue\n", name,
         bout->arrived, seconds, (double)bout->arrived / seconds / 1e6,
         atomic_load(&bout->refused));
  oneshot_free(bout->queue);
  loop_timer_stop(&bout->late);
  loop_free(bout->loop);
  free(bout);
  return 0;
}

int main(int argc, char **argv) {
  size_t items = argc > 1 ? strtoul(argv[1], NULL, 10) : ITEMS;
  return run("capacity 4096", 4096, items, false) || run("capacity 64", 64, items / 2, false) ||
         run("capacity 2", 2, items / 20, false) || run("one at a time", 64, items / 50, true);
}
