// SPDX-License-Identifier: MIT
#ifndef FARCALL_SECRETS_H
#define FARCALL_SECRETS_H

// Masks secrets in a stream of text, in constant memory, with a result that does not depend on how
// the stream was cut. It looks for what secret_rules.h lists. It is a net, not a wall: a secret
// that looks like an ordinary word, or that was encoded, passes.
//
// The mask: a password (in an assignment, an Authorization header, a URL), a private key and
// anything shorter than 18 characters become «redacted»; other tokens keep the first six and the
// last four characters, abcdef…wxyz, so that a reader can tell which one it was.
//
// Whether something is a secret is settled within SECRETS_HOLD bytes. A token, value or key that
// goes on beyond that becomes «redacted» and is dropped to its end, however far away that is.

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum { SECRETS_HOLD = 16384, SECRETS_WINDOW = 65536 };

// Members belong to secrets.c, except that anyone may read count.
struct secrets {
  uint64_t count; // masked so far
  size_t size;    // bytes in the window
  size_t emitted; // up to here the window has been given out, or masked
  size_t at;      // the next byte to look at
  size_t floor;   // the end of the last secret: none begins before it
  uint8_t drop;   // class of characters that still belong to a masked secret, or 0
  char window[SECRETS_WINDOW];
};

void secrets_init(struct secrets *s);

// Takes bytes, and appends to out when the window is full. 0 or the failure of buf_append.
int secrets_feed(struct secrets *s, const char *bytes, size_t size, struct buf *out);

// Appends to out all that is settled by now.
int secrets_flush(struct secrets *s, struct buf *out);

// The stream has ended: appends the rest. Another stream may follow.
int secrets_finish(struct secrets *s, struct buf *out);

#endif
