// SPDX-License-Identifier: MIT
#include "http_head.h"

#include <string.h>

static bool is_token(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

static bool read_field(const char *line, size_t size, struct http_field *field) {
  size_t name = 0;
  while (name < size && is_token(line[name])) {
    name++;
  }
  if (name == 0 || name == size || line[name] != ':') {
    return false;
  }
  size_t start = name + 1;
  while (start < size && is_blank(line[start])) {
    start++;
  }
  while (size > start && is_blank(line[size - 1])) {
    size--;
  }
  *field = (struct http_field){
      .name = line, .name_size = name, .value = line + start, .value_size = size - start};
  return true;
}

bool http_head_next(const char **head, size_t *size, struct http_field *field) {
  while (*size > 0) {
    const char *line = *head;
    const char *newline = memchr(line, '\n', *size);
    size_t length = newline != NULL ? (size_t)(newline - line) : *size;
    size_t whole = newline != NULL ? length + 1 : length;
    *head += whole;
    *size -= whole;
    if (read_field(line, length, field)) {
      return true;
    }
  }
  return false;
}
