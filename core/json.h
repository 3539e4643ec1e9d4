// SPDX-License-Identifier: MIT
#ifndef FARCALL_JSON_H
#define FARCALL_JSON_H

// The strict JSON codec: RFC 8259 to the letter, in UTF-8. Refused are duplicate keys, NaN and
// Infinity, unpaired surrogates, bad UTF-8, control characters in strings, numbers that no double
// can hold, anything after the value. It is made for bytes that an enemy wrote: time and memory are
// linear in their size, nothing recurses. It knows nothing of Lua, and one document or writer
// belongs to one thread at a time.

#include <stddef.h>
#include <stdint.h>

enum json_type {
  JSON_NULL,
  JSON_FALSE,
  JSON_TRUE,
  JSON_NUMBER,
  JSON_INTEGER, // an integer beyond 2^53 either way: text holds its digits and sign
  JSON_STRING,
  JSON_ARRAY,
  JSON_OBJECT,
};

// One value, or one key (a JSON_STRING before each value of an object). The values of a container
// follow it, each with all that is inside it.
struct json_node {
  const char *text; // a string's bytes, unescaped; of anything else what stands in the text
  uint32_t size;    // of text
  uint32_t type;    // enum json_type
  union {
    double number;
    struct {
      uint32_t count; // elements of an array, pairs of an object
      uint32_t next;  // index of the node behind the container's last
    } in;
    struct {
      uint32_t at; // a string as it stands in the text, quotes included
      uint32_t size;
    } raw;
  } as;
};

struct json_limits {
  size_t max_bytes;  // of the text; never more than UINT32_MAX
  size_t max_values; // in all; keys are not counted
  size_t max_depth;  // of containers in each other
};

// A text taken apart. It keeps its memory for the next text; json_doc_trim gives it back.
struct json_doc {
  struct json_node *nodes;
  uint32_t count;
  uint32_t depth;     // of the deepest container
  size_t bad_at;      // after a failure: the offset of the first byte that is wrong
  const char *reason; // and why, static
  uint32_t room;
  char *unescaped;
  size_t unescaped_room;
  uint64_t *slots;
  size_t slots_room;
  uint64_t seed;
};

// An empty document; zeroed memory that has been given to json_doc_init is all it needs.
void json_doc_init(struct json_doc *doc);

// Frees what it holds; it is empty then and may be used again.
void json_doc_fini(struct json_doc *doc);

// Frees the memory of an unusually large text. The nodes are gone then.
void json_doc_trim(struct json_doc *doc);

// Takes text apart into doc->nodes[0..count), of which the first is the value. The nodes point into
// text and into the document, and are valid until either changes. 0; or ERR_SYNTAX, ERR_NUMBER,
// ERR_UTF8, ERR_DUPLICATE, ERR_DEPTH, ERR_LIMIT with bad_at and reason; or -ENOMEM.
int json_parse(struct json_doc *doc, const char *text, size_t size,
               const struct json_limits *limits);

// Text in the making. A failed write leaves the text cut off: give up, or set size back to what it
// was before.
struct json_writer {
  char *data;
  size_t size;
  size_t room;
  size_t max_bytes;
};

// Frees what it holds; zeroed memory is an empty writer with a limit of 0 bytes.
void json_writer_fini(struct json_writer *writer);

// Frees the memory of an unusually large text; the text is gone then.
void json_writer_trim(struct json_writer *writer);

// Appends bytes as they are. 0, ERR_LIMIT or -ENOMEM.
int json_write_raw(struct json_writer *writer, const char *bytes, size_t size);

// Appends a string with its quotes. 0, ERR_UTF8, ERR_LIMIT or -ENOMEM.
int json_write_string(struct json_writer *writer, const char *bytes, size_t size);

// Appends the shortest text that reads as this number again (json_number.h). 0, ERR_NUMBER for NaN
// and the infinities, ERR_LIMIT or -ENOMEM.
int json_write_number(struct json_writer *writer, double number);

#endif
