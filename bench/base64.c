// SPDX-License-Identifier: MIT
// base64 beside OpenSSL's EVP and memcpy, in one run: GB/s of decoded bytes, medians over rounds in
// which every contestant has its turn, so that a slow moment of the machine hits all of them.

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base64.h"

enum { ROUNDS = 41, CONTESTANTS = BASE64_LEVELS + 2 };
enum { EVP = BASE64_LEVELS, COPY };

struct buffers {
  size_t size;
  size_t text_size;
  unsigned char *bytes;
  unsigned char *text;
  unsigned char *out;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool is_here(int who) {
  return who >= BASE64_LEVELS || base64_force((enum base64_level)who) == 0;
}

static const char *name_of(int who) {
  return who == EVP    ? "OpenSSL EVP"
         : who == COPY ? "memcpy"
                       : base64_level_name((enum base64_level)who);
}

static void work(int who, bool encode, struct buffers *b) {
  size_t decoded = b->size;
  size_t bad_at = 0;
  if (who == COPY) {
    memcpy(b->out, b->bytes, b->size);
  } else if (who == EVP && encode) {
    EVP_EncodeBlock(b->out, b->bytes, (int)b->size);
  } else if (who == EVP) {
    EVP_DecodeBlock(b->out, b->text, (int)b->text_size);
  } else if (encode) {
    base64_encode(b->bytes, b->size, (char *)b->out);
  } else if (base64_decode((char *)b->text, b->text_size, b->out, &decoded, &bad_at) != 0) {
    abort();
  }
  // The compiler must not see that nobody reads the result.
  __asm__ volatile("" : : "r"(b->out) : "memory");
}

static double gigabytes_per_second(int who, bool encode, struct buffers *b) {
  // About 4 MB a turn.
  size_t times = 4194304 / b->size + 1;
  if (who < BASE64_LEVELS) {
    base64_force((enum base64_level)who);
  }
  work(who, encode, b);
  double start = now();
  for (size_t i = 0; i < times; i++) {
    work(who, encode, b);
  }
  return (double)(times * b->size) / (now() - start) / 1e9;
}

static int by_value(const void *a, const void *b) {
  const double *x = a;
  const double *y = b;
  return (*x > *y) - (*x < *y);
}

static void race(size_t size, bool encode) {
  struct buffers b = {.size = size, .text_size = base64_encoded_size(size)};
  b.bytes = malloc(size);
  b.text = malloc(b.text_size + 1);
  b.out = malloc(b.text_size + 64);
  if (b.bytes == NULL || b.text == NULL || b.out == NULL) {
    abort();
  }
  unsigned state = 1;
  for (size_t i = 0; i < size; i++) {
    state = state * 1664525 + 1013904223;
    b.bytes[i] = (unsigned char)(state >> 24);
  }
  base64_encode(b.bytes, size, (char *)b.text);
  static double speed[CONTESTANTS][ROUNDS];
  for (int round = 0; round < ROUNDS; round++) {
    for (int who = 0; who < CONTESTANTS; who++) {
      speed[who][round] = is_here(who) ? gigabytes_per_second(who, encode, &b) : 0;
    }
  }
  for (int who = 0; who < CONTESTANTS; who++) {
    qsort(speed[who], ROUNDS, sizeof(double), by_value);
  }
  for (int who = 0; who < CONTESTANTS; who++) {
    double median = speed[who][ROUNDS / 2];
    if (median > 0) {
      printf("%-6s %8zu  %-12s %7.2f GB/s  %6.1fx EVP  %5.2fx memcpy\n",
             encode ? "encode" : "decode", size, name_of(who), median,
             median / speed[EVP][ROUNDS / 2], median / speed[COPY][ROUNDS / 2]);
    }
  }
  free(b.bytes);
  free(b.text);
  free(b.out);
}

int main(void) {
  static const size_t sizes[] = {3072, 98304, 393216, 1047552};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    race(sizes[i], true);
    race(sizes[i], false);
  }
  return 0;
}
