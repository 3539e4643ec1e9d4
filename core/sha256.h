// SPDX-License-Identifier: MIT
#ifndef FARCALL_SHA256_H
#define FARCALL_SHA256_H

// SHA-256 (FIPS 180-4), for naming content: the hash of a trusted config, of a stub. It is small
// rather than fast and makes no promise against timing. libcrypto is not used, because loading it
// costs more time than a run of the program has to spare.

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32, SHA256_HEX_SIZE = 64, SHA256_BLOCK = 64 };

struct sha256 {
  uint32_t state[8];
  uint64_t size; // bytes taken so far
  uint8_t block[SHA256_BLOCK];
};

// Begin, any number of updates, end. After the end the struct must be begun again.
void sha256_begin(struct sha256 *h);
void sha256_update(struct sha256 *h, const void *bytes, size_t size);
void sha256_end(struct sha256 *h, uint8_t digest[SHA256_SIZE]);

// Writes the digest as 64 small hexadecimal digits and a terminator.
void sha256_hex(const uint8_t digest[SHA256_SIZE], char text[SHA256_HEX_SIZE + 1]);

#endif
