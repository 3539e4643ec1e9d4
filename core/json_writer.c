// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>

#include "err.h"
#include "json.h"
#include "json_number.h"
#include "json_scan.h"

// Memory up to this size is kept for the next text.
enum { KEPT = 64 * 1024, FIRST = 1024 };

void json_writer_fini(struct json_writer *writer) {
  free(writer->data);
  *writer = (struct json_writer){0};
}

void json_writer_trim(struct json_writer *writer) {
  if (writer->room > KEPT) {
    json_writer_fini(writer);
  }
}

// Makes room for more bytes. 0, ERR_LIMIT or -ENOMEM.
static int grow(struct json_writer *writer, size_t more) {
  if (more > writer->max_bytes || writer->size > writer->max_bytes - more) {
    return ERR_LIMIT;
  }
  size_t room = writer->room < FIRST ? FIRST : writer->room;
  while (room - writer->size < more) {
    if (room > SIZE_MAX / 2) {
      return -ENOMEM;
    }
    room *= 2;
  }
  char *data = realloc(writer->data, room);
  if (data == NULL) {
    return -ENOMEM;
  }
  writer->data = data;
  writer->room = room;
  return 0;
}

static inline int reserve(struct json_writer *writer, size_t more) {
  size_t limit = writer->room < writer->max_bytes ? writer->room : writer->max_bytes;
  if (limit >= writer->size && limit - writer->size >= more) {
    return 0;
  }
  return grow(writer, more);
}

int json_write_raw(struct json_writer *writer, const char *bytes, size_t size) {
  int failed = reserve(writer, size);
  if (failed == 0 && size > 0) {
    memcpy(writer->data + writer->size, bytes, size);
    writer->size += size;
  }
  return failed;
}

static int write_escape(struct json_writer *writer, uint8_t byte) {
  static const char digits[] = "0123456789abcdef";
  static const char letters[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                 ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
  char escape[6] = {'\\', letters[byte]};
  if (escape[1] != 0) {
    return json_write_raw(writer, escape, 2);
  }
  memcpy(escape + 1, "u00", 3);
  escape[4] = digits[byte >> 4];
  escape[5] = digits[byte & 15];
  return json_write_raw(writer, escape, sizeof escape);
}

int json_write_string(struct json_writer *writer, const char *bytes, size_t size) {
  const uint8_t *p = (const uint8_t *)bytes;
  const uint8_t *end = p + size;
  const uint8_t *from = p;
  int failed = json_write_raw(writer, "\"", 1);
  while (failed == 0 && (p = scan_plain(p, end)) < end) {
    if (*p >= 0x80) {
      size_t step = scan_utf8(p, end);
      if (step == 0) {
        return ERR_UTF8;
      }
      p += step;
      continue;
    }
    failed = json_write_raw(writer, (const char *)from, (size_t)(p - from));
    if (failed == 0) {
      failed = write_escape(writer, *p);
    }
    from = ++p;
  }
  if (failed == 0) {
    failed = json_write_raw(writer, (const char *)from, (size_t)(p - from));
  }
  return failed != 0 ? failed : json_write_raw(writer, "\"", 1);
}

int json_write_number(struct json_writer *writer, double number) {
  char text[JSON_NUMBER_ROOM];
  size_t size = json_number_write(number, text);
  return size == 0 ? ERR_NUMBER : json_write_raw(writer, text, size);
}
