// SPDX-License-Identifier: MIT
#include "base64.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base64_kernel.h"
#include "err.h"

// The alphabet in one list, from which all tables come.
// clang-format off
#define ALPHABET(X) \
  X('A', 0) X('B', 1) X('C', 2) X('D', 3) X('E', 4) X('F', 5) X('G', 6) X('H', 7) \
  X('I', 8) X('J', 9) X('K', 10) X('L', 11) X('M', 12) X('N', 13) X('O', 14) X('P', 15) \
  X('Q', 16) X('R', 17) X('S', 18) X('T', 19) X('U', 20) X('V', 21) X('W', 22) X('X', 23) \
  X('Y', 24) X('Z', 25) X('a', 26) X('b', 27) X('c', 28) X('d', 29) X('e', 30) X('f', 31) \
  X('g', 32) X('h', 33) X('i', 34) X('j', 35) X('k', 36) X('l', 37) X('m', 38) X('n', 39) \
  X('o', 40) X('p', 41) X('q', 42) X('r', 43) X('s', 44) X('t', 45) X('u', 46) X('v', 47) \
  X('w', 48) X('x', 49) X('y', 50) X('z', 51) X('0', 52) X('1', 53) X('2', 54) X('3', 55) \
  X('4', 56) X('5', 57) X('6', 58) X('7', 59) X('8', 60) X('9', 61) X('+', 62) X('/', 63)
// clang-format on

#define CHARACTER(character, value) character,
static const uint8_t alphabet[64] = {ALPHABET(CHARACTER)};
#undef CHARACTER

// The value of each character at each of the four places of a group. What is not in the alphabet
// lacks the bit GOOD, so "and" over a group tells whether all of it is good and "or" joins it.
enum { GOOD = 1 << 24 };
#define PLACE_0(character, value) [character] = GOOD | (value) << 18,
#define PLACE_1(character, value) [character] = GOOD | (value) << 12,
#define PLACE_2(character, value) [character] = GOOD | (value) << 6,
#define PLACE_3(character, value) [character] = GOOD | (value),
static const uint32_t values[4][256] = {
    {ALPHABET(PLACE_0)}, {ALPHABET(PLACE_1)}, {ALPHABET(PLACE_2)}, {ALPHABET(PLACE_3)}};

static inline bool is_good(uint8_t character) {
  return values[3][character] != 0;
}

static inline void encode_group(uint32_t group, uint8_t *text) {
  text[0] = alphabet[group >> 18 & 63];
  text[1] = alphabet[group >> 12 & 63];
  text[2] = alphabet[group >> 6 & 63];
  text[3] = alphabet[group & 63];
}

static inline uint64_t load_big(const uint8_t *b) {
  return (uint64_t)b[0] << 56 | (uint64_t)b[1] << 48 | (uint64_t)b[2] << 40 | (uint64_t)b[3] << 32 |
         (uint64_t)b[4] << 24 | (uint64_t)b[5] << 16 | (uint64_t)b[6] << 8 | b[7];
}

static size_t encode_scalar(const uint8_t *bytes, size_t size, uint8_t *text) {
  size_t at = 0;
  // Two groups a turn from one load.
  for (; size - at >= 8; at += 6, text += 8) {
    uint64_t v = load_big(bytes + at);
    text[0] = alphabet[v >> 58];
    text[1] = alphabet[v >> 52 & 63];
    text[2] = alphabet[v >> 46 & 63];
    text[3] = alphabet[v >> 40 & 63];
    text[4] = alphabet[v >> 34 & 63];
    text[5] = alphabet[v >> 28 & 63];
    text[6] = alphabet[v >> 22 & 63];
    text[7] = alphabet[v >> 16 & 63];
  }
  for (; size - at >= 3; at += 3, text += 4) {
    const uint8_t *b = bytes + at;
    encode_group((uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2], text);
  }
  return at;
}

static inline uint32_t all_good(const uint8_t *t) {
  return values[0][t[0]] & values[1][t[1]] & values[2][t[2]] & values[3][t[3]] & GOOD;
}

static inline uint32_t joined(const uint8_t *t) {
  return values[0][t[0]] | values[1][t[1]] | values[2][t[2]] | values[3][t[3]];
}

static size_t decode_scalar(const uint8_t *text, size_t size, uint8_t *bytes) {
  size_t at = 0;
  for (; at < size; at += 4, bytes += 3) {
    if (all_good(text + at) == 0) {
      break;
    }
    uint32_t group = joined(text + at);
    bytes[0] = (uint8_t)(group >> 16);
    bytes[1] = (uint8_t)(group >> 8);
    bytes[2] = (uint8_t)group;
  }
  return at;
}

static const struct base64_kernel kernel_scalar = {encode_scalar, decode_scalar};

static bool level_works(enum base64_level level) {
#if BASE64_X86
  switch (level) {
  case BASE64_SCALAR:
    return true;
  case BASE64_AVX2:
    return __builtin_cpu_supports("avx2") != 0;
  case BASE64_AVX512VBMI:
    return __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  default:
    return false;
  }
#else
  return level == BASE64_SCALAR;
#endif
}

// What was chosen, plus one; 0 before the first use. Threads that come first together all compute
// the same answer, and nothing else is published through it, so relaxed order is enough.
static atomic_int chosen;

enum base64_level base64_level(void) {
  int known = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (known == 0) {
    int level = BASE64_LEVELS - 1;
    while (!level_works((enum base64_level)level)) {
      level--;
    }
    // A level that was forced in the meantime stays.
    if (atomic_compare_exchange_strong_explicit(&chosen, &known, level + 1, memory_order_relaxed,
                                                memory_order_relaxed)) {
      known = level + 1;
    }
  }
  return (enum base64_level)(known - 1);
}

int base64_force(enum base64_level level) {
  if (!level_works(level)) {
    return ERR_UNSUPPORTED;
  }
  atomic_store_explicit(&chosen, (int)level + 1, memory_order_relaxed);
  return 0;
}

const char *base64_level_name(enum base64_level level) {
  static const char *const names[BASE64_LEVELS] = {"scalar", "avx2", "avx512vbmi"};
  return names[level];
}

static const struct base64_kernel *kernel(void) {
  switch (base64_level()) {
#if BASE64_X86
  case BASE64_AVX512VBMI:
    return &base64_kernel_avx512;
  case BASE64_AVX2:
    return &base64_kernel_avx2;
#endif
  default:
    return &kernel_scalar;
  }
}

void base64_encode(const void *bytes, size_t size, char *text) {
  const uint8_t *in = bytes;
  uint8_t *out = (uint8_t *)text;
  size_t done = kernel()->encode(in, size, out);
  done += encode_scalar(in + done, size - done, out + done / 3 * 4);
  out += done / 3 * 4;
  in += done;
  if (size - done == 1) {
    encode_group((uint32_t)in[0] << 16, out);
    memset(out + 2, '=', 2);
  } else if (size - done == 2) {
    encode_group((uint32_t)in[0] << 16 | (uint32_t)in[1] << 8, out);
    out[3] = '=';
  }
}

// The first character from `from` on that is not of the alphabet, or size.
static size_t first_bad(const uint8_t *text, size_t from, size_t size) {
  while (from < size && is_good(text[from])) {
    from++;
  }
  return from;
}

// The last group, where padding may stand. Returns how many bytes it gave, or -1 with the place of
// the wrong character, 0..3, in *bad.
static int decode_last(const uint8_t *text, uint8_t *bytes, size_t *bad) {
  size_t letters = first_bad(text, 0, 4);
  if (letters < 2 || (letters < 4 && text[letters] != '=')) {
    *bad = letters;
    return -1;
  }
  if (letters == 2 && text[3] != '=') {
    *bad = 3;
    return -1;
  }
  // Padding joins as 'A', which is zero.
  uint8_t whole[4] = {text[0], text[1], letters > 2 ? text[2] : 'A', letters > 3 ? text[3] : 'A'};
  uint32_t group = joined(whole);
  uint32_t unused = letters == 2 ? 0xffff : letters == 3 ? 0xff : 0;
  if ((group & unused) != 0) {
    *bad = letters - 1;
    return -1;
  }
  for (size_t i = 0; i + 1 < letters; i++) {
    bytes[i] = (uint8_t)(group >> (16 - 8 * i));
  }
  return (int)letters - 1;
}

int base64_decode(const char *text, size_t size, void *bytes, size_t *decoded, size_t *bad_at) {
  const uint8_t *in = (const uint8_t *)text;
  uint8_t *out = bytes;
  size_t whole = size & ~(size_t)3;
  // The last group is left to decode_last, unless the text is cut short: then no group may be
  // padded.
  size_t body = whole == size && size != 0 ? size - 4 : whole;
  size_t done = kernel()->decode(in, body, out);
  done += decode_scalar(in + done, body - done, out + done / 4 * 3);
  if (done < body) {
    *bad_at = first_bad(in, done, body);
    return ERR_SYNTAX;
  }
  if (body == size) {
    *decoded = 0;
    return 0;
  }
  if (size - body < 4) {
    size_t at = first_bad(in, body, size);
    // "QQ=" is right as far as it goes: what is missing is the end.
    *bad_at = at < size && in[at] == '=' && at == size - 1 && at - body == 2 ? size : at;
    return ERR_SYNTAX;
  }
  size_t bad = 0;
  int last = decode_last(in + body, out + body / 4 * 3, &bad);
  if (last < 0) {
    *bad_at = body + bad;
    return ERR_SYNTAX;
  }
  *decoded = body / 4 * 3 + (size_t)last;
  return 0;
}
