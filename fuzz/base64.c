// SPDX-License-Identifier: MIT
// base64: every level agrees with the scalar one on any input, what decodes encodes to the same
// text, and what was encoded decodes to the same bytes. Buffers have the exact size that the
// header asks for, so that a byte too far is seen.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"

static void check(int holds) {
  if (!holds) {
    abort();
  }
}

struct decoded {
  int code;
  size_t size;
  size_t bad_at;
  uint8_t *bytes;
};

static struct decoded decode(const uint8_t *text, size_t size) {
  struct decoded d = {0, 0, 0, malloc(base64_decoded_max(size))};
  d.code = base64_decode((const char *)text, size, d.bytes, &d.size, &d.bad_at);
  return d;
}

static char *encode(const uint8_t *bytes, size_t size) {
  char *text = malloc(base64_encoded_size(size));
  base64_encode(bytes, size, text);
  return text;
}

static void compare_decode(const uint8_t *data, size_t size, enum base64_level level) {
  check(base64_force(BASE64_SCALAR) == 0);
  struct decoded want = decode(data, size);
  check(base64_force(level) == 0);
  struct decoded got = decode(data, size);
  check(got.code == want.code);
  if (got.code == 0) {
    check(got.size == want.size && memcmp(got.bytes, want.bytes, got.size) == 0);
    check(base64_encoded_size(got.size) == size);
    char *text = encode(got.bytes, got.size);
    check(memcmp(text, data, size) == 0);
    free(text);
  } else {
    check(got.bad_at == want.bad_at && got.bad_at <= size);
  }
  free(want.bytes);
  free(got.bytes);
}

static void compare_encode(const uint8_t *data, size_t size, enum base64_level level) {
  check(base64_force(BASE64_SCALAR) == 0);
  char *want = encode(data, size);
  check(base64_force(level) == 0);
  char *got = encode(data, size);
  check(memcmp(got, want, base64_encoded_size(size)) == 0);
  struct decoded back = decode((const uint8_t *)got, base64_encoded_size(size));
  check(back.code == 0 && back.size == size && memcmp(back.bytes, data, size) == 0);
  free(want);
  free(got);
  free(back.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // One input as it is is rarely good base64, so its encoding with one byte changed is tried too.
  size_t room = base64_encoded_size(size);
  for (int level = BASE64_SCALAR; level < BASE64_LEVELS; level++) {
    if (base64_force((enum base64_level)level) != 0) {
      continue;
    }
    compare_decode(data, size, (enum base64_level)level);
    compare_encode(data, size, (enum base64_level)level);
    if (size >= 3) {
      char *text = encode(data, size);
      text[(data[0] | (size_t)data[1] << 8) % room] = (char)data[2];
      compare_decode((const uint8_t *)text, room, (enum base64_level)level);
      free(text);
    }
  }
  return 0;
}
