// SPDX-License-Identifier: MIT
// The link's input: a parser that takes bytes in whatever pieces they come. Every callback is the
// last thing that is done for a frame, because it may close any channel.

#include <errno.h>
#include <string.h>

#include "err.h"
#include "mux_private.h"

// A peer that has channels opened and refused and does not read of it is given up at so many bytes
// of answers.
#define MAX_CONTROL ((size_t)4 << 20)

static uint32_t get_u32(const unsigned char *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool is_own(const struct mux *m, uint32_t id) {
  return (id & 1) == (m->side == MUX_RUNNER);
}

// The length that a frame of the type has; -1: any.
static int length_of(enum mux_frame type) {
  switch (type) {
  case FRAME_OPEN:
  case FRAME_DATA:
    return -1;
  case FRAME_WINDOW:
    return 4;
  case FRAME_ACK:
    return 8;
  default:
    return 0;
  }
}

// DATA: looked at when the head has come, so that nothing of it is kept that may not come.
static int begin_data(struct mux *m) {
  struct mux_channel *c = mux_lookup(m, m->id);
  if (c == NULL) {
    return 0;
  }
  if (c->in_end != 0) {
    return ERR_SYNTAX;
  }
  if (m->left > c->in_window) {
    return ERR_LIMIT;
  }
  c->in_window -= (uint32_t)m->left;
  return 0;
}

// A head has come: 0, or why it breaks the rules.
static int begin(struct mux *m, const unsigned char *head) {
  m->id = get_u32(head);
  m->left = get_u32(head + 4) & 0xffffff;
  unsigned type = head[4];
  if (type < FRAME_OPEN || type > FRAME_PONG) {
    return ERR_SYNTAX;
  }
  m->type = (enum mux_frame)type;
  int length = length_of(m->type);
  if (length >= 0 && m->left != (size_t)length) {
    return ERR_SYNTAX;
  }
  if (m->left > MUX_MAX_PAYLOAD) {
    return ERR_LIMIT;
  }
  if (m->type >= FRAME_ACK) {
    return m->id == 0 ? 0 : ERR_SYNTAX;
  }
  if (m->type == FRAME_OPEN) {
    return !is_own(m, m->id) && m->id > m->peer_last ? 0 : ERR_SYNTAX;
  }
  if (m->id == 0 || m->id > (is_own(m, m->id) ? m->own_last : m->peer_last)) {
    return ERR_SYNTAX;
  }
  return m->type == FRAME_DATA ? begin_data(m) : 0;
}

static int take_data(struct mux *m, const char *bytes, size_t size) {
  struct mux_channel *c = mux_lookup(m, m->id);
  if (c == NULL || c->in_end != 0) {
    // Closed, or aborted from here, since the head has come.
    return 0;
  }
  if (c->closed) {
    mux_grant(c);
    return 0;
  }
  int failed = buf_append(&c->in, bytes, size);
  if (failed == 0) {
    mux_tell_readable(c);
  }
  return failed;
}

static int take_open(struct mux *m, const char *request, size_t size) {
  uint32_t id = m->id;
  m->peer_last = id;
  if (buf_size(&m->control) > MAX_CONTROL) {
    return ERR_LIMIT;
  }
  if (m->peers >= m->max_channels) {
    mux_control(m, id, FRAME_RESET, NULL, 0);
    return 0;
  }
  struct mux_channel *c = mux_add(m, id);
  if (c == NULL) {
    return -ENOMEM;
  }
  m->events.opened(m, c, request, size, m->data);
  c = mux_find(m, id);
  if (c != NULL && c->user == NULL) {
    mux_close(c);
  }
  return 0;
}

static int take_ack(struct mux *m, const unsigned char *payload) {
  return mux_acknowledged(m, (uint64_t)get_u32(payload) << 32 | get_u32(payload + 4));
}

static int take_window(struct mux_channel *c, const unsigned char *payload) {
  uint32_t more = get_u32(payload);
  if (more > MAX_WINDOW - c->out_window) {
    return ERR_LIMIT;
  }
  c->out_window += more;
  mux_want(c, false);
  return 0;
}

static int take_end(struct mux_channel *c) {
  if (c->in_end != 0) {
    return ERR_SYNTAX;
  }
  c->in_end = ERR_EOF;
  mux_tell_readable(c);
  return 0;
}

static void take_reset(struct mux_channel *c) {
  if (c->closed) {
    mux_drop(c);
  } else {
    mux_cut(c);
    mux_tell_cut(c);
  }
}

// A whole frame has come, but DATA.
static int take(struct mux *m, const char *bytes, size_t size) {
  const unsigned char *payload = (const unsigned char *)bytes;
  switch (m->type) {
  case FRAME_OPEN:
    return take_open(m, bytes, size);
  case FRAME_ACK:
    return take_ack(m, payload);
  case FRAME_PING:
    m->pongs_due++;
    return 0;
  case FRAME_PONG:
    m->pongs++;
    return m->pongs <= m->pings_sent ? 0 : ERR_SYNTAX;
  default:
    break;
  }
  struct mux_channel *c = mux_lookup(m, m->id);
  if (c == NULL) {
    return 0;
  }
  if (c->aborted) {
    return ERR_SYNTAX;
  }
  switch (m->type) {
  case FRAME_WINDOW:
    return take_window(c, payload);
  case FRAME_END:
    return take_end(c);
  case FRAME_RESET:
    take_reset(c);
    return 0;
  default:
    return 0;
  }
}

// A part of the head, or the rest of it.
static int take_head(struct mux *m, const char *bytes, size_t size) {
  memcpy(m->head + m->head_got, bytes, size);
  m->head_got += size;
  if (m->head_got < FRAME_HEAD) {
    return 0;
  }
  int failed = begin(m, m->head);
  if (failed == 0 && m->left == 0) {
    m->head_got = 0;
    failed = m->type == FRAME_DATA ? 0 : take(m, "", 0);
  }
  return failed;
}

static int take_payload(struct mux *m, const char *bytes, size_t size) {
  m->left -= size;
  if (m->left == 0) {
    m->head_got = 0;
  }
  if (m->type == FRAME_DATA) {
    return take_data(m, bytes, size);
  }
  if (m->left == 0 && buf_size(&m->payload) == 0) {
    return take(m, bytes, size);
  }
  int failed = buf_append(&m->payload, bytes, size);
  if (failed == 0 && m->left == 0) {
    failed = take(m, buf_peek(&m->payload), buf_size(&m->payload));
    buf_consume(&m->payload, buf_size(&m->payload));
  }
  return failed;
}

int mux_feed(struct mux *m, const void *bytes, size_t size) {
  const char *at = bytes;
  m->received += size;
  m->feeding = true;
  while (size > 0 && m->failed == 0) {
    bool in_head = m->head_got < FRAME_HEAD;
    size_t used = in_head ? FRAME_HEAD - m->head_got : m->left;
    used = used < size ? used : size;
    int failed = in_head ? take_head(m, at, used) : take_payload(m, at, used);
    m->failed = m->failed != 0 ? m->failed : failed;
    at += used;
    size -= used;
  }
  m->feeding = false;
  if (m->received - m->acked >= ACK_EVERY) {
    m->ack_due = true;
  }
  int failed = m->failed;
  mux_wake(m);
  return failed;
}
