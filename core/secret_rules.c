// SPDX-License-Identifier: MIT
#include "secret_rules.h"

#include <string.h>

// The classes of secret_rules.h, one row each 16 characters. In hexadecimal: ff letters and digits;
// the rest as the class list says.
#define F 0xff
const uint8_t secret_class[256] = {
    0xc0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xc0, 0x08, 0xc0, 0xc0, 0x08, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xc0, 0xf0, 0xa0, 0xf0, 0xf0, 0xf0, 0xe0, 0x60, 0xe0, 0xe0, 0xf0, 0xf8, 0xe0, 0xf6, 0xf4, 0xf8,
    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    0xf0, 0xe0, 0xe0, 0xf8, 0xe0, 0xf0,
    0xf0, F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,
    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    0xe0, 0xf8, 0xe0, 0xf0, 0xf6,
    0xe0, F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,
    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    F,    0xe0, 0xe0, 0xe0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
    0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0, 0xf0,
};
#undef F

struct secret_bound secret_bound(const struct secret_view *v, size_t ahead) {
  if (v->size - v->at >= ahead) {
    return (struct secret_bound){v->at + ahead, false, true};
  }
  return (struct secret_bound){v->size, !v->final, false};
}

static bool is_class(const struct secret_view *v, size_t at, uint8_t class) {
  return (secret_class[(uint8_t)v->text[at]] & class) != 0;
}

size_t secret_word_before(const struct secret_view *v) {
  size_t start = v->at;
  while (start > v->floor && v->at - start <= SECRET_WORD_MAX &&
         is_class(v, start - 1, SECRET_ALNUM)) {
    start--;
  }
  return v->at - start;
}

size_t secret_run(const struct secret_view *v, size_t from, size_t end, uint8_t class) {
  while (from < end && is_class(v, from, class)) {
    from++;
  }
  return from;
}

bool secret_is_dense(const char *text, size_t size, size_t length) {
  size_t run = 0;
  bool digit = false;
  bool letter = false;
  for (size_t i = 0; i < size; i++) {
    if ((secret_class[(uint8_t)text[i]] & SECRET_ALNUM) == 0) {
      run = 0;
      digit = letter = false;
      continue;
    }
    run++;
    bool is_digit = text[i] >= '0' && text[i] <= '9';
    digit = digit || is_digit;
    letter = letter || !is_digit;
    if (run >= length && digit && letter) {
      return true;
    }
  }
  return false;
}

// Compares what stands at `at` with text. 1 equal, 0 different, -1 not all of it has come yet.
static int compare(const struct secret_view *v, struct secret_bound bound, size_t at,
                   const char *text) {
  size_t size = strlen(text);
  size_t come = bound.end - at < size ? bound.end - at : size;
  if (memcmp(v->text + at, text, come) != 0) {
    return 0;
  }
  return come == size ? 1 : bound.more ? -1 : 0;
}

// A token that starts with fixed letters and has no separator: `before` of them stand before the
// trigger. Its body has at least min characters, or exactly so many.
static enum secret_verdict by_letters(const struct secret_view *v, const char *text, size_t before,
                                      size_t min, bool exact, struct secret *found) {
  struct secret_bound bound = secret_bound(v, SECRET_LOOK_AHEAD);
  if (secret_word_before(v) != before) {
    return SECRET_NONE;
  }
  size_t start = v->at - before;
  int same = compare(v, bound, start, text);
  if (same != 1) {
    return same == 0 ? SECRET_NONE : SECRET_MORE;
  }
  uint8_t class = exact ? SECRET_ALNUM : SECRET_TOKEN;
  size_t body = start + strlen(text);
  size_t end = secret_run(v, body, bound.end, class);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (end - body < min || (exact && end - body != min)) {
    return SECRET_NONE;
  }
  found->start = start;
  found->end = end;
  found->rest = end == bound.end && bound.cut ? class : 0;
  return SECRET_FOUND;
}

// header.payload.signature, the header being base64url of {"...
static enum secret_verdict web_token(const struct secret_view *v, struct secret *found) {
  struct secret_bound bound = secret_bound(v, SECRET_LOOK_AHEAD);
  if (secret_word_before(v) != 2 || memcmp(v->text + v->at - 2, "ey", 2) != 0) {
    return SECRET_NONE;
  }
  size_t longest = bound.end - v->at < 512 ? bound.end : v->at + 512;
  size_t header = secret_run(v, v->at, longest, SECRET_TOKEN);
  if (header == bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (header == longest || v->text[header] != '.' || header - v->at < 8) {
    return SECRET_NONE;
  }
  size_t payload = secret_run(v, header + 1, bound.end, SECRET_TOKEN);
  size_t end = payload - header < 8 ? payload : secret_run(v, payload, bound.end, SECRET_TOKEN_DOT);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (payload - header < 8 || !(end > payload || (end == bound.end && bound.cut))) {
    return SECRET_NONE;
  }
  found->start = v->at - 2;
  found->end = end;
  found->rest = end == bound.end && bound.cut ? SECRET_TOKEN_DOT : 0;
  return SECRET_FOUND;
}

static size_t longest_run(const struct secret_view *v, size_t from, size_t end) {
  size_t longest = 0;
  while (from < end) {
    size_t stop = from;
    while (stop < end && is_class(v, stop, SECRET_BASE64) && v->text[stop] != '\n' &&
           v->text[stop] != '\r' && v->text[stop] != '\\') {
      stop++;
    }
    longest = stop - from > longest ? stop - from : longest;
    from = stop + 1;
  }
  return longest;
}

static const char *find(const char *text, size_t size, const char *what) {
  return memmem(text, size, what, strlen(what));
}

// The end of what looks like the body of a key, which may be indented.
static size_t key_run(const struct secret_view *v, size_t from, size_t end) {
  size_t at = secret_run(v, from, end, SECRET_BASE64);
  while (at < end && (v->text[at] == ' ' || v->text[at] == '\t') && at > from &&
         strchr("\r\n \t", v->text[at - 1]) != NULL) {
    at = secret_run(v, at + 1, end, SECRET_BASE64);
  }
  return at;
}

// What follows the line BEGIN: up to the line END, or without one as far as it looks like a key.
// Text that only names the two lines has no long run of base64 between them.
static enum secret_verdict private_key(const struct secret_view *v, struct secret_bound bound,
                                       size_t body, struct secret *found) {
  const char *dashes = find(v->text + body, bound.end - body, "-----");
  size_t end = bound.end;
  if (dashes != NULL) {
    end = (size_t)(dashes - v->text);
    int same = compare(v, bound, end, "-----END ");
    if (same < 0) {
      return SECRET_MORE;
    }
  } else if (bound.more) {
    return SECRET_MORE;
  }
  bool ended = dashes != NULL && compare(v, bound, end, "-----END ") == 1;
  if (!ended) {
    size_t stop = key_run(v, body, end);
    found->rest = stop == bound.end && bound.cut ? SECRET_BASE64 : 0;
    end = stop;
  }
  if (longest_run(v, body, end) < 32) {
    return SECRET_NONE;
  }
  found->start = body;
  found->end = end;
  found->whole = true;
  return SECRET_FOUND;
}

static enum secret_verdict pem(const struct secret_view *v, struct secret *found) {
  struct secret_bound bound = secret_bound(v, SECRET_KEY_AHEAD);
  static const char begin[] = "-----BEGIN ";
  if (v->at > v->floor && v->text[v->at - 1] == '-') {
    return SECRET_NONE;
  }
  int same = compare(v, bound, v->at, begin);
  if (same != 1) {
    return same == 0 ? SECRET_NONE : SECRET_MORE;
  }
  size_t label = v->at + sizeof begin - 1;
  size_t end = label;
  while (end < bound.end && end - label < 64 &&
         ((v->text[end] >= 'A' && v->text[end] <= 'Z') || v->text[end] == ' ')) {
    end++;
  }
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  same = compare(v, bound, end, "-----");
  if (same != 1) {
    return same == 0 ? SECRET_NONE : SECRET_MORE;
  }
  if (find(v->text + label, end - label, "PRIVATE KEY") == NULL) {
    return SECRET_NONE;
  }
  return private_key(v, bound, end + 5, found);
}

// The places of a URL's user part: its first colon and its last "@", or 0.
struct userinfo {
  size_t colon;
  size_t at_sign;
  size_t end;
};

static struct userinfo find_userinfo(const struct secret_view *v, size_t from, size_t end) {
  struct userinfo u = {0, 0, from};
  for (; u.end < end && is_class(v, u.end, SECRET_LINE_WORD); u.end++) {
    char c = v->text[u.end];
    if (strchr("/?#\"'<>`\\", c) != NULL) {
      break;
    }
    if (c == '@') {
      u.at_sign = u.end;
    } else if (c == ':' && u.colon == 0 && u.at_sign == 0) {
      u.colon = u.end;
    }
  }
  return u;
}

// scheme://user:password@host; also scheme://token@host when the token looks like one.
static enum secret_verdict url(const struct secret_view *v, struct secret *found) {
  struct secret_bound bound = secret_bound(v, 1024);
  if (v->at == 0 || (v->at + 1 < v->size && v->text[v->at + 1] != '/') ||
      !is_class(v, v->at - 1, SECRET_ALNUM)) {
    return SECRET_NONE;
  }
  int same = compare(v, bound, v->at, "://");
  if (same != 1) {
    return same == 0 ? SECRET_NONE : SECRET_MORE;
  }
  size_t start = v->at + 3;
  struct userinfo u = find_userinfo(v, start, bound.end);
  if (u.end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (u.at_sign == 0) {
    return SECRET_NONE;
  }
  bool has_password = u.colon != 0 && u.colon < u.at_sign;
  found->start = has_password ? u.colon + 1 : start;
  found->end = u.at_sign;
  found->whole = has_password;
  const char *text = v->text + found->start;
  size_t size = found->end - found->start;
  if (size == 0 || strchr("$<{*[%", text[0]) != NULL || (uint8_t)text[0] == 0xc2 ||
      find(text, size, "\u2026") != NULL) {
    return SECRET_NONE;
  }
  // As manuals write it.
  bool is_example = (size == 4 && memcmp(text, "pass", 4) == 0) ||
                    (size == 6 && memcmp(text, "passwd", 6) == 0) ||
                    (size == 8 && memcmp(text, "password", 8) == 0);
  bool is_secret = has_password ? !is_example : secret_is_dense(text, size, 16);
  return is_secret ? SECRET_FOUND : SECRET_NONE;
}

// A Telegram bot's token: eight to ten digits, a colon, 35 characters that start with "AA".
static enum secret_verdict bot_token(const struct secret_view *v, struct secret *found) {
  struct secret_bound bound = secret_bound(v, SECRET_LOOK_AHEAD);
  if (v->at + 1 < v->size && v->text[v->at + 1] != 'A') {
    return SECRET_NONE;
  }
  size_t digits = secret_word_before(v);
  if (digits < 8 || digits > 10) {
    return SECRET_NONE;
  }
  for (size_t i = v->at - digits; i < v->at; i++) {
    if (v->text[i] < '0' || v->text[i] > '9') {
      return SECRET_NONE;
    }
  }
  int same = compare(v, bound, v->at, ":AA");
  if (same != 1) {
    return same == 0 ? SECRET_NONE : SECRET_MORE;
  }
  size_t end = secret_run(v, v->at + 1, secret_judged_end(bound, v->at + 1), SECRET_TOKEN);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  found->start = v->at - digits;
  found->end = end;
  return end - v->at - 1 == 35 ? SECRET_FOUND : SECRET_NONE;
}

static enum secret_verdict capital_i(const struct secret_view *v, struct secret *found) {
  if (v->at == 0 || (v->at >= 2 && v->text[v->at - 1] != 'A' && v->text[v->at - 2] != 'A')) {
    return SECRET_NONE;
  }
  enum secret_verdict verdict = by_letters(v, "AIza", 1, 30, false, found);
  if (verdict == SECRET_NONE) {
    verdict = by_letters(v, "AKIA", 2, 16, true, found);
  }
  return verdict != SECRET_NONE ? verdict : by_letters(v, "ASIA", 2, 16, true, found);
}

enum secret_verdict secret_at(const struct secret_view *v, struct secret *found) {
  enum secret_verdict verdict = SECRET_NONE;
  switch (v->text[v->at]) {
  case '_':
  case '.':
    return secret_by_prefix(v, found);
  case '-':
    verdict = secret_by_prefix(v, found);
    return verdict != SECRET_NONE ? verdict : pem(v, found);
  case ':':
    verdict = url(v, found);
    if (verdict == SECRET_NONE) {
      verdict = bot_token(v, found);
    }
    return verdict != SECRET_NONE ? verdict : secret_by_key(v, found);
  case '=':
    return secret_by_key(v, found);
  case 'I':
    return capital_i(v, found);
  case 'J':
    return web_token(v, found);
  case 'G':
    return by_letters(v, "ATATT3xFfGF0", 9, 40, false, found);
  default:
    return SECRET_NONE;
  }
}
