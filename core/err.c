// SPDX-License-Identifier: MIT
#include "err.h"

#include <string.h>

const char *err_text(int code) {
  switch (code) {
  case 0:
    return "no error";
#define ERR_CASE(name, number, text)                                                               \
  case ERR_##name:                                                                                 \
    return text;
    ERR_LIST(ERR_CASE)
#undef ERR_CASE
  default:
    break;
  }
  static _Thread_local char buffer[128];
  return strerror_r(-code, buffer, sizeof buffer);
}

const char *err_name(int code) {
  switch (code) {
#define ERR_CASE(name, number, text)                                                               \
  case ERR_##name:                                                                                 \
    return #name;
    ERR_LIST(ERR_CASE)
#undef ERR_CASE
  default:
    break;
  }
  const char *name = strerrorname_np(-code);
  return name != NULL ? name : "UNKNOWN";
}
