// SPDX-License-Identifier: MIT
// pattern: the first byte is the length of the pattern, the rest the subject. A match lies within
// the subject, as do its captures; it never costs more than its budget; a pattern without special
// bytes finds what the plain search finds; searching from a match's beginning finds it again.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "err.h"
#include "pattern.h"

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

static void check_captures(const struct pattern *p, size_t length) {
  for (unsigned i = 0; i < p->capture_count; i++) {
    const struct pattern_capture *capture = &p->captures[i];
    check(capture->start <= capture->end && capture->end <= length);
  }
}

static void check_plain(const char *subject, size_t length, const char *text, size_t text_length,
                        int found, size_t start) {
  size_t place = 0;
  uint64_t steps = UINT64_MAX;
  check(pattern_find_plain(subject, length, text, text_length, &place, &steps) == found);
  check(found == 0 || place == start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) {
    return 0;
  }
  static struct pattern p;
  const char *text = (const char *)data + 1;
  size_t text_length = data[0] < size - 1 ? data[0] : size - 1;
  const char *subject = text + text_length;
  size_t length = size - 1 - text_length;
  for (int anchors = 0; anchors < 2; anchors++) {
    int code = pattern_compile(&p, text, text_length, anchors);
    check(code == 0 || code == ERR_DEPTH);
    if (code != 0) {
      return 0;
    }
    size_t start = 0;
    size_t end = 0;
    uint64_t budget = 100000;
    uint64_t steps = budget;
    int found = pattern_search(&p, subject, length, &start, &steps, &end);
    check(steps <= budget);
    check(found == 1 || found == 0 || found == ERR_SYNTAX || found == ERR_INSTRUCTIONS);
    check((found == ERR_SYNTAX) == (p.problem != NULL));
    check(found != ERR_INSTRUCTIONS || steps == 0);
    if (found == 1) {
      check(start <= end && end <= length && (!p.anchored || start == 0));
      check_captures(&p, length);
      size_t again = 0;
      steps = budget;
      check(pattern_match(&p, subject, length, start, &steps, &again) == 1 && again == end);
    }
    if (found >= 0 && pattern_is_plain(text, text_length)) {
      check_plain(subject, length, text, text_length, found, start);
    }
  }
  return 0;
}
