// SPDX-License-Identifier: MIT
// text: however a stream is cut, the result is that of the whole; what was repaired is valid UTF-8,
// what was stripped holds no ESC and no C1; a second cleaning of escapes and UTF-8 changes nothing.
// The first byte says which of the three are on, the second how the stream is cut.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

// The size of the next piece, pseudo-random: of a short stream small ones most often.
static size_t next_piece(uint32_t *seed, bool is_long) {
  *seed = *seed * 1664525 + 1013904223;
  uint32_t r = *seed >> 16;
  return (r & 3) != 0 && !is_long ? 1 + (r >> 2) % 8 : 1 + (r >> 2) % 6000;
}

// seed 0: in one piece.
static struct text_counts clean(unsigned what, uint32_t seed, const uint8_t *data, size_t size,
                                struct buf *out) {
  struct text *t;
  check(text_new(what, &t) == 0);
  bool whole = seed == 0;
  bool is_long = size > 512;
  while (size != 0) {
    size_t n = whole ? size : next_piece(&seed, is_long);
    n = n < size ? n : size;
    // A copy of the exact size shows a read beyond it.
    uint8_t *piece = malloc(n);
    memcpy(piece, data, n);
    check(text_feed(t, piece, n, out) == 0);
    free(piece);
    data += n;
    size -= n;
  }
  check(text_finish(t, out) == 0);
  struct text_counts counts = text_counts(t);
  text_free(t);
  return counts;
}

static void check_utf8(const uint8_t *s, size_t size) {
  for (size_t i = 0; i < size;) {
    uint32_t c = s[i];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    check(n != 0 && n <= size - i);
    c = n == 1 ? c : c & (0xffu >> (n + 1));
    for (size_t k = 1; k < n; k++) {
      check((s[i + k] & 0xc0) == 0x80);
      c = c << 6 | (s[i + k] & 0x3f);
    }
    check(n != 3 || (c >= 0x800 && (c < 0xd800 || c > 0xdfff)));
    check(n != 4 || (c >= 0x10000 && c <= 0x10ffff));
    i += n;
  }
}

static void check_stripped(const uint8_t *s, size_t size) {
  check(memchr(s, 0x1b, size) == NULL);
  for (size_t i = 0; i + 1 < size; i++) {
    check(!(s[i] == 0xc2 && s[i + 1] >= 0x80 && s[i + 1] < 0xa0));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) {
    return 0;
  }
  unsigned what = data[0] & 7u;
  // Long runs are what the limits are for, and a fuzzer is slow to grow them: one setting of
  // the first byte repeats the input.
  size_t repeat = (data[0] & 0x78u) == 8u ? 1 + 24000 / size : 1;
  uint32_t seed = data[1] + 1u;
  data += 2;
  size -= 2;
  uint8_t *long_data = malloc(size * repeat + 1);
  for (size_t i = 0; i < repeat; i++) {
    memcpy(long_data + i * size, data, size);
  }
  size_t long_size = size * repeat;

  struct buf whole;
  struct buf pieces;
  buf_init(&whole, SIZE_MAX / 4);
  buf_init(&pieces, SIZE_MAX / 4);
  struct text_counts a = clean(what, 0, long_data, long_size, &whole);
  struct text_counts b = clean(what, seed, long_data, long_size, &pieces);
  check(buf_size(&whole) == buf_size(&pieces));
  check(memcmp(buf_peek(&whole), buf_peek(&pieces), buf_size(&whole)) == 0);
  check(a.escapes == b.escapes && a.invalid == b.invalid && a.secrets == b.secrets);

  const uint8_t *text = (const uint8_t *)buf_peek(&whole);
  if ((what & TEXT_UTF8) != 0) {
    check_utf8(text, buf_size(&whole));
    if ((what & TEXT_ESCAPES) != 0) {
      check_stripped(text, buf_size(&whole));
    }
    if ((what & TEXT_SECRETS) == 0) {
      struct buf again;
      buf_init(&again, SIZE_MAX / 4);
      clean(what, 0, text, buf_size(&whole), &again);
      check(buf_size(&again) == buf_size(&whole));
      check(memcmp(buf_peek(&again), text, buf_size(&whole)) == 0);
      buf_fini(&again);
    }
  }
  buf_fini(&whole);
  buf_fini(&pieces);
  free(long_data);
  return 0;
}
