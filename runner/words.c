// SPDX-License-Identifier: MIT
#include "words.h"

#include <string.h>

bool words_split(struct words *words, const char *bytes, size_t size) {
  words->count = 0;
  if (size == 0 || bytes[size - 1] != '\0') {
    return false;
  }
  for (size_t at = 0; at < size; at += strlen(bytes + at) + 1) {
    if (words->count == WORDS_MAX) {
      return false;
    }
    words->at[words->count++] = bytes + at;
  }
  words->at[words->count] = NULL;
  return true;
}

bool words_number(const char *word, unsigned base, uint64_t max, uint64_t *number) {
  uint64_t value = 0;
  if (*word == '\0') {
    return false;
  }
  for (; *word != '\0'; word++) {
    // What is below '0' becomes large.
    unsigned digit = (unsigned)*word - '0';
    if (digit >= base || digit > max || value > (max - digit) / base) {
      return false;
    }
    value = value * base + digit;
  }
  *number = value;
  return true;
}
