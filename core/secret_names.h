// SPDX-License-Identifier: MIT
#ifndef FARCALL_SECRET_NAMES_H
#define FARCALL_SECRET_NAMES_H

// How surely does a name mean that its value is a secret? Only secret_keys.c asks. Comparisons here
// have no regard to case.

#include <stdbool.h>
#include <stddef.h>

enum name_sureness {
  NAME_HARMLESS,
  NAME_WEAK,     // token, key: the value must look random
  NAME_STRONG,   // api_key, client_secret, GITHUB_TOKEN: the value must not look like a word or a
                 // name
  NAME_PASSWORD, // any value but a placeholder; masked whole
  NAME_AUTHORIZATION
};

// A stretch of text, borrowed.
struct piece {
  const char *text;
  size_t size;
};

enum name_sureness name_sureness(struct piece name);

// The last word of a name in snake_case, kebab-case, camelCase, CAPITALS or with dots.
struct piece name_last_word(struct piece name);
// True when no letter is small.
bool name_is_capitals(struct piece name);

bool piece_is(struct piece p, const char *word);
bool piece_ends_with(struct piece p, const char *end);
// The list is NULL-terminated.
bool piece_is_one_of(struct piece p, const char *const *words);

static inline bool char_is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

static inline char char_lower(char c) {
  if (char_is_upper(c)) {
    return (char)(c + 'a' - 'A');
  }
  return c;
}

static inline bool char_is_letter(char c) {
  return char_lower(c) >= 'a' && char_lower(c) <= 'z';
}

static inline bool char_is_digit(char c) {
  return c >= '0' && c <= '9';
}

#endif
