// SPDX-License-Identifier: MIT
#ifndef FARCALL_BASE64_H
#define FARCALL_BASE64_H

// Base64 of RFC 4648 section 4, to the letter: padding is required, the unused bits of the last
// character must be zero, and nothing but the alphabet is accepted, white space included. It works
// on whole buffers in the caller's memory, allocates nothing and may be used from any thread. The
// fastest code that the processor can run is chosen on first use.

#include <stddef.h>

// The exact size of the text for size bytes; any object that can exist has one (no overflow).
static inline size_t base64_encoded_size(size_t size) {
  return size / 3 * 4 + (size % 3 != 0 ? 4 : 0);
}

// The most bytes that size characters can decode to; the exact number is at most 2 smaller.
static inline size_t base64_decoded_max(size_t size) {
  return size / 4 * 3;
}

// Writes exactly base64_encoded_size(size) characters to text, without a terminator. The buffers
// must not overlap.
void base64_encode(const void *bytes, size_t size, char *text);

// Decodes size characters. bytes has room for base64_decoded_max(size) and must not overlap text.
// 0 with the number of bytes in *decoded; or ERR_SYNTAX with the offset of the first character that
// is wrong in *bad_at (size when the text ends too early), and then what bytes holds is
// unspecified.
int base64_decode(const char *text, size_t size, void *bytes, size_t *decoded, size_t *bad_at);

enum base64_level { BASE64_SCALAR, BASE64_AVX2, BASE64_AVX512VBMI, BASE64_LEVELS };

// The level in use, and its name: "scalar", "avx2" or "avx512vbmi". The name is static.
enum base64_level base64_level(void);
const char *base64_level_name(enum base64_level level);

// For specs and benchmarks: uses this level from now on, in all threads. 0, or ERR_UNSUPPORTED when
// this processor or build does not have it.
int base64_force(enum base64_level level);

#endif
