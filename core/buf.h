// SPDX-License-Identifier: MIT
#ifndef FARCALL_BUF_H
#define FARCALL_BUF_H

// A growable byte queue with a hard maximum: append at the end, consume from the front. It is the
// only place of the core that grows memory because of bytes that come from outside, so the
// maximum is part of its construction. Not a string: no terminator, NUL is a byte like another.

#include <stddef.h>

struct buf {
  char *base;   // owned
  size_t start; // first unread byte
  size_t end;   // one past the last byte
  size_t capacity;
  size_t max; // unread bytes never exceed this
};

// Prepares an empty buffer that will never hold more than max unread bytes. Allocates nothing.
void buf_init(struct buf *b, size_t max);

// Frees the memory; the buffer is empty and usable again afterwards. Idempotent.
void buf_fini(struct buf *b);

// Unread bytes, and where they are. The pointer is borrowed until the next call that is not const.
size_t buf_size(const struct buf *b);
const char *buf_peek(const struct buf *b);

// Appends a copy of bytes. 0, ERR_LIMIT when the maximum would be passed (nothing is appended), or
// -ENOMEM.
int buf_append(struct buf *b, const void *bytes, size_t size);

// Makes room for size more bytes and gives the place in *room; after writing n <= size bytes there,
// call buf_commit(b, n). Errors as buf_append.
int buf_reserve(struct buf *b, size_t size, char **room);
void buf_commit(struct buf *b, size_t size);

// Drops size bytes (at most buf_size) from the front. An emptied buffer that had grown large gives
// its memory back.
void buf_consume(struct buf *b, size_t size);

#endif
