// SPDX-License-Identifier: MIT
// json: a text is either refused with an offset inside it, or its nodes hold together, and what is
// written from them is read as the same nodes and written as the same text. A number is written so
// that this codec and the C library both read the very same double.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "json.h"
#include "json_number.h"

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

static void write_scalar(struct json_writer *writer, const struct json_node *node) {
  switch (node->type) {
  case JSON_NUMBER:
    check(json_write_number(writer, node->as.number) == 0);
    break;
  case JSON_STRING:
    check(json_write_string(writer, node->text, node->size) == 0);
    break;
  default:
    check(json_write_raw(writer, node->text, node->size) == 0);
    break;
  }
}

// Writes the value at index and returns the index behind it.
static uint32_t write_value(struct json_writer *writer, const struct json_doc *doc,
                            uint32_t index) {
  const struct json_node *node = &doc->nodes[index];
  if (node->type < JSON_ARRAY) {
    write_scalar(writer, node);
    return index + 1;
  }
  bool is_object = node->type == JSON_OBJECT;
  check(json_write_raw(writer, is_object ? "{" : "[", 1) == 0);
  index++;
  for (uint32_t i = 0; i < node->as.in.count; i++) {
    if (i > 0) {
      check(json_write_raw(writer, ",", 1) == 0);
    }
    if (is_object) {
      check(doc->nodes[index].type == JSON_STRING);
      write_scalar(writer, &doc->nodes[index++]);
      check(json_write_raw(writer, ":", 1) == 0);
    }
    index = write_value(writer, doc, index);
  }
  check(index == node->as.in.next);
  check(json_write_raw(writer, is_object ? "}" : "]", 1) == 0);
  return index;
}

static bool same_double(double a, double b) {
  uint64_t bits[2];
  memcpy(&bits[0], &a, sizeof a);
  memcpy(&bits[1], &b, sizeof b);
  return bits[0] == bits[1];
}

static bool same_node(const struct json_node *a, const struct json_node *b) {
  if (a->type != b->type) {
    return false;
  }
  switch (a->type) {
  case JSON_NUMBER:
    return same_double(a->as.number, b->as.number);
  case JSON_ARRAY:
  case JSON_OBJECT:
    return a->as.in.count == b->as.in.count && a->as.in.next == b->as.in.next;
  default:
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
  }
}

static void check_text(const char *text, size_t size, const struct json_limits *limits) {
  struct json_doc doc;
  struct json_doc again;
  struct json_writer writer = {.max_bytes = SIZE_MAX};
  json_doc_init(&doc);
  json_doc_init(&again);
  int failed = json_parse(&doc, text, size, limits);
  if (failed != 0) {
    check(failed < -4095 && doc.bad_at <= size && doc.reason != NULL);
  } else {
    check(doc.count > 0 && doc.depth <= limits->max_depth);
    check(write_value(&writer, &doc, 0) == doc.count);
    // The same values may take more bytes: 1e-3 is written as 0.001.
    struct json_limits longer = *limits;
    longer.max_bytes = SIZE_MAX;
    check(json_parse(&again, writer.data, writer.size, &longer) == 0);
    check(again.count == doc.count && again.depth == doc.depth);
    for (uint32_t i = 0; i < doc.count; i++) {
      check(same_node(&doc.nodes[i], &again.nodes[i]));
    }
    size_t written = writer.size;
    char *first = malloc(written);
    check(first != NULL);
    memcpy(first, writer.data, written);
    writer.size = 0;
    write_value(&writer, &again, 0);
    check(writer.size == written && memcmp(first, writer.data, written) == 0);
    free(first);
  }
  json_writer_fini(&writer);
  json_doc_fini(&again);
  json_doc_fini(&doc);
}

static void check_number(const uint8_t *data) {
  double number;
  memcpy(&number, data, sizeof number);
  char text[JSON_NUMBER_ROOM + 1];
  size_t size = json_number_write(number, text);
  if (size == 0) {
    check(number != number || number - number != 0);
    return;
  }
  text[size] = '\0';
  struct json_number read;
  check(json_number_read(text, size, &read) == 0 && read.size == size && !read.is_large);
  check(same_double(read.value, number));
  check(same_double(strtod(text, NULL), number));
}

// What this codec reads as a number, the C library reads as the same.
static void check_decimal(const uint8_t *data, size_t size) {
  struct json_number read;
  if (json_number_read((const char *)data, size, &read) == 0 && !read.is_large) {
    char *text = malloc(read.size + 1);
    check(text != NULL);
    memcpy(text, data, read.size);
    text[read.size] = '\0';
    check(same_double(strtod(text, NULL), read.value));
    free(text);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct json_limits usual = {
      .max_bytes = 1 << 20, .max_values = 1 << 16, .max_depth = 64};
  static const struct json_limits small = {.max_bytes = 64, .max_values = 8, .max_depth = 3};
  check_text((const char *)data, size, &usual);
  check_text((const char *)data, size, &small);
  check_decimal(data, size);
  if (size >= sizeof(double)) {
    check_number(data);
  }
  return 0;
}
