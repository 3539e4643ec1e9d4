// SPDX-License-Identifier: MIT
#ifndef FARCALL_HTTP_HEAD_H
#define FARCALL_HTTP_HEAD_H

// The fields in the head of an HTTP message. Everything is borrowed from the text that is read.

#include <stdbool.h>
#include <stddef.h>

struct http_field {
  const char *name;  // of the characters that RFC 9110 lets names have; as it came
  size_t name_size;  // at least 1
  const char *value; // without blanks at its ends; may hold any byte but a line feed
  size_t value_size;
};

// Takes the next field off the front of *head, which shrinks; lines that are none are passed over.
// False at the end.
bool http_head_next(const char **head, size_t *size, struct http_field *field);

#endif
