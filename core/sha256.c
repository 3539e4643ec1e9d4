// SPDX-License-Identifier: MIT
#include "sha256.h"

#include <string.h>

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t rotate(uint32_t v, unsigned n) {
  return v >> n | v << (32 - n);
}

static void mix(uint32_t state[8], const uint8_t *block) {
  uint32_t w[64];
  for (size_t i = 0; i < 16; i++) {
    const uint8_t *b = block + 4 * i;
    w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
  }
  for (size_t i = 16; i < 64; i++) {
    uint32_t early = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t late = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + early + w[i - 7] + late;
  }
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
  for (size_t i = 0; i < 64; i++) {
    uint32_t one = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
                   constants[i] + w[i];
    uint32_t two = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + one;
    d = c;
    c = b;
    b = a;
    a = one + two;
  }
  const uint32_t mixed[8] = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; i++) {
    state[i] += mixed[i];
  }
}

void sha256_begin(struct sha256 *h) {
  // The same of the square roots of the first 8 primes.
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(h->state, start, sizeof start);
  h->size = 0;
}

void sha256_update(struct sha256 *h, const void *bytes, size_t size) {
  const uint8_t *in = bytes;
  size_t held = (size_t)(h->size % SHA256_BLOCK);
  h->size += size;
  if (held != 0) {
    size_t n = size < SHA256_BLOCK - held ? size : SHA256_BLOCK - held;
    memcpy(h->block + held, in, n);
    in += n;
    size -= n;
    if (held + n < SHA256_BLOCK) {
      return;
    }
    mix(h->state, h->block);
  }
  for (; size >= SHA256_BLOCK; in += SHA256_BLOCK, size -= SHA256_BLOCK) {
    mix(h->state, in);
  }
  if (size != 0) {
    memcpy(h->block, in, size);
  }
}

void sha256_end(struct sha256 *h, uint8_t digest[SHA256_SIZE]) {
  uint64_t bits = h->size * 8;
  size_t held = (size_t)(h->size % SHA256_BLOCK);
  h->block[held++] = 0x80;
  if (held > SHA256_BLOCK - 8) {
    memset(h->block + held, 0, SHA256_BLOCK - held);
    mix(h->state, h->block);
    held = 0;
  }
  memset(h->block + held, 0, SHA256_BLOCK - 8 - held);
  for (size_t i = 0; i < 8; i++) {
    h->block[SHA256_BLOCK - 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
  }
  mix(h->state, h->block);
  for (size_t i = 0; i < SHA256_SIZE; i++) {
    digest[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
  }
}

void sha256_hex(const uint8_t digest[SHA256_SIZE], char text[SHA256_HEX_SIZE + 1]) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < SHA256_SIZE; i++) {
    text[2 * i] = digits[digest[i] >> 4];
    text[2 * i + 1] = digits[digest[i] & 15];
  }
  text[SHA256_HEX_SIZE] = '\0';
}
