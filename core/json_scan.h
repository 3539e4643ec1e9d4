// SPDX-License-Identifier: MIT
#ifndef FARCALL_JSON_SCAN_H
#define FARCALL_JSON_SCAN_H

// What reader and writer of JSON strings share: runs of plain ASCII, and UTF-8. Internal to json.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int scan_is_plain(uint8_t byte) {
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

// The bytes at p that stand for themselves in a JSON string and are ASCII, up to end.
static inline const uint8_t *scan_plain(const uint8_t *p, const uint8_t *end) {
  const uint64_t ones = 0x0101010101010101u;
  while (end - p >= 8) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    uint64_t quote = word ^ (ones * '"');
    uint64_t slash = word ^ (ones * '\\');
    // The lowest high bit that is set here is exact; those above it may be wrong.
    uint64_t special = (((word - ones * 0x20) | (quote - ones) | (slash - ones)) & ~word) | word;
    special &= ones * 0x80;
    if (special != 0) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      return p + (__builtin_ctzll(special) >> 3);
#else
      break;
#endif
    }
    p += 8;
  }
  while (p < end && scan_is_plain(*p)) {
    p++;
  }
  return p;
}

static inline int scan_is_tail(uint8_t byte) {
  return (byte & 0xC0) == 0x80;
}

// The size of the character that starts at p with a byte of 0x80 or more, or 0 when it is not valid
// UTF-8: cut off, overlong, a surrogate or beyond U+10FFFF.
static inline size_t scan_utf8(const uint8_t *p, const uint8_t *end) {
  size_t left = (size_t)(end - p);
  if (p[0] < 0xC2 || p[0] > 0xF4) {
    return 0;
  }
  if (p[0] < 0xE0) {
    return left >= 2 && scan_is_tail(p[1]) ? 2 : 0;
  }
  if (p[0] < 0xF0) {
    if (left < 3 || !scan_is_tail(p[1]) || !scan_is_tail(p[2])) {
      return 0;
    }
    return (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) ? 0 : 3;
  }
  if (left < 4 || !scan_is_tail(p[1]) || !scan_is_tail(p[2]) || !scan_is_tail(p[3])) {
    return 0;
  }
  return (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] >= 0x90) ? 0 : 4;
}

#endif
