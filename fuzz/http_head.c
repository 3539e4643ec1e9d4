// SPDX-License-Identifier: MIT
// http_head: every field lies within the text, in order, with a name of token characters and a
// value without blanks at its ends; the text is used up at the end.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http_head.h"

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // Of the exact size, so that a byte too far is seen.
  char *text = malloc(size > 0 ? size : 1);
  memcpy(text, data, size);
  const char *head = text;
  const char *last = text;
  size_t left = size;
  struct http_field field;
  while (http_head_next(&head, &left, &field)) {
    check(field.name >= last && field.name_size > 0);
    check(field.name[field.name_size] == ':');
    check(memchr(field.name, ':', field.name_size) == NULL);
    check(field.value > field.name + field.name_size);
    check(field.value + field.value_size <= head && head + left == text + size);
    check(memchr(field.value, '\n', field.value_size) == NULL);
    check(field.value_size == 0 ||
          (!is_blank(field.value[0]) && !is_blank(field.value[field.value_size - 1])));
    last = field.value + field.value_size;
  }
  check(left == 0);
  free(text);
  return 0;
}
