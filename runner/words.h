// SPDX-License-Identifier: MIT
#ifndef FARCALL_WORDS_H
#define FARCALL_WORDS_H

// The words of a request: each ended by a NUL.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS_MAX 96

struct words {
  size_t count;
  const char *at[WORDS_MAX + 1]; // borrowed from the request; NULL after the last one
};

// False when there is none, when there are more than WORDS_MAX, or when the last one has no end.
bool words_split(struct words *words, const char *bytes, size_t size);

// A number in this base of digits only, at most max.
bool words_number(const char *word, unsigned base, uint64_t max, uint64_t *number);

#endif
