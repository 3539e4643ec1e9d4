// SPDX-License-Identifier: MIT
#include "secrets.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "secret_rules.h"

#define MASK "\u00abredacted\u00bb"
#define ELLIPSIS "\u2026"

enum { SHORT = 18, HEAD = 6, TAIL = 4 };

// After a scan at most this much stays in the window, so there is always room for more.
_Static_assert((int)SECRETS_HOLD == (int)SECRET_KEY_AHEAD, "one limit, two names");
_Static_assert(SECRETS_HOLD + SECRET_LOOK_BACK + SECRET_WORD_MAX < SECRETS_WINDOW / 2, "room");

void secrets_init(struct secrets *s) {
  s->count = 0;
  s->size = s->emitted = s->at = s->floor = 0;
  s->drop = 0;
}

static int emit_to(struct secrets *s, size_t end, struct buf *out) {
  if (end <= s->emitted) {
    return 0;
  }
  int failed = buf_append(out, s->window + s->emitted, end - s->emitted);
  s->emitted = end;
  return failed;
}

// Token characters are ASCII, so that no character is cut in two here.
static bool can_show_ends(const struct secrets *s, const struct secret *found) {
  if (found->whole || found->rest != 0 || found->end - found->start < SHORT) {
    return false;
  }
  for (size_t i = 0; i < HEAD; i++) {
    if ((s->window[found->start + i] & 0x80) != 0 || (s->window[found->end - 1 - i] & 0x80) != 0) {
      return false;
    }
  }
  return true;
}

static int emit_mask(struct secrets *s, const struct secret *found, struct buf *out) {
  char mask[HEAD + sizeof ELLIPSIS - 1 + TAIL];
  s->count++;
  if (!can_show_ends(s, found)) {
    return buf_append(out, MASK, sizeof MASK - 1);
  }
  memcpy(mask, s->window + found->start, HEAD);
  memcpy(mask + HEAD, ELLIPSIS, sizeof ELLIPSIS - 1);
  memcpy(mask + sizeof mask - TAIL, s->window + found->end - TAIL, TAIL);
  return buf_append(out, mask, sizeof mask);
}

static void drop_rest(struct secrets *s) {
  while (s->at < s->size && (secret_class[(uint8_t)s->window[s->at]] & s->drop) != 0) {
    s->at++;
  }
  s->emitted = s->floor = s->at;
  if (s->at < s->size) {
    s->drop = 0;
  }
}

#define IS_TRIGGER(c) || text[at] == (c)
static size_t next_trigger(const struct secrets *s) {
  const char *text = s->window;
  size_t at = s->at;
#if defined(__SSE2__)
#define MATCH(c) found = _mm_or_si128(found, _mm_cmpeq_epi8(v, _mm_set1_epi8(c)));
  for (; s->size - at >= 16; at += 16) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
    __m128i found = _mm_setzero_si128();
    SECRET_TRIGGERS(MATCH)
    int mask = _mm_movemask_epi8(found);
    if (mask != 0) {
      return at + (size_t)__builtin_ctz((unsigned)mask);
    }
  }
#undef MATCH
#endif
  while (at < s->size && !(false SECRET_TRIGGERS(IS_TRIGGER))) {
    at++;
  }
  return at;
}
#undef IS_TRIGGER

// Gives out what no secret can reach any more, and forgets what no rule can look back at.
static int settle(struct secrets *s, bool final, struct buf *out) {
  size_t settled = s->at;
  if (!final) {
    size_t word = 0;
    while (settled > s->emitted && word < SECRET_WORD_MAX &&
           (secret_class[(uint8_t)s->window[settled - 1]] & SECRET_ALNUM) != 0) {
      settled--;
      word++;
    }
  }
  int failed = emit_to(s, settled, out);
  if (s->emitted > SECRET_LOOK_BACK) {
    size_t gone = s->emitted - SECRET_LOOK_BACK;
    memmove(s->window, s->window + gone, s->size - gone);
    s->size -= gone;
    s->emitted -= gone;
    s->at -= gone;
    s->floor = s->floor > gone ? s->floor - gone : 0;
  }
  return failed;
}

static int scan(struct secrets *s, bool final, struct buf *out) {
  int failed = 0;
  while (failed == 0) {
    if (s->drop != 0) {
      drop_rest(s);
    }
    s->at = next_trigger(s);
    if (s->at == s->size) {
      break;
    }
    struct secret_view view = {s->window, s->at, s->floor, s->size, final};
    struct secret found = {0};
    enum secret_verdict verdict = secret_at(&view, &found);
    if (verdict == SECRET_MORE) {
      break;
    }
    if (verdict == SECRET_NONE) {
      s->at++;
      continue;
    }
    failed = emit_to(s, found.start, out);
    if (failed == 0) {
      failed = emit_mask(s, &found, out);
    }
    s->emitted = s->at = s->floor = found.end;
    s->drop = found.rest;
  }
  return failed != 0 ? failed : settle(s, final, out);
}

int secrets_feed(struct secrets *s, const char *bytes, size_t size, struct buf *out) {
  while (size != 0) {
    size_t room = sizeof s->window - s->size;
    size_t n = size < room ? size : room;
    memcpy(s->window + s->size, bytes, n);
    s->size += n;
    bytes += n;
    size -= n;
    if (s->size == sizeof s->window) {
      int failed = scan(s, false, out);
      if (failed != 0) {
        return failed;
      }
    }
  }
  return 0;
}

int secrets_flush(struct secrets *s, struct buf *out) {
  return scan(s, false, out);
}

int secrets_finish(struct secrets *s, struct buf *out) {
  int failed = scan(s, true, out);
  uint64_t count = s->count;
  secrets_init(s);
  s->count = count;
  return failed;
}
