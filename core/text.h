// SPDX-License-Identifier: MIT
#ifndef FARCALL_TEXT_H
#define FARCALL_TEXT_H

// One pass over bytes that come from a script: invalid UTF-8 is repaired, terminal escapes are
// stripped, secrets are redacted, in this order, so that an escape in the middle of a secret does
// not hide it. It works on a stream in constant memory, and the result never depends on how the
// stream was cut into pieces. Each of the three can be used alone. It is not a terminal emulator,
// and what secrets.h says about secrets is all it knows of them.
//
// UTF-8: each maximal subpart of an ill-formed sequence becomes one U+FFFD, as Unicode recommends.
//
// Escapes (ECMA-48): CSI, OSC (ended by BEL or ST), DCS, SOS, PM, APC (ended by ST), nF and
// two-byte sequences, and the 8-bit controls 0x80-0x9F, as single bytes that are not part of a
// UTF-8 character and as U+0080-U+009F. Any of these, CAN or SUB ends an unfinished sequence. A
// control string (OSC and so on) that goes on for more than TEXT_STRING_MAX bytes, or is not ended
// when the stream ends, loses its introducer and is text: a stray introducer cannot make the rest
// of the output vanish. Other control characters (newline, tab, BEL, ...) stay.

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum { TEXT_ESCAPES = 1, TEXT_UTF8 = 2, TEXT_SECRETS = 4 };
enum { TEXT_STRING_MAX = 16384 };

// What was found so far: sequences stripped, ill-formed subparts met (repaired with TEXT_UTF8),
// secrets masked.
struct text_counts {
  uint64_t escapes;
  uint64_t invalid;
  uint64_t secrets;
};

struct text;

// A new cleaner in *out that does what `what` names, to be freed by text_free. 0 or -ENOMEM.
int text_new(unsigned what, struct text **out);
// Accepts NULL.
void text_free(struct text *t);

// Takes size bytes and appends to out whatever is settled by now. At most TEXT_STRING_MAX and
// SECRETS_HOLD bytes are held back. 0, or the failure of buf_append, after which the cleaner can
// only be freed.
int text_feed(struct text *t, const void *bytes, size_t size, struct buf *out);

// The stream has ended: appends the rest. The cleaner is then ready for another stream, and goes on
// counting.
int text_finish(struct text *t, struct buf *out);

struct text_counts text_counts(const struct text *t);

#endif
