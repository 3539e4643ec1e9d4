// SPDX-License-Identifier: MIT
#include "pattern.h"

#include <string.h>

#include "err.h"
#include "pattern_item.h"

static bool passes(const struct pattern *p, const struct pattern_item *item, unsigned char byte) {
  switch (item->test) {
  case TEST_BYTE:
    return item->first == byte;
  case TEST_ANY:
    return true;
  case TEST_CLASS:
    return pattern_in_class(byte, item->first);
  default:
    return pattern_set_has(&p->sets[item->first], byte);
  }
}

// Takes n from the budget; false, with nothing left, when it is not in there.
static bool spend(uint64_t *steps, uint64_t n) {
  if (*steps < n) {
    *steps = 0;
    return false;
  }
  *steps -= n;
  return true;
}

struct matcher {
  struct pattern *p;
  const unsigned char *subject;
  size_t length;
  uint64_t *steps;
  unsigned item;
  unsigned choice_count;
  size_t at;
};

enum verdict { GO_ON, GO_BACK, MATCHED, BROKEN, SPENT };

static void push_choice(struct matcher *m, size_t at, size_t least) {
  m->p->choices[m->choice_count++] = (struct pattern_choice){m->item, at, least};
}

// As many bytes as pass, at once; giving them back one by one is what choices are for.
static enum verdict take_run(struct matcher *m, const struct pattern_item *item, size_t least) {
  size_t from = m->at;
  size_t at = from;
  size_t room = m->length - at;
  size_t stop = *m->steps < room ? at + (size_t)*m->steps : m->length;
  while (at < stop && passes(m->p, item, m->subject[at])) {
    at++;
  }
  if (!spend(m->steps, at - from) || (at == stop && stop < m->length)) {
    *m->steps = 0;
    return SPENT;
  }
  if (at - from < least) {
    return GO_BACK;
  }
  if (at - from > least) {
    push_choice(m, at, from + least);
  }
  m->at = at;
  return GO_ON;
}

static enum verdict take_balance(struct matcher *m, const struct pattern_item *item) {
  if (m->at == m->length || m->subject[m->at] != item->first) {
    return GO_BACK;
  }
  size_t depth = 1;
  size_t room = m->length - m->at;
  size_t stop = *m->steps < room ? m->at + (size_t)*m->steps : m->length;
  size_t at = m->at + 1;
  for (; at < stop; at++) {
    // The closing byte is looked at first: with both the same, the second one ends it.
    if (m->subject[at] == item->second) {
      if (--depth == 0) {
        break;
      }
    } else if (m->subject[at] == item->first) {
      depth++;
    }
  }
  if (!spend(m->steps, at - m->at) || (depth > 0 && stop < m->length)) {
    *m->steps = 0;
    return SPENT;
  }
  if (depth > 0) {
    return GO_BACK;
  }
  m->at = at + 1;
  return GO_ON;
}

static enum verdict take_bytes(struct matcher *m, const void *bytes, size_t length) {
  if (!spend(m->steps, length / 16)) {
    return SPENT;
  }
  if (length > m->length - m->at || memcmp(m->subject + m->at, bytes, length) != 0) {
    return GO_BACK;
  }
  m->at += length;
  return GO_ON;
}

static enum verdict take_single(struct matcher *m, const struct pattern_item *item) {
  bool fits = m->at < m->length && passes(m->p, item, m->subject[m->at]);
  switch (item->kind) {
  case ITEM_ONE:
    m->at += fits;
    return fits ? GO_ON : GO_BACK;
  case ITEM_OPTION:
    if (fits) {
      push_choice(m, m->at, m->at);
      m->at++;
    }
    return GO_ON;
  default: // ITEM_FEW
    push_choice(m, m->at, m->at);
    return GO_ON;
  }
}

static enum verdict take(struct matcher *m, const struct pattern_item *item) {
  struct pattern *p = m->p;
  struct pattern_capture *capture = &p->captures[item->first % PATTERN_CAPTURES];
  switch (item->kind) {
  case ITEM_ONE:
  case ITEM_OPTION:
  case ITEM_FEW:
    return take_single(m, item);
  case ITEM_MANY:
    return take_run(m, item, 0);
  case ITEM_SOME:
    return take_run(m, item, 1);
  case ITEM_LITERAL:
    return take_bytes(m, p->text + item->offset, item->length);
  case ITEM_OPEN:
  case ITEM_PLACE:
    *capture = (struct pattern_capture){m->at, m->at, item->kind == ITEM_PLACE};
    return GO_ON;
  case ITEM_CLOSE:
    capture->end = m->at;
    return GO_ON;
  case ITEM_BALANCE:
    return take_balance(m, item);
  case ITEM_FRONTIER: {
    unsigned char before = m->at > 0 ? m->subject[m->at - 1] : 0;
    unsigned char here = m->at < m->length ? m->subject[m->at] : 0;
    const struct pattern_set *set = &p->sets[item->first];
    return !pattern_set_has(set, before) && pattern_set_has(set, here) ? GO_ON : GO_BACK;
  }
  case ITEM_BACK:
    return take_bytes(m, m->subject + capture->start, capture->end - capture->start);
  case ITEM_FINISH:
    return m->at == m->length ? GO_ON : GO_BACK;
  case ITEM_MATCHED:
    return MATCHED;
  case ITEM_PROBLEM:
    p->problem = pattern_problem(item->first);
    return BROKEN;
  default: // ITEM_NEVER
    return GO_BACK;
  }
}

// To the latest choice that has another way left. False: there is none.
static bool go_back(struct matcher *m) {
  while (m->choice_count > 0) {
    struct pattern_choice *choice = &m->p->choices[m->choice_count - 1];
    const struct pattern_item *item = &m->p->items[choice->item];
    m->item = choice->item;
    if (item->kind == ITEM_OPTION) {
      m->at = choice->at;
      m->choice_count--;
      return true;
    }
    if (item->kind == ITEM_FEW) {
      if (choice->at < m->length && passes(m->p, item, m->subject[choice->at])) {
        m->at = ++choice->at;
        return true;
      }
      m->choice_count--;
    } else {
      m->at = --choice->at;
      if (choice->at == choice->least) {
        m->choice_count--;
      }
      return true;
    }
  }
  return false;
}

int pattern_match(struct pattern *p, const char *subject, size_t length, size_t start,
                  uint64_t *steps, size_t *end) {
  struct matcher m = {.p = p,
                      .subject = (const unsigned char *)subject,
                      .length = length,
                      .steps = steps,
                      .at = start};
  for (;;) {
    enum verdict verdict = SPENT;
    if (spend(steps, 1)) {
      verdict = take(&m, &p->items[m.item]);
    }
    if (verdict == GO_BACK) {
      if (!go_back(&m)) {
        return 0;
      }
    } else if (verdict == MATCHED) {
      *end = m.at;
      return 1;
    } else if (verdict == BROKEN) {
      return ERR_SYNTAX;
    } else if (verdict == SPENT) {
      return ERR_INSTRUCTIONS;
    }
    m.item++;
  }
}

// The first place from `at` on where a match that begins with a known byte can begin; length + 1 if
// there is none. Others can begin anywhere.
static size_t next_start(const struct pattern *p, const char *subject, size_t length, size_t at) {
  const struct pattern_item *item = &p->items[0];
  unsigned char byte = item->first;
  if (item->kind == ITEM_LITERAL) {
    byte = (unsigned char)p->text[item->offset];
  } else if ((item->kind != ITEM_ONE && item->kind != ITEM_SOME) || item->test != TEST_BYTE) {
    return at;
  }
  const char *found = at < length ? memchr(subject + at, byte, length - at) : NULL;
  return found != NULL ? (size_t)(found - subject) : length + 1;
}

int pattern_search(struct pattern *p, const char *subject, size_t length, size_t *start,
                   uint64_t *steps, size_t *end) {
  for (size_t at = *start; at <= length; at++) {
    if (!p->anchored) {
      size_t next = next_start(p, subject, length, at);
      if (!spend(steps, (next - at) / 16)) {
        return ERR_INSTRUCTIONS;
      }
      if (next > length) {
        break;
      }
      at = next;
    }
    int found = pattern_match(p, subject, length, at, steps, end);
    if (found != 0) {
      *start = at;
      return found;
    }
    if (p->anchored) {
      break;
    }
  }
  return 0;
}

int pattern_find_plain(const char *subject, size_t length, const char *needle, size_t needle_length,
                       size_t *start, uint64_t *steps) {
  if (*start > length) {
    return 0;
  }
  // memmem of the C library is linear (two-way); 8 bytes of it cost less than one step elsewhere.
  size_t room = length - *start;
  const char *found = memmem(subject + *start, room, needle, needle_length);
  size_t looked_at = found != NULL ? (size_t)(found - subject) - *start + needle_length : room;
  if (!spend(steps, 1 + looked_at / 8)) {
    return ERR_INSTRUCTIONS;
  }
  if (found == NULL) {
    return 0;
  }
  *start = (size_t)(found - subject);
  return 1;
}
