// SPDX-License-Identifier: MIT
#include "pattern.h"

#include <string.h>

#include "err.h"

enum kind {
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

enum test { TEST_BYTE, TEST_ANY, TEST_CLASS, TEST_SET };

enum problem {
  PROBLEM_ESCAPE,
  PROBLEM_SET,
  PROBLEM_BALANCE,
  PROBLEM_FRONTIER,
  PROBLEM_INDEX,
  PROBLEM_CAPTURES,
  PROBLEM_CLOSE,
  PROBLEM_UNFINISHED
};

static const char *const PROBLEMS[] = {
    [PROBLEM_ESCAPE] = "malformed pattern (ends with '%')",
    [PROBLEM_SET] = "malformed pattern (missing ']')",
    [PROBLEM_BALANCE] = "malformed pattern (missing arguments to '%b')",
    [PROBLEM_FRONTIER] = "malformed pattern (missing '[' after '%f')",
    [PROBLEM_INDEX] = "invalid capture index",
    [PROBLEM_CAPTURES] = "too many captures",
    [PROBLEM_CLOSE] = "invalid pattern capture",
    [PROBLEM_UNFINISHED] = "unfinished capture",
};

struct compiler {
  struct pattern *p;
  const unsigned char *at;
  const unsigned char *stop;
  unsigned open[PATTERN_CAPTURES]; // captures that are open, innermost last
  unsigned open_count;
  uint32_t closed; // a bit for each capture that has an end
  uint32_t places; // a bit for each position capture
  bool crowded;
  bool done;
};

// A lower-case letter as it stands after %; bytes beyond ASCII are in no class.
static bool in_lower_class(unsigned char byte, unsigned char letter) {
  bool lower = byte >= 'a' && byte <= 'z';
  bool upper = byte >= 'A' && byte <= 'Z';
  bool digit = byte >= '0' && byte <= '9';
  bool graphic = byte > 0x20 && byte < 0x7F;
  switch (letter) {
  case 'a':
    return lower || upper;
  case 'c':
    return byte < 0x20 || byte == 0x7F;
  case 'd':
    return digit;
  case 'g':
    return graphic;
  case 'l':
    return lower;
  case 'p':
    return graphic && !lower && !upper && !digit;
  case 's':
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
  case 'u':
    return upper;
  case 'w':
    return lower || upper || digit;
  case 'x':
    return digit || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
  default: // z
    return byte == 0;
  }
}

static bool is_class(unsigned char letter) {
  return letter != 0 && strchr("acdglpsuwxz", letter | 0x20) != NULL &&
         ((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z'));
}

// Whether a byte may mean more than itself where an item can begin.
static bool is_special(unsigned char byte) {
  return byte != 0 && strchr("^$*+?.([%-)", byte) != NULL;
}

static bool in_class(unsigned char byte, unsigned char letter) {
  bool complement = letter < 'a';
  return in_lower_class(byte, letter | 0x20) != complement;
}

static void set_add(struct pattern_set *set, unsigned byte) {
  set->bits[byte >> 6] |= (uint64_t)1 << (byte & 63);
}

static bool set_has(const struct pattern_set *set, unsigned char byte) {
  return (set->bits[byte >> 6] >> (byte & 63)) & 1;
}

static struct pattern_item *add_item(struct compiler *c, enum kind kind) {
  // One place is kept for the item that ends every pattern.
  if (c->p->item_count >= PATTERN_ITEMS - 1 && kind != ITEM_MATCHED && kind != ITEM_PROBLEM) {
    c->crowded = true;
    c->done = true;
    return NULL;
  }
  struct pattern_item *item = &c->p->items[c->p->item_count++];
  *item = (struct pattern_item){.kind = (uint8_t)kind};
  return item;
}

// What follows is never looked at: a match that gets here is an error.
static void add_problem(struct compiler *c, enum problem problem) {
  add_item(c, ITEM_PROBLEM)->first = (uint8_t)problem;
  c->done = true;
}

static void fill_class(struct pattern_set *set, unsigned char letter) {
  for (unsigned byte = 0; byte < 256; byte++) {
    if (in_class((unsigned char)byte, letter)) {
      set_add(set, byte);
    }
  }
}

// The ] that ends the set whose first member is at `at`, which may itself be a ].
static const unsigned char *find_set_end(const unsigned char *at, const unsigned char *stop) {
  do {
    if (at == stop) {
      return NULL;
    }
    if (*at++ == '%' && at < stop) {
      at++;
    }
  } while (at == stop || *at != ']');
  return at;
}

// c->at is behind the opening bracket. Returns the set's index, or -1 when compiling has ended.
static int compile_set(struct compiler *c) {
  bool complement = c->at < c->stop && *c->at == '^';
  const unsigned char *at = c->at + complement;
  const unsigned char *last = find_set_end(at, c->stop);
  if (last == NULL) {
    add_problem(c, PROBLEM_SET);
    return -1;
  }
  if (c->p->set_count == PATTERN_SETS) {
    c->crowded = true;
    c->done = true;
    return -1;
  }
  struct pattern_set *set = &c->p->sets[c->p->set_count];
  *set = (struct pattern_set){{0}};
  for (; at < last; at++) {
    if (*at == '%' && at + 1 < c->stop) {
      at++;
      if (is_class(*at)) {
        fill_class(set, *at);
      } else {
        set_add(set, *at);
      }
    } else if (at + 2 < last && at[1] == '-') {
      for (unsigned byte = at[0]; byte <= at[2]; byte++) {
        set_add(set, byte);
      }
      at += 2;
    } else {
      set_add(set, *at);
    }
  }
  if (complement) {
    for (int i = 0; i < 4; i++) {
      set->bits[i] = ~set->bits[i];
    }
  }
  c->at = last + 1;
  return (int)c->p->set_count++;
}

// A single byte's test and the repetition that may follow it.
static void add_single(struct compiler *c, enum test test, unsigned char first) {
  enum kind kind = ITEM_ONE;
  if (c->at < c->stop) {
    switch (*c->at) {
    case '?':
      kind = ITEM_OPTION;
      break;
    case '*':
      kind = ITEM_MANY;
      break;
    case '+':
      kind = ITEM_SOME;
      break;
    case '-':
      kind = ITEM_FEW;
      break;
    default:
      break;
    }
  }
  struct pattern_item *item = add_item(c, kind);
  if (item != NULL) {
    item->test = (uint8_t)test;
    item->first = first;
    c->at += kind != ITEM_ONE;
  }
}

static bool repeats(const struct compiler *c, const unsigned char *at) {
  return at < c->stop && (*at == '?' || *at == '*' || *at == '+' || *at == '-');
}

// As many plain bytes as stand here without a repetition make one item.
static void add_bytes(struct compiler *c) {
  const unsigned char *from = c->at;
  const unsigned char *to = from + 1;
  while (to < c->stop && !is_special(*to) && !repeats(c, to + 1)) {
    to++;
  }
  if (to - from == 1 || repeats(c, from + 1)) {
    c->at++;
    add_single(c, TEST_BYTE, *from);
    return;
  }
  struct pattern_item *item = add_item(c, ITEM_LITERAL);
  if (item != NULL) {
    item->offset = (size_t)(from - (const unsigned char *)c->p->text);
    item->length = (uint32_t)(to - from);
    c->at = to;
  }
}

static void add_open(struct compiler *c) {
  bool place = c->at < c->stop && *c->at == ')';
  if (c->p->capture_count == PATTERN_CAPTURES) {
    add_problem(c, PROBLEM_CAPTURES);
    return;
  }
  struct pattern_item *item = add_item(c, place ? ITEM_PLACE : ITEM_OPEN);
  if (item == NULL) {
    return;
  }
  unsigned index = c->p->capture_count++;
  item->first = (uint8_t)index;
  if (place) {
    c->at++;
    c->closed |= (uint32_t)1 << index;
    c->places |= (uint32_t)1 << index;
  } else {
    c->open[c->open_count++] = index;
  }
}

static void add_close(struct compiler *c) {
  if (c->open_count == 0) {
    add_problem(c, PROBLEM_CLOSE);
    return;
  }
  struct pattern_item *item = add_item(c, ITEM_CLOSE);
  if (item != NULL) {
    unsigned index = c->open[--c->open_count];
    item->first = (uint8_t)index;
    c->closed |= (uint32_t)1 << index;
  }
}

static void add_back(struct compiler *c, unsigned index) {
  if (index >= c->p->capture_count || !(c->closed >> index & 1)) {
    add_problem(c, PROBLEM_INDEX);
    return;
  }
  // A place has no bytes that could come again.
  struct pattern_item *item = add_item(c, c->places >> index & 1 ? ITEM_NEVER : ITEM_BACK);
  if (item != NULL) {
    item->first = (uint8_t)index;
  }
}

static void add_balance(struct compiler *c) {
  if (c->stop - c->at < 2) {
    add_problem(c, PROBLEM_BALANCE);
    return;
  }
  struct pattern_item *item = add_item(c, ITEM_BALANCE);
  if (item != NULL) {
    item->first = c->at[0];
    item->second = c->at[1];
    c->at += 2;
  }
}

static void add_frontier(struct compiler *c) {
  if (c->at == c->stop || *c->at != '[') {
    add_problem(c, PROBLEM_FRONTIER);
    return;
  }
  c->at++;
  int set = compile_set(c);
  if (set >= 0) {
    struct pattern_item *item = add_item(c, ITEM_FRONTIER);
    if (item != NULL) {
      item->first = (uint8_t)set;
    }
  }
}

// c->at is behind the percent sign.
static void add_escape(struct compiler *c) {
  if (c->at == c->stop) {
    add_problem(c, PROBLEM_ESCAPE);
    return;
  }
  unsigned char byte = *c->at++;
  if (byte == 'b') {
    add_balance(c);
  } else if (byte == 'f') {
    add_frontier(c);
  } else if (byte >= '1' && byte <= '9') {
    add_back(c, (unsigned)(byte - '1'));
  } else if (byte == '0') {
    add_problem(c, PROBLEM_INDEX);
  } else {
    add_single(c, is_class(byte) ? TEST_CLASS : TEST_BYTE, byte);
  }
}

static void add_next(struct compiler *c) {
  unsigned char byte = *c->at;
  if (byte == '(') {
    c->at++;
    add_open(c);
  } else if (byte == ')') {
    c->at++;
    add_close(c);
  } else if (byte == '%') {
    c->at++;
    add_escape(c);
  } else if (byte == '[') {
    c->at++;
    int set = compile_set(c);
    if (set >= 0) {
      add_single(c, TEST_SET, (unsigned char)set);
    }
  } else if (byte == '.') {
    c->at++;
    add_single(c, TEST_ANY, 0);
  } else if (byte == '$' && c->at + 1 == c->stop) {
    c->at++;
    add_item(c, ITEM_FINISH);
  } else {
    add_bytes(c);
  }
}

int pattern_compile(struct pattern *p, const char *text, size_t length, bool anchors) {
  struct compiler c = {.p = p, .at = (const unsigned char *)text};
  c.stop = c.at + length;
  p->text = text;
  p->problem = NULL;
  p->item_count = p->set_count = p->capture_count = 0;
  p->anchored = anchors && length > 0 && text[0] == '^';
  c.at += p->anchored;
  while (c.at < c.stop && !c.done) {
    add_next(&c);
  }
  if (c.crowded || length > UINT32_MAX) {
    return ERR_DEPTH;
  }
  if (!c.done) {
    if (c.open_count > 0) {
      add_problem(&c, PROBLEM_UNFINISHED);
    } else {
      add_item(&c, ITEM_MATCHED);
    }
  }
  return 0;
}

static bool passes(const struct pattern *p, const struct pattern_item *item, unsigned char byte) {
  switch (item->test) {
  case TEST_BYTE:
    return item->first == byte;
  case TEST_ANY:
    return true;
  case TEST_CLASS:
    return in_class(byte, item->first);
  default:
    return set_has(&p->sets[item->first], byte);
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
    return !set_has(set, before) && set_has(set, here) ? GO_ON : GO_BACK;
  }
  case ITEM_BACK:
    return take_bytes(m, m->subject + capture->start, capture->end - capture->start);
  case ITEM_FINISH:
    return m->at == m->length ? GO_ON : GO_BACK;
  case ITEM_MATCHED:
    return MATCHED;
  case ITEM_PROBLEM:
    p->problem = PROBLEMS[item->first];
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

bool pattern_is_plain(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (is_special((unsigned char)text[i]) && text[i] != ')') {
      return false;
    }
  }
  return true;
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
