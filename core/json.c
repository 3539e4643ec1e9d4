// SPDX-License-Identifier: MIT
#include "json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

#include "err.h"
#include "json_number.h"
#include "json_scan.h"

// Up to so many keys of an object are compared each with each; beyond that through a hash table.
enum { FEW_KEYS = 12 };

// Memory up to this size is kept for the next text.
enum { KEPT = 64 * 1024 };

#define NO_PARENT UINT32_MAX

struct reader {
  struct json_doc *doc;
  const struct json_limits *limits;
  const uint8_t *start;
  const uint8_t *at;
  const uint8_t *end;
  size_t values;
  uint32_t parent; // index of the innermost open container, whose as.in.next is its own parent
  uint32_t depth;
  char *unescaped; // where the next unescaped string goes
};

void json_doc_init(struct json_doc *doc) {
  *doc = (struct json_doc){0};
  // Only makes collisions of keys hard to arrange; a system without randomness still works.
  if (getrandom(&doc->seed, sizeof doc->seed, GRND_NONBLOCK) != (ssize_t)sizeof doc->seed) {
    doc->seed = (uint64_t)(uintptr_t)doc;
  }
}

void json_doc_fini(struct json_doc *doc) {
  free(doc->nodes);
  free(doc->unescaped);
  free(doc->slots);
  uint64_t seed = doc->seed;
  *doc = (struct json_doc){.seed = seed};
}

void json_doc_trim(struct json_doc *doc) {
  size_t held =
      doc->room * sizeof *doc->nodes + doc->unescaped_room + doc->slots_room * sizeof *doc->slots;
  if (held > KEPT) {
    json_doc_fini(doc);
  }
}

static int refuse(struct reader *reader, int code, const uint8_t *where, const char *reason) {
  reader->doc->bad_at = (size_t)(where - reader->start);
  reader->doc->reason = reason;
  return code;
}

static int refuse_syntax(struct reader *reader, const char *reason) {
  if (reader->at == reader->end) {
    reason = "the text ends too early";
  }
  return refuse(reader, ERR_SYNTAX, reader->at, reason);
}

static inline void skip_blanks(struct reader *reader) {
  const uint8_t *p = reader->at;
  while (p < reader->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
    p++;
  }
  reader->at = p;
}

static int grow_nodes(struct json_doc *doc) {
  uint32_t room = doc->room == 0 ? 64 : doc->room * 2;
  if (room < doc->room) {
    return -ENOMEM;
  }
  struct json_node *nodes = realloc(doc->nodes, room * sizeof *nodes);
  if (nodes == NULL) {
    return -ENOMEM;
  }
  doc->nodes = nodes;
  doc->room = room;
  return 0;
}

// The next node, whose text starts where the reader is; NULL when there is no memory.
static inline struct json_node *add_node(struct reader *reader, enum json_type type) {
  struct json_doc *doc = reader->doc;
  if (doc->count == doc->room && grow_nodes(doc) != 0) {
    return NULL;
  }
  struct json_node *node = &doc->nodes[doc->count++];
  node->text = (const char *)reader->at;
  node->type = type;
  return node;
}

static int hex4(const uint8_t *p, const uint8_t *end, const uint8_t **bad) {
  int value = 0;
  for (int i = 0; i < 4; i++, p++) {
    int digit = -1;
    if (p < end) {
      digit = *p >= '0' && *p <= '9'   ? *p - '0'
              : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
              : *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
                                       : -1;
    }
    if (digit < 0) {
      *bad = p;
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

static char *put_utf8(char *out, uint32_t code) {
  if (code < 0x80) {
    *out++ = (char)code;
    return out;
  }
  if (code < 0x800) {
    *out++ = (char)(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      *out++ = (char)(0xE0 | code >> 12);
    } else {
      *out++ = (char)(0xF0 | code >> 18);
      *out++ = (char)(0x80 | (code >> 12 & 63));
    }
    *out++ = (char)(0x80 | (code >> 6 & 63));
  }
  *out++ = (char)(0x80 | (code & 63));
  return out;
}

// At the 'u' of an escape.
static int read_code(struct reader *reader, char **out) {
  const uint8_t *escape = reader->at - 1;
  const uint8_t *end = reader->end;
  const uint8_t *bad = NULL;
  int code = hex4(escape + 2, end, &bad);
  int low = 0;
  size_t size = 6;
  if (code >= 0xD800 && code < 0xE000) {
    bool is_pair = code < 0xDC00 && end - escape >= 8 && escape[6] == '\\' && escape[7] == 'u';
    low = is_pair ? hex4(escape + 8, end, &bad) : 0;
    if (low >= 0 && (low < 0xDC00 || low >= 0xE000)) {
      return refuse(reader, ERR_UTF8, escape, "half of a surrogate pair");
    }
    size = 12;
  }
  if (code < 0 || low < 0) {
    reader->at = bad;
    return refuse_syntax(reader, "four hexadecimal digits are missing");
  }
  uint32_t point = (uint32_t)code;
  if (size == 12) {
    point = 0x10000 + ((point & 0x3FF) << 10 | ((uint32_t)low & 0x3FF));
  }
  *out = put_utf8(*out, point);
  reader->at = escape + size;
  return 0;
}

static int read_escape(struct reader *reader, char **out) {
  static const char letters[256] = {['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
                                    ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};
  if (++reader->at == reader->end) {
    return refuse_syntax(reader, NULL);
  }
  if (*reader->at == 'u') {
    return read_code(reader, out);
  }
  char letter = letters[*reader->at];
  if (letter == 0) {
    return refuse_syntax(reader, "an escape that JSON does not have");
  }
  *(*out)++ = letter;
  reader->at++;
  return 0;
}

// Room for all strings with escapes from here on: what is unescaped is never larger.
static char *unescaped_room(struct reader *reader, const uint8_t *from) {
  struct json_doc *doc = reader->doc;
  if (reader->unescaped == NULL) {
    size_t room = (size_t)(reader->end - from);
    if (doc->unescaped_room < room) {
      char *fresh = realloc(doc->unescaped, room);
      if (fresh == NULL) {
        return NULL;
      }
      doc->unescaped = fresh;
      doc->unescaped_room = room;
    }
    reader->unescaped = doc->unescaped;
  }
  return reader->unescaped;
}

// Goes over plain characters up to a quote or an escape.
static int skip_characters(struct reader *reader) {
  while ((reader->at = scan_plain(reader->at, reader->end)) < reader->end) {
    const uint8_t *p = reader->at;
    if (*p < 0x80) {
      if (*p < 0x20) {
        return refuse_syntax(reader, "a control character in a string");
      }
      return 0;
    }
    size_t step = scan_utf8(p, reader->end);
    if (step == 0) {
      return refuse(reader, ERR_UTF8, p, "not valid UTF-8");
    }
    reader->at += step;
  }
  return refuse_syntax(reader, NULL);
}

// The rest of a string from its first escape on; from is its first byte.
static int read_escaped(struct reader *reader, struct json_node *node, const uint8_t *from) {
  char *first = unescaped_room(reader, from);
  if (first == NULL) {
    return -ENOMEM;
  }
  char *out = first;
  int failed = 0;
  while (failed == 0) {
    size_t run = (size_t)(reader->at - from);
    memcpy(out, from, run);
    out += run;
    if (*reader->at == '"') {
      node->text = first;
      node->size = (uint32_t)(out - first);
      reader->unescaped = out;
      return 0;
    }
    failed = read_escape(reader, &out);
    from = reader->at;
    if (failed == 0) {
      failed = skip_characters(reader);
    }
  }
  return failed;
}

// At the opening quote.
static int read_string(struct reader *reader) {
  struct json_node *node = add_node(reader, JSON_STRING);
  if (node == NULL) {
    return -ENOMEM;
  }
  const uint8_t *quote = reader->at++;
  const uint8_t *from = reader->at;
  int failed = skip_characters(reader);
  if (failed != 0) {
    return failed;
  }
  if (*reader->at == '"') {
    node->text = (const char *)from;
    node->size = (uint32_t)(reader->at - from);
  } else {
    failed = read_escaped(reader, node, from);
    if (failed != 0) {
      return failed;
    }
  }
  reader->at++;
  node->as.raw.at = (uint32_t)(quote - reader->start);
  node->as.raw.size = (uint32_t)(reader->at - quote);
  return 0;
}

static int read_number(struct reader *reader) {
  struct json_number number;
  const uint8_t *from = reader->at;
  if (json_number_read((const char *)from, (size_t)(reader->end - from), &number) != 0) {
    reader->at += number.size;
    if (reader->at == reader->end) {
      return refuse_syntax(reader, NULL);
    }
    return refuse(reader, ERR_NUMBER, reader->at, number.why);
  }
  struct json_node *node = add_node(reader, number.is_large ? JSON_INTEGER : JSON_NUMBER);
  if (node == NULL) {
    return -ENOMEM;
  }
  node->size = (uint32_t)number.size;
  node->as.number = number.value;
  reader->at += number.size;
  return 0;
}

static int read_word(struct reader *reader, enum json_type type, const char *word, uint32_t size) {
  struct json_node *node = add_node(reader, type);
  if (node == NULL) {
    return -ENOMEM;
  }
  node->size = size;
  for (uint32_t i = 0; i < size; i++, reader->at++) {
    if (reader->at == reader->end || *reader->at != (uint8_t)word[i]) {
      return refuse_syntax(reader, "not a value that JSON has");
    }
  }
  return 0;
}

static int refuse_value(struct reader *reader) {
  if (reader->at < reader->end && strchr("+.NI", *reader->at) != NULL && *reader->at != 0) {
    return refuse(reader, ERR_NUMBER, reader->at, "not a number that JSON has");
  }
  return refuse_syntax(reader, "a value is missing");
}

// A string, number or word.
static int read_scalar(struct reader *reader) {
  switch (reader->at < reader->end ? *reader->at : 0) {
  case '"':
    return read_string(reader);
  case 't':
    return read_word(reader, JSON_TRUE, "true", 4);
  case 'f':
    return read_word(reader, JSON_FALSE, "false", 5);
  case 'n':
    return read_word(reader, JSON_NULL, "null", 4);
  case '-':
  case '0':
  case '1':
  case '2':
  case '3':
  case '4':
  case '5':
  case '6':
  case '7':
  case '8':
  case '9':
    return read_number(reader);
  default:
    return refuse_value(reader);
  }
}

static int open_container(struct reader *reader, enum json_type type) {
  if (reader->depth >= reader->limits->max_depth) {
    return refuse(reader, ERR_DEPTH, reader->at, "nested too deeply");
  }
  struct json_node *node = add_node(reader, type);
  if (node == NULL) {
    return -ENOMEM;
  }
  node->as.in.count = 0;
  node->as.in.next = reader->parent;
  reader->parent = reader->doc->count - 1;
  if (++reader->depth > reader->doc->depth) {
    reader->doc->depth = reader->depth;
  }
  reader->at++;
  return 0;
}

// The node behind this one and all that is in it.
static inline uint32_t node_next(const struct json_node *nodes, uint32_t i) {
  return nodes[i].type < JSON_ARRAY ? i + 1 : nodes[i].as.in.next;
}

static inline bool same_text(const struct json_node *a, const struct json_node *b) {
  return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

static uint64_t mix(uint64_t a, uint64_t b) {
  __extension__ typedef unsigned __int128 wide;
  wide product = (wide)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash(uint64_t seed, const char *text, size_t size) {
  const uint64_t odd = UINT64_C(0x9E3779B97F4A7C15);
  uint64_t sum = mix(seed ^ odd, size ^ odd);
  uint64_t word;
  for (; size >= sizeof word; text += sizeof word, size -= sizeof word) {
    memcpy(&word, text, sizeof word);
    sum = mix(sum ^ word, seed | 1) + odd;
  }
  word = 0;
  if (size > 0) {
    memcpy(&word, text, size);
  }
  return mix(sum ^ word, seed ^ odd);
}

static int refuse_key(struct reader *reader, const struct json_node *key) {
  return refuse(reader, ERR_DUPLICATE, reader->start + key->as.raw.at,
                "the same key twice in one object");
}

// Slots hold the upper half of a hash and the index of a key, which is never 0.
static int check_many_keys(struct reader *reader, uint32_t object) {
  struct json_doc *doc = reader->doc;
  const struct json_node *nodes = doc->nodes;
  size_t slots = 64;
  while (slots < (size_t)nodes[object].as.in.count * 2) {
    slots *= 2;
  }
  if (slots > doc->slots_room) {
    free(doc->slots);
    doc->slots_room = 0;
    doc->slots = malloc(slots * sizeof *doc->slots);
    if (doc->slots == NULL) {
      return -ENOMEM;
    }
    doc->slots_room = slots;
  }
  memset(doc->slots, 0, slots * sizeof *doc->slots);
  for (uint32_t i = object + 1; i < doc->count; i = node_next(nodes, i + 1)) {
    uint64_t sum = hash(doc->seed, nodes[i].text, nodes[i].size);
    uint64_t upper = sum & ~(uint64_t)UINT32_MAX;
    size_t slot = sum & (slots - 1);
    for (; doc->slots[slot] != 0; slot = (slot + 1) & (slots - 1)) {
      uint32_t other = (uint32_t)doc->slots[slot];
      if ((doc->slots[slot] & ~(uint64_t)UINT32_MAX) == upper &&
          same_text(&nodes[other], &nodes[i])) {
        return refuse_key(reader, &nodes[i]);
      }
    }
    doc->slots[slot] = upper | i;
  }
  return 0;
}

static int check_keys(struct reader *reader, uint32_t object) {
  const struct json_node *nodes = reader->doc->nodes;
  uint32_t count = nodes[object].as.in.count;
  if (count > FEW_KEYS) {
    return check_many_keys(reader, object);
  }
  const struct json_node *keys[FEW_KEYS];
  uint32_t at = object + 1;
  for (uint32_t i = 0; i < count; i++) {
    keys[i] = &nodes[at];
    for (uint32_t j = 0; j < i; j++) {
      if (same_text(keys[i], keys[j])) {
        return refuse_key(reader, keys[i]);
      }
    }
    at = node_next(nodes, at + 1);
  }
  return 0;
}

// At the closing bracket of the innermost container.
static int close_container(struct reader *reader) {
  struct json_doc *doc = reader->doc;
  uint32_t index = reader->parent;
  struct json_node *node = &doc->nodes[index];
  reader->parent = node->as.in.next;
  reader->depth--;
  reader->at++;
  node->as.in.next = doc->count;
  node->size = (uint32_t)(reader->at - (const uint8_t *)node->text);
  return node->type == JSON_OBJECT && node->as.in.count > 1 ? check_keys(reader, index) : 0;
}

// A key and the colon behind it.
static int read_key(struct reader *reader) {
  if (reader->at == reader->end || *reader->at != '"') {
    return refuse_syntax(reader, "a key is missing");
  }
  int failed = read_string(reader);
  if (failed != 0) {
    return failed;
  }
  skip_blanks(reader);
  if (reader->at == reader->end || *reader->at != ':') {
    return refuse_syntax(reader, "a colon is missing");
  }
  reader->at++;
  skip_blanks(reader);
  return 0;
}

static inline bool is_at(const struct reader *reader, uint8_t byte) {
  return reader->at < reader->end && *reader->at == byte;
}

// Behind a value: closes what ends here. *done when the outermost value has ended, otherwise the
// reader is where the next value starts.
static int read_between(struct reader *reader, bool *done) {
  for (;;) {
    skip_blanks(reader);
    if (reader->parent == NO_PARENT) {
      *done = true;
      return reader->at == reader->end ? 0 : refuse_syntax(reader, "more than one value");
    }
    struct json_node *parent = &reader->doc->nodes[reader->parent];
    bool is_object = parent->type == JSON_OBJECT;
    if (is_at(reader, ',')) {
      reader->at++;
      parent->as.in.count++;
      skip_blanks(reader);
      return is_object ? read_key(reader) : 0;
    }
    if (!is_at(reader, is_object ? '}' : ']')) {
      return refuse_syntax(reader,
                           is_object ? "a comma or } is missing" : "a comma or ] is missing");
    }
    int failed = close_container(reader);
    if (failed != 0) {
      return failed;
    }
  }
}

// A value, or the opening of one and of those that it starts with.
static int read_value(struct reader *reader) {
  for (;;) {
    if (reader->values++ == reader->limits->max_values) {
      return refuse(reader, ERR_LIMIT, reader->at, "more values than the limit");
    }
    bool is_object = is_at(reader, '{');
    if (!is_object && !is_at(reader, '[')) {
      return read_scalar(reader);
    }
    int failed = open_container(reader, is_object ? JSON_OBJECT : JSON_ARRAY);
    if (failed != 0) {
      return failed;
    }
    skip_blanks(reader);
    if (is_at(reader, is_object ? '}' : ']')) {
      return close_container(reader);
    }
    reader->doc->nodes[reader->parent].as.in.count = 1;
    if (is_object) {
      failed = read_key(reader);
      if (failed != 0) {
        return failed;
      }
    }
  }
}

int json_parse(struct json_doc *doc, const char *text, size_t size,
               const struct json_limits *limits) {
  const uint8_t *start = (const uint8_t *)text;
  struct reader reader = {
      .doc = doc, .limits = limits, .start = start, .at = start, .parent = NO_PARENT};
  reader.end = start + size;
  doc->count = 0;
  doc->depth = 0;
  size_t max_bytes = limits->max_bytes < UINT32_MAX ? limits->max_bytes : UINT32_MAX;
  if (size > max_bytes) {
    return refuse(&reader, ERR_LIMIT, start + max_bytes, "larger than the limit");
  }
  skip_blanks(&reader);
  bool done = false;
  int failed = 0;
  while (failed == 0 && !done) {
    failed = read_value(&reader);
    if (failed == 0) {
      failed = read_between(&reader, &done);
    }
  }
  return failed;
}
