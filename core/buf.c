// SPDX-License-Identifier: MIT
#include "buf.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

// The smallest block worth asking for, and the largest that an empty buffer keeps.
#define BUF_SMALL 512
#define BUF_KEEP 65536

void buf_init(struct buf *b, size_t max) {
  *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b) {
  free(b->base);
  *b = (struct buf){.max = b->max};
}

size_t buf_size(const struct buf *b) {
  return b->end - b->start;
}

const char *buf_peek(const struct buf *b) {
  return b->base != NULL ? b->base + b->start : "";
}

// Moving costs as much as there are bytes, so it is done only when at least as many were consumed:
// each byte is then moved a bounded number of times.
static int make_room(struct buf *b, size_t size) {
  size_t unread = buf_size(b);
  if (b->base != NULL && b->start >= unread && unread + size <= b->capacity) {
    memmove(b->base, b->base + b->start, unread);
    b->start = 0;
    b->end = unread;
    return 0;
  }
  size_t capacity = b->capacity * 2 > BUF_SMALL ? b->capacity * 2 : BUF_SMALL;
  while (capacity < unread + size) {
    capacity = capacity <= SIZE_MAX / 2 ? capacity * 2 : unread + size;
  }
  if (b->base == NULL || b->start == 0) {
    char *grown = realloc(b->base, capacity);
    if (grown == NULL) {
      return -ENOMEM;
    }
    b->base = grown;
  } else {
    char *moved = malloc(capacity);
    if (moved == NULL) {
      return -ENOMEM;
    }
    memcpy(moved, b->base + b->start, unread);
    free(b->base);
    b->base = moved;
    b->start = 0;
    b->end = unread;
  }
  b->capacity = capacity;
  return 0;
}

int buf_reserve(struct buf *b, size_t size, char **room) {
  size_t unread = buf_size(b);
  if (size > b->max || unread > b->max - size) {
    return ERR_LIMIT;
  }
  if (size > b->capacity - b->end || b->base == NULL) {
    int failed = make_room(b, size);
    if (failed != 0) {
      return failed;
    }
  }
  *room = b->base + b->end;
  return 0;
}

void buf_commit(struct buf *b, size_t size) {
  b->end += size;
}

int buf_append(struct buf *b, const void *bytes, size_t size) {
  if (size == 0) {
    return 0;
  }
  char *room;
  int failed = buf_reserve(b, size, &room);
  if (failed != 0) {
    return failed;
  }
  memcpy(room, bytes, size);
  buf_commit(b, size);
  return 0;
}

void buf_consume(struct buf *b, size_t size) {
  b->start += size < buf_size(b) ? size : buf_size(b);
  if (b->start == b->end) {
    b->start = b->end = 0;
    if (b->capacity > BUF_KEEP) {
      buf_fini(b);
    }
  }
}
