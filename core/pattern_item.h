// SPDX-License-Identifier: MIT
#ifndef FARCALL_PATTERN_ITEM_H
#define FARCALL_PATTERN_ITEM_H

// What an item of a compiled pattern is: shared by pattern_compile.c, which makes items, and
// pattern.c, which matches them. Nobody else needs it.

#include "pattern.h"

enum pattern_kind {
  ITEM_ONE,     // the test once
  ITEM_OPTION,  // ?
  ITEM_MANY,    // *
  ITEM_SOME,    // +
  ITEM_FEW,     // -
  ITEM_LITERAL, // bytes of the pattern
  ITEM_OPEN,
  ITEM_PLACE,
  ITEM_CLOSE,
  ITEM_BALANCE,
  ITEM_FRONTIER,
  ITEM_BACK,
  ITEM_NEVER,
  ITEM_FINISH,  // $
  ITEM_MATCHED, // the end of the pattern
  ITEM_PROBLEM, // first is the index of the text
};

enum pattern_test { TEST_BYTE, TEST_ANY, TEST_CLASS, TEST_SET };

// Whether the byte is in the class of the letter that stands after %.
bool pattern_in_class(unsigned char byte, unsigned char letter);

// What is wrong where an ITEM_PROBLEM stands. Static.
const char *pattern_problem(unsigned problem);

static inline bool pattern_set_has(const struct pattern_set *set, unsigned char byte) {
  return (set->bits[byte >> 6] >> (byte & 63)) & 1;
}

#endif
