// SPDX-License-Identifier: MIT
#ifndef FARCALL_PATTERN_H
#define FARCALL_PATTERN_H

// Lua's patterns, matched within a budget: classes, sets, %b, %f, captures, position captures, back
// references and anchors as the manual of Lua 5.1 describes them. A pattern is a plain sequence, so
// it is compiled to a list of items, and a choice point exists at most once for each item: matching
// needs neither recursion nor memory, and every look at the subject is counted. A malformed place
// is an error when the match gets to it, as in Lua. Bytes are bytes: NUL is one like any other, and
// no locale is asked. Nothing is allocated or kept; any thread may use its own struct.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_CAPTURES = 32, PATTERN_ITEMS = 200, PATTERN_SETS = 40 };

struct pattern_capture {
  size_t start;
  size_t end;    // of a position capture: start
  bool position; // "()": the place alone
};

struct pattern_set {
  uint64_t bits[4];
};

struct pattern_item {
  uint8_t kind;
  uint8_t test;    // what a single byte is compared with: see pattern.c
  uint8_t first;   // byte, class letter, opening byte of %b, index of a capture or a set
  uint8_t second;  // closing byte of %b
  uint32_t length; // of a literal
  size_t offset;   // of a literal in the pattern's text
};

struct pattern_choice {
  unsigned item;
  size_t at;
  size_t least;
};

struct pattern {
  const char *text;    // borrowed from pattern_compile on
  const char *problem; // why the last match failed with an error; static
  unsigned item_count;
  unsigned set_count;
  unsigned capture_count; // of the whole pattern
  bool anchored;          // begins with ^
  struct pattern_capture captures[PATTERN_CAPTURES];
  struct pattern_item items[PATTERN_ITEMS];
  struct pattern_choice choices[PATTERN_ITEMS];
  struct pattern_set sets[PATTERN_SETS];
};

// Prepares a pattern, whose text must stay where it is while p is used. With anchors false, ^ at
// the beginning is a byte like another (Lua's gmatch). 0, or ERR_DEPTH: more items or sets than
// there is room for.
int pattern_compile(struct pattern *p, const char *text, size_t length, bool anchors);

// Whether the pattern matches a piece of the subject that begins exactly at start: 1 and its end in
// *end and the captures in p, or 0, or ERR_SYNTAX (p->problem says what is malformed), or
// ERR_INSTRUCTIONS (*steps is used up). *steps is taken down by what was done.
int pattern_match(struct pattern *p, const char *subject, size_t length, size_t start,
                  uint64_t *steps, size_t *end);

// The first match that begins at *start or later, or only there if the pattern is anchored; *start
// becomes its beginning. Returns as pattern_match does.
int pattern_search(struct pattern *p, const char *subject, size_t length, size_t *start,
                   uint64_t *steps, size_t *end);

// Whether the text has no byte that means anything in a pattern.
bool pattern_is_plain(const char *text, size_t length);

// The first place of needle at or after *start, in time linear in both: 1 and the place in *start,
// or 0, or ERR_INSTRUCTIONS.
int pattern_find_plain(const char *subject, size_t length, const char *needle, size_t needle_length,
                       size_t *start, uint64_t *steps);

#endif
