// SPDX-License-Identifier: MIT
#include "mux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "mux_private.h"

#define DEFAULT_CHANNELS 1024
#define DEFAULT_WINDOW ((size_t)1 << 20)
#define DEFAULT_KEPT ((size_t)4 << 20)
#define LEAST_KEPT ((size_t)2 * ACK_EVERY)
#define LARGEST_WINDOW ((size_t)1 << 30)
#define MAX_PENDING ((size_t)256 << 20)
#define MAX_CONTROL ((size_t)256 << 20)
#define FEWEST_BUCKETS 16

// The table of channels

struct mux_channel *mux_lookup(const struct mux *m, uint32_t id) {
  struct mux_channel *c = m->buckets[id & (m->bucket_count - 1)].first;
  while (c != NULL && c->id != id) {
    c = c->next;
  }
  return c;
}

static bool widen_table(struct mux *m) {
  size_t count = m->bucket_count * 2;
  struct mux_bucket *buckets = calloc(count, sizeof *buckets);
  if (buckets == NULL) {
    return false;
  }
  for (size_t i = 0; i < m->bucket_count; i++) {
    struct mux_channel *c = m->buckets[i].first;
    while (c != NULL) {
      struct mux_channel *next = c->next;
      c->next = buckets[c->id & (count - 1)].first;
      buckets[c->id & (count - 1)].first = c;
      c = next;
    }
  }
  free(m->buckets);
  m->buckets = buckets;
  m->bucket_count = count;
  return true;
}

static bool is_peers(const struct mux *m, uint32_t id) {
  return (id & 1) != (m->side == MUX_RUNNER);
}

struct mux_channel *mux_add(struct mux *m, uint32_t id) {
  if (m->count >= m->bucket_count && !widen_table(m)) {
    return NULL;
  }
  struct mux_channel *c = calloc(1, sizeof *c);
  if (c == NULL) {
    return NULL;
  }
  c->m = m;
  c->id = id;
  c->in_window = c->out_window = MUX_FIRST_WINDOW;
  c->armed = true;
  // The window bounds it.
  buf_init(&c->in, SIZE_MAX / 2);
  buf_init(&c->out, MAX_PENDING);
  list_init(&c->sending);
  list_init(&c->drained);
  struct mux_channel **bucket = &m->buckets[id & (m->bucket_count - 1)].first;
  c->next = *bucket;
  *bucket = c;
  m->count++;
  m->peers += is_peers(m, id);
  return c;
}

static void free_channel(struct mux_channel *c) {
  buf_fini(&c->in);
  buf_fini(&c->out);
  free(c);
}

void mux_drop(struct mux_channel *c) {
  struct mux *m = c->m;
  struct mux_channel **at = &m->buckets[c->id & (m->bucket_count - 1)].first;
  while (*at != c) {
    at = &(*at)->next;
  }
  *at = c->next;
  m->count--;
  m->peers -= is_peers(m, c->id);
  list_unlink(&c->sending);
  list_unlink(&c->drained);
  free_channel(c);
}

int mux_new(const struct mux_options *options, const struct mux_events *events, void *data,
            struct mux **out) {
  struct mux *m = calloc(1, sizeof *m);
  struct mux_bucket *buckets = calloc(FEWEST_BUCKETS, sizeof *buckets);
  if (m == NULL || buckets == NULL) {
    free(m);
    free(buckets);
    return -ENOMEM;
  }
  m->events = *events;
  m->data = data;
  m->side = options->side;
  m->max_channels = options->max_channels > 0 ? options->max_channels : DEFAULT_CHANNELS;
  m->window = options->window > 0 ? options->window : DEFAULT_WINDOW;
  // The first window is not ours to choose.
  m->window = m->window > MUX_FIRST_WINDOW ? m->window : MUX_FIRST_WINDOW;
  m->window = m->window < LARGEST_WINDOW ? m->window : LARGEST_WINDOW;
  m->max_kept = options->max_kept > 0 ? options->max_kept : DEFAULT_KEPT;
  // Less, and the peer would be waited for before it says anything.
  m->max_kept = m->max_kept > LEAST_KEPT ? m->max_kept : LEAST_KEPT;
  m->buckets = buckets;
  m->bucket_count = FEWEST_BUCKETS;
  m->idle = true;
  buf_init(&m->payload, MUX_MAX_PAYLOAD);
  buf_init(&m->control, MAX_CONTROL);
  list_init(&m->fresh);
  list_init(&m->rest);
  list_init(&m->drained);
  list_init(&m->lost);
  *out = m;
  return 0;
}

void mux_free(struct mux *m) {
  if (m == NULL) {
    return;
  }
  for (size_t i = 0; i < m->bucket_count; i++) {
    struct mux_channel *c = m->buckets[i].first;
    while (c != NULL) {
      struct mux_channel *next = c->next;
      free_channel(c);
      c = next;
    }
  }
  free(m->buckets);
  free(m->ring);
  buf_fini(&m->payload);
  buf_fini(&m->control);
  free(m);
}

uint64_t mux_received(const struct mux *m) {
  return m->received;
}

// Channels

int mux_open(struct mux *m, const void *request, size_t size, struct mux_channel **out) {
  if (m->failed != 0) {
    return ERR_CLOSED;
  }
  if (size > MUX_MAX_REQUEST || m->own_last > UINT32_MAX - 2 ||
      buf_size(&m->control) > MAX_CONTROL - (size_t)2 * FRAME_MAX) {
    return ERR_LIMIT;
  }
  uint32_t first = m->side == MUX_ENGINE ? 2 : 1;
  struct mux_channel *c = mux_add(m, m->own_last > 0 ? m->own_last + 2 : first);
  if (c == NULL) {
    return -ENOMEM;
  }
  m->own_last = c->id;
  mux_control(m, c->id, FRAME_OPEN, request, size);
  if (m->window > MUX_FIRST_WINDOW) {
    c->in_window = (uint32_t)m->window;
    c->widened = true;
    mux_control_u32(m, c->id, FRAME_WINDOW, (uint32_t)(m->window - MUX_FIRST_WINDOW));
  }
  if (m->failed != 0) {
    mux_drop(c);
    return m->failed;
  }
  *out = c;
  mux_wake(m);
  return 0;
}

struct mux_channel *mux_find(struct mux *m, uint32_t id) {
  struct mux_channel *c = mux_lookup(m, id);
  return c != NULL && !c->closed ? c : NULL;
}

uint32_t mux_channel_id(const struct mux_channel *c) {
  return c->id;
}

struct mux *mux_of(const struct mux_channel *c) {
  return c->m;
}

void mux_channel_set(struct mux_channel *c, void *user) {
  c->user = user;
}

void *mux_channel_get(const struct mux_channel *c) {
  return c->user;
}

void mux_tell_readable(struct mux_channel *c) {
  if (c->armed && !c->closed) {
    c->armed = false;
    c->m->events.readable(c, c->user);
  }
}

void mux_cut(struct mux_channel *c) {
  c->aborted = true;
  c->in_end = c->in_end != 0 ? c->in_end : -ECONNRESET;
  buf_fini(&c->out);
  list_unlink(&c->sending);
  list_unlink(&c->drained);
}

void mux_tell_cut(struct mux_channel *c) {
  struct mux *m = c->m;
  uint32_t id = c->id;
  mux_tell_readable(c);
  c = mux_find(m, id);
  if (c != NULL && c->owes_drained) {
    c->owes_drained = false;
    m->events.drained(c, c->user);
  }
}

void mux_abort(struct mux *m) {
  m->failed = m->failed != 0 ? m->failed : ERR_CLOSED;
  for (size_t i = 0; i < m->bucket_count; i++) {
    for (struct mux_channel *c = m->buckets[i].first, *next; c != NULL; c = next) {
      next = c->next;
      if (c->closed) {
        mux_drop(c);
      } else if (!c->aborted) {
        mux_cut(c);
        list_append(&m->lost, &c->sending);
      }
    }
  }
  while (!list_is_empty(&m->lost)) {
    struct mux_channel *c = (struct mux_channel *)(void *)m->lost.after;
    list_unlink(&c->sending);
    mux_tell_cut(c);
  }
}

// Reading

static size_t held(const struct mux_channel *c) {
  return buf_size(&c->in) - c->taken;
}

static void widen(struct mux_channel *c, size_t more) {
  c->in_window += (uint32_t)more;
  c->widened = true;
  mux_control_u32(c->m, c->id, FRAME_WINDOW, (uint32_t)more);
}

// A channel that carries little never costs a frame.
static size_t enough(const struct mux_channel *c) {
  return c->widened ? c->m->window / 2 : MUX_FIRST_WINDOW / 2;
}

void mux_grant(struct mux_channel *c) {
  size_t window = c->m->window;
  size_t used = held(c) + c->in_window;
  // Nothing is granted in crumbs.
  if (c->in_end == 0 && c->in_window < enough(c) && used < window && window - used >= window / 4) {
    widen(c, window - used);
  }
}

// Lets the rest of a line come: it may have `max` bytes and a newline.
static void grant_line(struct mux_channel *c, size_t max) {
  size_t has = held(c);
  size_t missing = max - has < c->m->window ? max - has + 1 : c->m->window;
  if (c->in_window < enough(c) && c->in_window < missing - missing / 2) {
    widen(c, missing - c->in_window);
  }
}

// Drops what the caller was given by the last call.
static void settle(struct mux_channel *c) {
  if (c->taken > 0) {
    buf_consume(&c->in, c->taken);
    c->searched -= c->searched < c->taken ? c->searched : c->taken;
    c->taken = 0;
  }
}

static int nothing(struct mux_channel *c) {
  if (c->in_end == 0) {
    c->armed = true;
    return -EAGAIN;
  }
  return c->in_end;
}

int mux_peek(struct mux_channel *c, const char **bytes, size_t *size) {
  settle(c);
  if (buf_size(&c->in) == 0) {
    return nothing(c);
  }
  *bytes = buf_peek(&c->in);
  *size = buf_size(&c->in);
  return 0;
}

// The caller takes size bytes, which are there, and still looks at them.
static void take(struct mux_channel *c, size_t size) {
  c->taken = size;
  mux_grant(c);
  mux_wake(c->m);
}

void mux_consume(struct mux_channel *c, size_t size) {
  settle(c);
  take(c, size < buf_size(&c->in) ? size : buf_size(&c->in));
  settle(c);
}

int mux_read(struct mux_channel *c, size_t max, const char **bytes, size_t *size) {
  size_t there;
  int failed = mux_peek(c, bytes, &there);
  if (failed != 0) {
    return failed;
  }
  *size = there < max ? there : max;
  take(c, *size);
  return 0;
}

int mux_readline(struct mux_channel *c, size_t max, const char **line, size_t *size) {
  settle(c);
  size_t there = buf_size(&c->in);
  const char *start = buf_peek(&c->in);
  const char *newline =
      there > c->searched ? memchr(start + c->searched, '\n', there - c->searched) : NULL;
  c->searched = newline != NULL ? (size_t)(newline - start) : there;
  if (c->searched > max) {
    return ERR_LIMIT;
  }
  if (newline == NULL) {
    if (c->in_end == 0) {
      grant_line(c, max);
      mux_wake(c->m);
    }
    return nothing(c);
  }
  *line = start;
  *size = c->searched;
  take(c, c->searched + 1);
  return 0;
}

// Writing

int mux_write(struct mux_channel *c, const void *bytes, size_t size) {
  if (c->finishing) {
    return ERR_CLOSED;
  }
  if (c->aborted) {
    return -EPIPE;
  }
  if (size == 0) {
    return 0;
  }
  bool fresh = buf_size(&c->out) == 0;
  int failed = buf_append(&c->out, bytes, size);
  if (failed != 0) {
    return failed;
  }
  c->owes_drained = true;
  mux_want(c, fresh);
  mux_wake(c->m);
  return 0;
}

size_t mux_pending(const struct mux_channel *c) {
  return buf_size(&c->out);
}

void mux_finish(struct mux_channel *c) {
  if (c->finishing) {
    return;
  }
  c->finishing = true;
  if (!c->aborted && buf_size(&c->out) == 0) {
    c->end_sent = true;
    mux_control(c->m, c->id, FRAME_END, NULL, 0);
    mux_wake(c->m);
  }
}

void mux_close(struct mux_channel *c) {
  if (c == NULL) {
    return;
  }
  struct mux *m = c->m;
  if (c->aborted || (c->end_sent && c->in_end != 0)) {
    mux_drop(c);
    return;
  }
  if (c->finishing && !c->end_sent) {
    // It lives on until all is sent; what comes for it meanwhile is nobody's.
    c->closed = true;
    c->taken = c->searched = 0;
    buf_fini(&c->in);
    list_unlink(&c->drained);
    mux_grant(c);
  } else {
    mux_control(m, c->id, FRAME_RESET, NULL, 0);
    mux_drop(c);
  }
  mux_wake(m);
}
