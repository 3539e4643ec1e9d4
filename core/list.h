// SPDX-License-Identifier: MIT
#ifndef FARCALL_LIST_H
#define FARCALL_LIST_H

// Lists whose places are parts of what is listed: a circle through a head, which is a place like
// the others. Who is in a list leaves it without knowing which it is. Nothing is allocated.

#include <stdbool.h>

struct list {
  struct list *before, *after;
};

// An empty list, or a place that is in none.
static inline void list_init(struct list *l) {
  l->before = l->after = l;
}

static inline bool list_is_empty(const struct list *l) {
  return l->after == l;
}

// Does nothing when it is in none.
static inline void list_unlink(struct list *place) {
  place->before->after = place->after;
  place->after->before = place->before;
  list_init(place);
}

// At the end; place must be in none.
static inline void list_append(struct list *head, struct list *place) {
  place->before = head->before;
  place->after = head;
  head->before->after = place;
  head->before = place;
}

// All places of one list at the end of another.
static inline void list_move(struct list *head, struct list *from) {
  if (!list_is_empty(from)) {
    from->after->before = head->before;
    from->before->after = head;
    head->before->after = from->after;
    head->before = from->before;
    list_init(from);
  }
}

#endif
