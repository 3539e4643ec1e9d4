// SPDX-License-Identifier: MIT
// The link's output: frames are put in order at the last moment, so that what is urgent is never
// behind more than a little of what is not, and stay in a ring until the peer has them.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "mux_private.h"

// So much is put in order ahead of what is written.
#define AHEAD 65536
// What is larger has to take turns with others of its kind.
#define SMALL (MUX_MAX_PAYLOAD / 2)
// Beyond max_kept, data wait for the peer's acknowledgement. The other frames go on for so much,
// and acknowledgements for as much again: two sides that have sent all that they may must still be
// able to tell each other what has arrived.
#define RESERVE ((size_t)1 << 20)
#define SMALLEST_RING 8192
// A ring larger than that which holds little is made small again.
#define LARGE_RING ((size_t)1 << 18)

static void put_u32(unsigned char *at, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    at[i] = (unsigned char)(value >> (24 - 8 * i));
  }
}

static void put_head(unsigned char *at, uint32_t id, enum mux_frame type, size_t size) {
  put_u32(at, id);
  put_u32(at + 4, (uint32_t)type << 24 | (uint32_t)size);
}

// The ring

static void copy_out(const struct mux *m, uint64_t from, char *to, size_t size) {
  size_t at = (size_t)from & (m->ring_size - 1);
  size_t first = m->ring_size - at < size ? m->ring_size - at : size;
  memcpy(to, m->ring + at, first);
  memcpy(to + first, m->ring, size - first);
}

static bool resize_ring(struct mux *m, size_t ring_size) {
  char *ring = malloc(ring_size);
  if (ring == NULL) {
    return false;
  }
  // Each byte keeps the place that its number has in the new ring.
  for (uint64_t from = m->base; from < m->end;) {
    size_t at = (size_t)from & (ring_size - 1);
    size_t size = (size_t)(m->end - from);
    size = size < ring_size - at ? size : ring_size - at;
    copy_out(m, from, ring + at, size);
    from += size;
  }
  free(m->ring);
  m->ring = ring;
  m->ring_size = ring_size;
  return true;
}

static bool reserve(struct mux *m, size_t size) {
  size_t needed = (size_t)(m->end - m->base) + size;
  size_t ring_size = m->ring_size > 0 ? m->ring_size : SMALLEST_RING;
  while (ring_size < needed) {
    ring_size *= 2;
  }
  if (ring_size != m->ring_size && !resize_ring(m, ring_size)) {
    m->failed = -ENOMEM;
    return false;
  }
  return true;
}

// There is room.
static void put(struct mux *m, const void *bytes, size_t size) {
  size_t at = (size_t)m->end & (m->ring_size - 1);
  size_t first = m->ring_size - at < size ? m->ring_size - at : size;
  memcpy(m->ring + at, bytes, first);
  memcpy(m->ring, (const char *)bytes + first, size - first);
  m->end += size;
}

static void put_frame(struct mux *m, uint32_t id, enum mux_frame type, const void *payload,
                      size_t size) {
  unsigned char head[FRAME_HEAD];
  put_head(head, id, type, size);
  put(m, head, sizeof head);
  if (size > 0) {
    put(m, payload, size);
  }
}

int mux_acknowledged(struct mux *m, uint64_t received) {
  if (received > m->next) {
    return ERR_SYNTAX;
  }
  if (received > m->base) {
    m->base = received;
    if (m->ring_size > LARGE_RING && m->end - m->base <= SMALLEST_RING) {
      // Failing that, it stays large.
      (void)resize_ring(m, SMALLEST_RING);
    }
  }
  return 0;
}

// What goes into it

void mux_control(struct mux *m, uint32_t id, enum mux_frame type, const void *payload,
                 size_t size) {
  char *room;
  int failed = buf_reserve(&m->control, FRAME_HEAD + size, &room);
  if (failed != 0) {
    m->failed = m->failed != 0 ? m->failed : failed;
    return;
  }
  put_head((unsigned char *)room, id, type, size);
  if (size > 0) {
    memcpy(room + FRAME_HEAD, payload, size);
  }
  buf_commit(&m->control, FRAME_HEAD + size);
}

void mux_control_u32(struct mux *m, uint32_t id, enum mux_frame type, uint32_t value) {
  unsigned char payload[4];
  put_u32(payload, value);
  mux_control(m, id, type, payload, sizeof payload);
}

void mux_want(struct mux_channel *c, bool fresh) {
  if (list_is_empty(&c->sending) && buf_size(&c->out) > 0 && c->out_window > 0) {
    bool first = fresh && buf_size(&c->out) <= SMALL;
    list_append(first ? &c->m->fresh : &c->m->rest, &c->sending);
  }
}

static bool put_ack(struct mux *m) {
  if (!reserve(m, 2 * FRAME_HEAD + 8)) {
    return false;
  }
  if (m->pongs_due > 0) {
    m->pongs_due--;
    put_frame(m, 0, FRAME_PONG, NULL, 0);
  }
  unsigned char payload[8];
  put_u32(payload, (uint32_t)(m->received >> 32));
  put_u32(payload + 4, (uint32_t)m->received);
  put_frame(m, 0, FRAME_ACK, payload, sizeof payload);
  m->acked = m->received;
  m->ack_due = false;
  return true;
}

// Whole frames, one at least, when there are any.
static size_t some_control(const struct mux *m) {
  const unsigned char *at = (const unsigned char *)buf_peek(&m->control);
  size_t size = 0;
  while (size < MUX_MAX_PAYLOAD && size < buf_size(&m->control)) {
    const unsigned char *head = at + size;
    size += FRAME_HEAD + (size_t)(head[5] << 16 | head[6] << 8 | head[7]);
  }
  return size;
}

static bool put_control(struct mux *m) {
  size_t size = some_control(m);
  if (!reserve(m, FRAME_HEAD + size)) {
    return false;
  }
  if (m->pings_due > 0) {
    m->pings_due--;
    m->pings_sent++;
    put_frame(m, 0, FRAME_PING, NULL, 0);
  }
  put(m, buf_peek(&m->control), size);
  buf_consume(&m->control, size);
  return true;
}

// All of c has gone into the ring.
static void emptied(struct mux_channel *c) {
  struct mux *m = c->m;
  if (c->finishing) {
    put_frame(m, c->id, FRAME_END, NULL, 0);
    c->end_sent = true;
  }
  if (c->closed) {
    if (c->in_end == 0) {
      mux_control(m, c->id, FRAME_RESET, NULL, 0);
    }
    mux_drop(c);
  } else if (c->owes_drained && list_is_empty(&c->drained)) {
    list_append(&m->drained, &c->drained);
  }
}

// A piece of the channel whose turn it is. Those that come anew alternate with those that have had
// a piece and want more: what is small goes out soon, however many large ones there are.
static bool put_data(struct mux *m) {
  bool rest = list_is_empty(&m->fresh) || (m->rest_turn && !list_is_empty(&m->rest));
  struct mux_channel *c = (struct mux_channel *)(void *)(rest ? m->rest.after : m->fresh.after);
  size_t size = buf_size(&c->out);
  size = size < c->out_window ? size : c->out_window;
  size = size < MUX_MAX_PAYLOAD ? size : MUX_MAX_PAYLOAD;
  if (!reserve(m, (size_t)2 * FRAME_HEAD + size)) {
    return false;
  }
  m->rest_turn = !rest;
  put_frame(m, c->id, FRAME_DATA, buf_peek(&c->out), size);
  buf_consume(&c->out, size);
  c->out_window -= (uint32_t)size;
  list_unlink(&c->sending);
  if (buf_size(&c->out) == 0) {
    emptied(c);
  } else {
    mux_want(c, false);
  }
  return true;
}

// What can go into the ring next: puts it there, or says whether there is something.
static bool step(struct mux *m, bool only_look) {
  size_t kept = (size_t)(m->end - m->base);
  if ((m->ack_due || m->pongs_due > 0) && kept < m->max_kept + 2 * RESERVE) {
    return only_look || put_ack(m);
  }
  if ((m->pings_due > 0 || buf_size(&m->control) > 0) && kept < m->max_kept + RESERVE) {
    return only_look || put_control(m);
  }
  if (!(list_is_empty(&m->fresh) && list_is_empty(&m->rest)) && kept < m->max_kept) {
    return only_look || put_data(m);
  }
  return false;
}

static void tell_drained(struct mux *m) {
  while (!list_is_empty(&m->drained)) {
    struct list *node = m->drained.after;
    struct mux_channel *c =
        (struct mux_channel *)(void *)((char *)node - offsetof(struct mux_channel, drained));
    list_unlink(node);
    if (c->owes_drained && buf_size(&c->out) == 0) {
      c->owes_drained = false;
      m->events.drained(c, c->user);
    }
  }
}

bool mux_output(struct mux *m, const char **bytes, size_t *size) {
  if (m->failed != 0 || m->suspended) {
    m->idle = true;
    return false;
  }
  // Whoever is told that he is drained may have something more.
  do {
    while (m->end - m->next < AHEAD && step(m, false)) {
    }
    tell_drained(m);
  } while (m->end == m->next && m->failed == 0 && step(m, true));
  if (m->failed != 0 || m->suspended || m->end == m->next) {
    m->idle = true;
    return false;
  }
  m->idle = false;
  size_t at = (size_t)m->next & (m->ring_size - 1);
  size_t unsent = (size_t)(m->end - m->next);
  *bytes = m->ring + at;
  *size = unsent < m->ring_size - at ? unsent : m->ring_size - at;
  return true;
}

void mux_written(struct mux *m, size_t size) {
  size_t unsent = (size_t)(m->end - m->next);
  m->next += size < unsent ? size : unsent;
}

void mux_wake(struct mux *m) {
  if (m->idle && !m->feeding && !m->suspended && m->failed == 0 &&
      (m->next < m->end || step(m, true))) {
    m->idle = false;
    m->events.output(m, m->data);
  }
}

void mux_suspend(struct mux *m) {
  m->suspended = true;
  m->idle = true;
}

int mux_resume(struct mux *m, uint64_t peer_received) {
  if (m->failed != 0) {
    return m->failed;
  }
  if (peer_received < m->base || mux_acknowledged(m, peer_received) != 0) {
    return ERR_SYNTAX;
  }
  m->next = peer_received;
  m->suspended = false;
  m->idle = true;
  mux_wake(m);
  return 0;
}

void mux_ping(struct mux *m) {
  m->pings_due++;
  mux_wake(m);
}

uint64_t mux_pongs(const struct mux *m) {
  return m->pongs;
}
