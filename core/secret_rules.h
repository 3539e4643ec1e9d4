// SPDX-License-Identifier: MIT
#ifndef FARCALL_SECRET_RULES_H
#define FARCALL_SECRET_RULES_H

// What a secret looks like; only secrets.c calls in. A rule is tried where a character stands that
// such a secret must contain and that is rare elsewhere: a separator, "I", "J". It may look back a
// little and ahead a bounded distance, and it must say "more" rather than guess when the answer
// depends on what has not come yet; so the answer is the same wherever the stream was cut.
//
// The rules: tokens by their vendors' prefixes (secret_prefixes.c); JSON web tokens; PEM private
// keys; passwords in URLs; Authorization headers and assignments to names that mean a secret
// (secret_keys.c).

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SECRET_LOOK_BACK = 256, // a rule reads no further back than this
  SECRET_WORD_MAX = 16,   // a secret begins at most so many letters and digits before its trigger
  SECRET_LOOK_AHEAD = 4096,
  // Whether a run of characters is a secret is judged by its first so many; only what is one is
  // followed to its end. Else text that is full of triggers would be read hundreds of times.
  SECRET_JUDGED = 128,
  SECRET_KEY_AHEAD = 16384 // for PEM
};

// Classes of characters, as bits.
enum {
  SECRET_ALNUM = 1,
  SECRET_TOKEN = 2,      // ALNUM _ -
  SECRET_TOKEN_DOT = 4,  // TOKEN .
  SECRET_BASE64 = 8,     // ALNUM + / = and, in the middle of a key, line breaks and backslashes
  SECRET_UNSPACED = 16,  // up to white space, a quote or a separator of lists, calls and queries
  SECRET_LINE_WORD = 32, // up to white space
  SECRET_IN_DOUBLE = 64, // up to a double quote or the line's end
  SECRET_IN_SINGLE = 128 // up to a single quote or the line's end
};
extern const uint8_t secret_class[256];

// What a rule sees. Its answer may depend on text[floor .. end) only, except that it may look at
// characters before floor to learn what a secret stands behind.
struct secret_view {
  const char *text;
  size_t at;    // the trigger
  size_t floor; // the end of the last secret
  size_t size;  // what has come so far
  bool final;   // nothing more will come
};

// How far a rule can see from its trigger, and what is there.
struct secret_bound {
  size_t end;
  bool more; // at end: more may come, so the answer has to wait
  bool cut;  // at end: the distance that the rule may look ahead is used up
};
struct secret_bound secret_bound(const struct secret_view *v, size_t ahead);
// The part of it in which a run that starts at `from` is judged.
static inline size_t secret_judged_end(struct secret_bound bound, size_t from) {
  return bound.end - from < SECRET_JUDGED ? bound.end : from + SECRET_JUDGED;
}

enum secret_verdict { SECRET_NONE, SECRET_MORE, SECRET_FOUND };
struct secret {
  size_t start;
  size_t end;
  bool whole;   // mask all of it, whatever its length
  uint8_t rest; // not 0: it goes on beyond end, as far as characters are of this class
};

// The characters at which a rule may apply.
#define SECRET_TRIGGERS(X) X('=') X(':') X('-') X('_') X('.') X('G') X('I') X('J')
enum secret_verdict secret_at(const struct secret_view *v, struct secret *found);

// The parts of it that live in files of their own.
enum secret_verdict secret_by_prefix(const struct secret_view *v, struct secret *found);
enum secret_verdict secret_by_key(const struct secret_view *v, struct secret *found);

// The number of letters and digits right before the trigger, at most SECRET_WORD_MAX + 1.
size_t secret_word_before(const struct secret_view *v);
// The end of the run of this class from `from` on.
size_t secret_run(const struct secret_view *v, size_t from, size_t end, uint8_t class);
// True when the text looks random: somewhere `length` letters and digits in a row, of both kinds.
bool secret_is_dense(const char *text, size_t size, size_t length);

#endif
