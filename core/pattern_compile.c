// SPDX-License-Identifier: MIT
#include <string.h>

#include "err.h"
#include "pattern_item.h"

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

const char *pattern_problem(unsigned problem) {
  return PROBLEMS[problem];
}

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

bool pattern_in_class(unsigned char byte, unsigned char letter) {
  bool complement = letter < 'a';
  return in_lower_class(byte, letter | 0x20) != complement;
}

static void set_add(struct pattern_set *set, unsigned byte) {
  set->bits[byte >> 6] |= (uint64_t)1 << (byte & 63);
}

static struct pattern_item *add_item(struct compiler *c, enum pattern_kind kind) {
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
    if (pattern_in_class((unsigned char)byte, letter)) {
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
static void add_single(struct compiler *c, enum pattern_test test, unsigned char first) {
  enum pattern_kind kind = ITEM_ONE;
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

bool pattern_is_plain(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (is_special((unsigned char)text[i]) && text[i] != ')') {
      return false;
    }
  }
  return true;
}
