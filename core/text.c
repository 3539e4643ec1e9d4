// SPDX-License-Identifier: MIT
#include "text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "secrets.h"

enum { BEL = 0x07, CAN = 0x18, SUB = 0x1a, ESC = 0x1b };
enum { DCS = 0x90, SOS = 0x98, CSI = 0x9b, ST = 0x9c, OSC = 0x9d, PM = 0x9e, APC = 0x9f };

enum state {
  GROUND,
  AFTER_ESC,
  IN_NF,     // ESC and intermediate bytes
  IN_CSI,    // parameters and intermediate bytes
  IN_STRING, // OSC, DCS, SOS, PM, APC: what it says is held, see text.h
  STRING_ESC // ESC in a string: "\" makes it ST, anything else starts a sequence
};

struct text {
  unsigned what;
  enum state state;
  uint8_t string_kind; // DCS, SOS, OSC, PM or APC
  int failed;
  struct text_counts counts;
  struct buf *out; // borrowed for the length of one call
  // A UTF-8 character of which bytes are missing: the next must lie in next_low..next_high.
  uint8_t partial[4];
  uint8_t partial_size, partial_whole;
  uint8_t next_low, next_high;
  size_t held_size;
  char held[TEXT_STRING_MAX];
  struct secrets secrets;
};

int text_new(unsigned what, struct text **out) {
  struct text *t = malloc(sizeof *t);
  if (t == NULL) {
    return -ENOMEM;
  }
  t->what = what;
  t->state = GROUND;
  t->failed = 0;
  t->counts = (struct text_counts){0};
  t->out = NULL;
  t->partial_size = 0;
  t->held_size = 0;
  secrets_init(&t->secrets);
  *out = t;
  return 0;
}

void text_free(struct text *t) {
  free(t);
}

struct text_counts text_counts(const struct text *t) {
  struct text_counts counts = t->counts;
  counts.secrets = t->secrets.count;
  return counts;
}

// Text that is repaired and free of escapes. A failure is kept and reported by the call.
static void put(struct text *t, const void *bytes, size_t size) {
  if (size == 0 || t->failed != 0) {
    return;
  }
  if ((t->what & TEXT_SECRETS) != 0) {
    t->failed = secrets_feed(&t->secrets, bytes, size, t->out);
  } else {
    t->failed = buf_append(t->out, bytes, size);
  }
}

static void release_string(struct text *t) {
  put(t, t->held, t->held_size);
  t->held_size = 0;
  t->state = GROUND;
}

static void hold(struct text *t, const void *bytes, size_t size) {
  if (size > sizeof t->held - t->held_size) {
    release_string(t);
    put(t, bytes, size);
    return;
  }
  memcpy(t->held + t->held_size, bytes, size);
  t->held_size += size;
}

static void begin_string(struct text *t, uint8_t kind) {
  t->state = IN_STRING;
  t->string_kind = kind;
  t->held_size = 0;
}

// A control of the C1 set, 0x80-0x9f, in its 8-bit form or as what follows ESC.
static void control(struct text *t, uint8_t c) {
  switch (c) {
  case CSI:
    t->state = IN_CSI;
    break;
  case DCS:
  case SOS:
  case OSC:
  case PM:
  case APC:
    begin_string(t, c);
    break;
  default:
    t->state = GROUND;
    break;
  }
}

static void control_8bit(struct text *t, uint8_t c) {
  // ST is the end of a string that was counted when it began.
  if (t->state != IN_STRING || c != ST) {
    t->counts.escapes++;
  }
  control(t, c);
}

// One whole character (or one ill-formed byte sequence) that is not a C1 control.
static void character(struct text *t, const uint8_t *bytes, size_t size) {
  if ((t->what & TEXT_ESCAPES) == 0) {
    put(t, bytes, size);
    return;
  }
  // Beyond ASCII no byte is part of a sequence, and 0xff stands for all of them.
  uint8_t c = size == 1 && bytes[0] < 0x80 ? bytes[0] : 0xff;
  if (t->state == STRING_ESC) {
    if (c == '\\') {
      t->state = GROUND;
      return;
    }
    t->counts.escapes++;
    t->state = AFTER_ESC;
  }
  switch (t->state) {
  case AFTER_ESC:
    if (c >= 0x40 && c <= 0x5f) {
      control(t, (uint8_t)(c + 0x40));
      return;
    }
    if (c >= 0x20 && c <= 0x2f) {
      t->state = IN_NF;
      return;
    }
    t->state = GROUND;
    if (c >= 0x30 && c <= 0x7e) {
      return;
    }
    break;
  case IN_NF:
    if (c >= 0x20 && c <= 0x2f) {
      return;
    }
    t->state = GROUND;
    if (c >= 0x30 && c <= 0x7e) {
      return;
    }
    break;
  case IN_CSI:
    if (c >= 0x20 && c <= 0x3f) {
      return;
    }
    t->state = GROUND;
    if (c >= 0x40 && c <= 0x7e) {
      return;
    }
    break;
  case IN_STRING:
    if (c == ESC) {
      t->state = STRING_ESC;
    } else if (c == CAN || c == SUB || (c == BEL && t->string_kind == OSC)) {
      t->state = GROUND;
    } else {
      hold(t, bytes, size);
    }
    return;
  default:
    break;
  }
  // A sequence that this character does not continue is over; the character counts afresh.
  if (c == ESC) {
    t->counts.escapes++;
    t->state = AFTER_ESC;
    return;
  }
  put(t, bytes, size);
}

static void ill_formed(struct text *t, const uint8_t *bytes, size_t size) {
  t->counts.invalid++;
  if ((t->what & TEXT_UTF8) != 0) {
    character(t, (const uint8_t *)"\xef\xbf\xbd", 3);
  } else {
    character(t, bytes, size);
  }
}

// How many bytes the character that starts with this byte has, 0 when none does, and what its
// second byte may be (Unicode, table 3-7).
static uint8_t utf8_start(uint8_t c, uint8_t *low, uint8_t *high) {
  *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
  *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
  return c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

static void byte_alone(struct text *t, uint8_t c) {
  if (c < 0x80) {
    character(t, &c, 1);
    return;
  }
  uint8_t whole = utf8_start(c, &t->next_low, &t->next_high);
  if (whole != 0) {
    t->partial[0] = c;
    t->partial_size = 1;
    t->partial_whole = whole;
  } else if (c < 0xa0 && (t->what & TEXT_ESCAPES) != 0) {
    control_8bit(t, c);
  } else {
    ill_formed(t, &c, 1);
  }
}

static void one_byte(struct text *t, uint8_t c) {
  if (t->partial_size == 0) {
    byte_alone(t, c);
    return;
  }
  if (c < t->next_low || c > t->next_high) {
    size_t size = t->partial_size;
    t->partial_size = 0;
    ill_formed(t, t->partial, size);
    byte_alone(t, c);
    return;
  }
  t->partial[t->partial_size++] = c;
  t->next_low = 0x80;
  t->next_high = 0xbf;
  if (t->partial_size < t->partial_whole) {
    return;
  }
  t->partial_size = 0;
  bool is_c1 = t->partial[0] == 0xc2 && c < 0xa0;
  if (is_c1 && (t->what & TEXT_ESCAPES) != 0) {
    control_8bit(t, c);
  } else {
    character(t, t->partial, t->partial_whole);
  }
}

// True when all eight bytes are ASCII and none is ESC: the usual trick that finds a zero byte, on
// the difference to ESC.
static inline bool eight_plain(const uint8_t *bytes) {
  const uint64_t ones = 0x0101010101010101u;
  uint64_t v;
  memcpy(&v, bytes, sizeof v);
  uint64_t x = v ^ (ESC * ones);
  return ((v | ((x - ones) & ~x)) & (0x80 * ones)) == 0;
}

// The length of the front that passes as it is: whole well-formed characters, no ESC, no C1.
static size_t plain_front(const uint8_t *bytes, size_t size) {
  size_t at = 0;
  for (;;) {
    while (size - at >= 8 && eight_plain(bytes + at)) {
      at += 8;
    }
    while (at < size && bytes[at] < 0x80 && bytes[at] != ESC) {
      at++;
    }
    if (at == size || bytes[at] < 0x80) {
      return at;
    }
    uint8_t low;
    uint8_t high;
    uint8_t whole = utf8_start(bytes[at], &low, &high);
    if (whole == 0 || whole > size - at || bytes[at + 1] < low || bytes[at + 1] > high ||
        (bytes[at] == 0xc2 && bytes[at + 1] < 0xa0)) {
      return at;
    }
    for (uint8_t i = 2; i < whole; i++) {
      if ((bytes[at + i] & 0xc0) != 0x80) {
        return at;
      }
    }
    at += whole;
  }
}

int text_feed(struct text *t, const void *bytes, size_t size, struct buf *out) {
  const uint8_t *in = bytes;
  t->out = out;
  size_t at = 0;
  while (at < size && t->failed == 0) {
    if (t->state == GROUND && t->partial_size == 0) {
      size_t plain = plain_front(in + at, size - at);
      put(t, in + at, plain);
      at += plain;
      if (at == size) {
        break;
      }
    }
    one_byte(t, in[at++]);
  }
  if (t->failed == 0 && (t->what & TEXT_SECRETS) != 0) {
    t->failed = secrets_flush(&t->secrets, out);
  }
  t->out = NULL;
  return t->failed;
}

int text_finish(struct text *t, struct buf *out) {
  t->out = out;
  if (t->partial_size != 0) {
    size_t size = t->partial_size;
    t->partial_size = 0;
    ill_formed(t, t->partial, size);
  }
  if (t->state == IN_STRING) {
    release_string(t);
  }
  t->state = GROUND;
  if (t->failed == 0 && (t->what & TEXT_SECRETS) != 0) {
    t->failed = secrets_finish(&t->secrets, out);
  }
  t->out = NULL;
  return t->failed;
}
