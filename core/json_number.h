// SPDX-License-Identifier: MIT
#ifndef FARCALL_JSON_NUMBER_H
#define FARCALL_JSON_NUMBER_H

// Decimal text and doubles, exact both ways and whatever the locale. Pure functions.

#include <stddef.h>

// Up to here, either way, every integer is a double of its own.
#define JSON_EXACT_MAX 9007199254740992.0

// What stands at the start of a text.
struct json_number {
  size_t size;     // bytes of it; of a wrong one: up to the first byte that is wrong
  double value;    // unless is_large
  int is_large;    // an integer beyond JSON_EXACT_MAX
  const char *why; // of a wrong one, static
};

// Reads the number that text starts with, as far as it goes. 0 or ERR_NUMBER.
int json_number_read(const char *text, size_t size, struct json_number *number);

enum { JSON_NUMBER_ROOM = 32 };

// Writes the shortest digits that read as value again, at most 17, without a terminator. Integers
// up to JSON_EXACT_MAX are written as such; larger ones with an exponent, so that they are not
// taken for exact ones. Returns the size; 0 for NaN and the infinities.
size_t json_number_write(double value, char text[JSON_NUMBER_ROOM]);

#endif
