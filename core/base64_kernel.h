// SPDX-License-Identifier: MIT
#ifndef FARCALL_BASE64_KERNEL_H
#define FARCALL_BASE64_KERNEL_H

// The inner loops of base64.c, one pair a level; only base64.c calls them. A kernel does as much of
// the front as suits its vectors and says how much that was; base64.c does the rest one group at a
// time, so no kernel has to know of padding or to name the character that is wrong.

#include <stddef.h>
#include <stdint.h>

struct base64_kernel {
  // Encodes a front of bytes; returns how many bytes it took, a multiple of 3.
  size_t (*encode)(const uint8_t *bytes, size_t size, uint8_t *text);
  // Decodes a front of text, size being a multiple of 4; returns how many characters it took, a
  // multiple of 4 and all of them good. It writes no further than size / 4 * 3 bytes.
  size_t (*decode)(const uint8_t *text, size_t size, uint8_t *bytes);
};

#if defined(__x86_64__) && defined(__GNUC__)
#define BASE64_X86 1
extern const struct base64_kernel base64_kernel_avx2;
extern const struct base64_kernel base64_kernel_avx512;
#else
#define BASE64_X86 0
#endif

#endif
