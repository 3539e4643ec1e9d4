// SPDX-License-Identifier: MIT
#include "handoff.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "err.h"
#include "loop.h"
#include "oneshot.h"

#define NS_PER_MS UINT64_C(1000000)

enum { CACHE_LINE = 64 };

// An id is the slot's number below, the slot's generation above.
enum { SLOT_BITS = 20 };
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)

// A slot's state is its generation, shifted, and these.
enum {
  BUSY = 1,          // from its drawing until its result is picked up
  OPEN = 2,          // accepted and not finished: may be cancelled
  CANCEL_QUEUED = 4, // its cancellation is on the queue: it cannot be given back yet
  STATE_BITS = 8,
};
#define GENERATION_MASK UINT64_C(0xFFFFFFFF)

struct item {
  enum handoff_what what;
  struct slot *slot;
  struct item *next; // in the inbox
};

struct slot {
  _Atomic uint64_t state;
  _Atomic uint32_t next_free; // number + 1 of the next free slot
  bool taken;                 // the server's: taken and not finished
  void *request;
  void *result;
  struct item submit;
  struct item cancel;
};

struct handoff {
  // Free slots: a stack. Below, number + 1 of the first; above, a count of changes, so that a first
  // that went and came back in between is not taken for one that stayed.
  alignas(CACHE_LINE) _Atomic uint64_t free_first;
  // How many are accepted and not finished; and whether more may come.
  alignas(CACHE_LINE) _Atomic uint64_t gate;
  // Results: numbers of slots in a ring. The server writes at tail; who picks up moves head. A cell
  // is written again only when head has passed it, because there are no more results than cells; so
  // what was read from it is good if head did not move meanwhile.
  alignas(CACHE_LINE) _Atomic uint64_t tail;
  alignas(CACHE_LINE) _Atomic uint64_t head;
  _Atomic uint32_t *ring;
  uint64_t ring_mask;
  atomic_bool ended;
  int ready_fd; // a semaphore: as many as there are results, and one for the end

  struct loop *loop;
  struct oneshot *queue;
  struct item *inbox, **inbox_end;
  struct item stop, close;
  size_t count;
  struct slot slots[];
};

#define GATE_STOPPED (UINT64_C(1) << 63)

static void collect(void *item, void *data) {
  struct handoff *handoff = data;
  struct item *came = item;
  came->next = NULL;
  *handoff->inbox_end = came;
  handoff->inbox_end = &came->next;
}

static uint64_t number_of(const struct handoff *handoff, const struct slot *slot) {
  return (uint64_t)(slot - handoff->slots);
}

static uint64_t generation_of(uint64_t state) {
  return state >> STATE_BITS;
}

static uint64_t id_of(const struct handoff *handoff, const struct slot *slot) {
  uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
  return generation_of(state) << SLOT_BITS | number_of(handoff, slot);
}

// The free slots

static struct slot *draw(struct handoff *handoff) {
  // Acquire, with the release of give_back: who had the slot before has done with it.
  uint64_t first = atomic_load_explicit(&handoff->free_first, memory_order_acquire);
  for (;;) {
    uint32_t number = (uint32_t)first;
    if (number == 0) {
      return NULL;
    }
    struct slot *slot = &handoff->slots[number - 1];
    // May be outdated, and then the count of changes is as well.
    uint32_t next = atomic_load_explicit(&slot->next_free, memory_order_relaxed);
    uint64_t changed = ((first >> 32) + 1) << 32 | next;
    if (atomic_compare_exchange_weak_explicit(&handoff->free_first, &first, changed,
                                              memory_order_acq_rel, memory_order_acquire)) {
      return slot;
    }
  }
}

static void give_back(struct handoff *handoff, struct slot *slot) {
  uint32_t number = (uint32_t)number_of(handoff, slot) + 1;
  uint64_t first = atomic_load_explicit(&handoff->free_first, memory_order_relaxed);
  uint64_t changed;
  do {
    atomic_store_explicit(&slot->next_free, (uint32_t)first, memory_order_relaxed);
    changed = ((first >> 32) + 1) << 32 | number;
  } while (!atomic_compare_exchange_weak_explicit(&handoff->free_first, &first, changed,
                                                  memory_order_acq_rel, memory_order_relaxed));
}

// Takes a reason to keep the slot away; who takes the last gives it back, with the next generation.
static void let_go(struct handoff *handoff, struct slot *slot, uint64_t reason) {
  uint64_t before = atomic_fetch_and_explicit(&slot->state, ~reason, memory_order_acq_rel);
  uint64_t left = before & ~reason & (BUSY | CANCEL_QUEUED);
  if (left == 0) {
    uint64_t next = (generation_of(before) + 1) & GENERATION_MASK;
    atomic_store_explicit(&slot->state, next << STATE_BITS, memory_order_relaxed);
    give_back(handoff, slot);
  }
}

int handoff_new(size_t slots, struct handoff **out) {
  if (slots == 0 || slots > HANDOFF_SLOTS_MAX) {
    return -EINVAL;
  }
  size_t size = sizeof(struct handoff) + slots * sizeof(struct slot);
  struct handoff *handoff =
      aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) & ~(CACHE_LINE - 1UL));
  if (handoff == NULL) {
    return -ENOMEM;
  }
  *handoff = (struct handoff){.ring_mask = 1, .ready_fd = -1, .count = slots};
  handoff->inbox_end = &handoff->inbox;
  handoff->stop.what = HANDOFF_STOP;
  handoff->close.what = HANDOFF_CLOSE;
  for (size_t i = 0; i < slots; i++) {
    struct slot *slot = &handoff->slots[i];
    *slot = (struct slot){.submit = {.what = HANDOFF_REQUEST, .slot = slot},
                          .cancel = {.what = HANDOFF_CANCEL, .slot = slot}};
    // Ids begin at 2^20: 0 is nobody's.
    atomic_init(&slot->state, UINT64_C(1) << STATE_BITS);
    atomic_init(&slot->next_free, i + 1 < slots ? (uint32_t)i + 2 : 0);
  }
  atomic_init(&handoff->free_first, 1);
  while (handoff->ring_mask + 1 < slots) {
    handoff->ring_mask = handoff->ring_mask * 2 + 1;
  }
  handoff->ring = calloc(handoff->ring_mask + 1, sizeof *handoff->ring);
  handoff->ready_fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
  int code = handoff->ring == NULL ? -ENOMEM : handoff->ready_fd < 0 ? -errno : 0;
  if (code == 0) {
    code = loop_new(&handoff->loop);
  }
  if (code == 0) {
    // Each slot's request and cancellation, stop and close.
    code = oneshot_new(handoff->loop, 2 * slots + 2, collect, handoff, &handoff->queue);
  }
  if (code != 0) {
    handoff_free(handoff);
    return code;
  }
  *out = handoff;
  return 0;
}

void handoff_free(struct handoff *handoff) {
  if (handoff == NULL) {
    return;
  }
  oneshot_free(handoff->queue);
  loop_free(handoff->loop);
  if (handoff->ready_fd >= 0) {
    close(handoff->ready_fd);
  }
  free(handoff->ring);
  free(handoff);
}

// Any thread

// Through the gate, unless it is shut: from now on the server waits for what is to come.
static bool pass(struct handoff *handoff) {
  uint64_t gate = atomic_load_explicit(&handoff->gate, memory_order_relaxed);
  do {
    if ((gate & GATE_STOPPED) != 0) {
      return false;
    }
  } while (!atomic_compare_exchange_weak_explicit(&handoff->gate, &gate, gate + 1,
                                                  memory_order_acq_rel, memory_order_relaxed));
  return true;
}

int handoff_submit(struct handoff *handoff, void *request, uint64_t *id) {
  struct slot *slot = draw(handoff);
  if (slot == NULL) {
    bool stopped = (atomic_load_explicit(&handoff->gate, memory_order_relaxed) & GATE_STOPPED) != 0;
    return stopped ? ERR_CLOSED : -EAGAIN;
  }
  if (!pass(handoff)) {
    give_back(handoff, slot);
    return ERR_CLOSED;
  }
  slot->request = request;
  uint64_t drawn = id_of(handoff, slot);
  if (id != NULL) {
    *id = drawn; // before the push: the result may be there when it returns
  }
  atomic_fetch_or_explicit(&slot->state, BUSY | OPEN, memory_order_release);
  oneshot_push(handoff->queue, &slot->submit); // has room
  return 0;
}

int handoff_cancel(struct handoff *handoff, uint64_t id) {
  if ((id & SLOT_MASK) >= handoff->count) {
    return -ENOENT;
  }
  struct slot *slot = &handoff->slots[id & SLOT_MASK];
  uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
  do {
    if (generation_of(state) != id >> SLOT_BITS || (state & OPEN) == 0) {
      return -ENOENT;
    }
    if ((state & CANCEL_QUEUED) != 0) {
      return 0;
    }
  } while (!atomic_compare_exchange_weak_explicit(&slot->state, &state, state | CANCEL_QUEUED,
                                                  memory_order_acq_rel, memory_order_relaxed));
  oneshot_push(handoff->queue, &slot->cancel);
  return 0;
}

void handoff_stop(struct handoff *handoff) {
  uint64_t before = atomic_fetch_or_explicit(&handoff->gate, GATE_STOPPED, memory_order_acq_rel);
  if ((before & GATE_STOPPED) == 0) {
    oneshot_push(handoff->queue, &handoff->stop);
  }
}

void handoff_close(struct handoff *handoff) {
  oneshot_push(handoff->queue, &handoff->close);
}

static void post(struct handoff *handoff) {
  const uint64_t one = 1;
  ssize_t written;
  do {
    written = write(handoff->ready_fd, &one, sizeof one);
  } while (written < 0 && errno == EINTR);
}

// 0 with a permit, or -errno.
static int get_permit(struct handoff *handoff, int timeout_ms) {
  uint64_t begun = timeout_ms > 0 ? loop_now_ns() : 0;
  int left = timeout_ms;
  for (;;) {
    uint64_t value;
    if (read(handoff->ready_fd, &value, sizeof value) > 0) {
      return 0;
    }
    if (errno != EAGAIN && errno != EINTR) {
      return -errno;
    }
    if (timeout_ms > 0) {
      uint64_t passed = (loop_now_ns() - begun) / NS_PER_MS;
      left = passed < (uint64_t)timeout_ms ? timeout_ms - (int)passed : 0;
    }
    if (left == 0) {
      return -EAGAIN;
    }
    struct pollfd watched = {.fd = handoff->ready_fd, .events = POLLIN};
    if (poll(&watched, 1, left) < 0 && errno != EINTR) {
      return -errno;
    }
  }
}

int handoff_wait(struct handoff *handoff, int timeout_ms, void **result) {
  int code = get_permit(handoff, timeout_ms);
  if (code != 0) {
    return code;
  }
  uint64_t head = atomic_load_explicit(&handoff->head, memory_order_relaxed);
  uint32_t number;
  for (;;) {
    bool ended = atomic_load_explicit(&handoff->ended, memory_order_acquire);
    // Acquire, with the release of handoff_finish: the cell and the result.
    if (head == atomic_load_explicit(&handoff->tail, memory_order_acquire)) {
      if (ended) {
        post(handoff); // for the others who ask
        return ERR_CLOSED;
      }
      head = atomic_load_explicit(&handoff->head, memory_order_relaxed);
      continue; // not seen yet: the permit says that it is there
    }
    number = atomic_load_explicit(&handoff->ring[head & handoff->ring_mask], memory_order_relaxed);
    if (atomic_compare_exchange_weak_explicit(&handoff->head, &head, head + 1, memory_order_acq_rel,
                                              memory_order_relaxed)) {
      break;
    }
  }
  struct slot *slot = &handoff->slots[number];
  *result = slot->result;
  let_go(handoff, slot, BUSY);
  return 0;
}

int handoff_fd(const struct handoff *handoff) {
  return handoff->ready_fd;
}

// The serving thread

int handoff_pollfd(struct handoff *handoff) {
  return loop_pollfd(handoff->loop);
}

int handoff_turn(struct handoff *handoff, int timeout_ms) {
  return loop_turn(handoff->loop, timeout_ms);
}

struct handoff_event handoff_take(struct handoff *handoff) {
  for (;;) {
    struct item *item = handoff->inbox;
    if (item == NULL) {
      return (struct handoff_event){.what = HANDOFF_NOTHING};
    }
    handoff->inbox = item->next;
    if (item->next == NULL) {
      handoff->inbox_end = &handoff->inbox;
    }
    struct handoff_event event = {.what = item->what};
    struct slot *slot = item->slot;
    if (slot == NULL) {
      return event;
    }
    event.id = id_of(handoff, slot);
    if (item->what == HANDOFF_REQUEST) {
      slot->taken = true;
      event.request = slot->request;
      return event;
    }
    bool open = slot->taken; // of this generation: the slot is kept away until here
    let_go(handoff, slot, CANCEL_QUEUED);
    if (open) {
      return event;
    }
  }
}

void *handoff_request(const struct handoff *handoff, uint64_t id) {
  return handoff->slots[id & SLOT_MASK].request;
}

void handoff_finish(struct handoff *handoff, uint64_t id, void *result) {
  struct slot *slot = &handoff->slots[id & SLOT_MASK];
  slot->taken = false;
  slot->result = result;
  atomic_fetch_and_explicit(&slot->state, ~(uint64_t)OPEN, memory_order_acq_rel);
  uint64_t tail = atomic_load_explicit(&handoff->tail, memory_order_relaxed);
  atomic_store_explicit(&handoff->ring[tail & handoff->ring_mask],
                        (uint32_t)number_of(handoff, slot), memory_order_relaxed);
  atomic_store_explicit(&handoff->tail, tail + 1, memory_order_release);
  atomic_fetch_sub_explicit(&handoff->gate, 1, memory_order_acq_rel);
  post(handoff);
}

bool handoff_any_taken(const struct handoff *handoff, uint64_t *id) {
  for (size_t i = 0; i < handoff->count; i++) {
    if (handoff->slots[i].taken) {
      *id = id_of(handoff, &handoff->slots[i]);
      return true;
    }
  }
  return false;
}

size_t handoff_unfinished(const struct handoff *handoff) {
  return atomic_load_explicit(&handoff->gate, memory_order_acquire) & ~GATE_STOPPED;
}

void handoff_end(struct handoff *handoff) {
  atomic_store_explicit(&handoff->ended, true, memory_order_release);
  post(handoff);
}
