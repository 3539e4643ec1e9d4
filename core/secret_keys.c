// SPDX-License-Identifier: MIT
#include <string.h>

#include "secret_names.h"
#include "secret_rules.h"

// Assignments: NAME=value, name: value, "name": "value", and headers. Two questions are asked: how
// surely does the name mean a secret, and does the value look like one? The surer the name, the
// less is asked of the value.

enum { NAME_MAX_SIZE = 64 };

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

// An assignment: where its parts lie.
struct assignment {
  struct piece name;
  enum name_sureness sureness;
  bool quoted_name;
  bool own_line; // the name is the first thing on its line, save for "export", "-" and the like
  bool spaced;   // white space before the value
  bool query;    // ?name= or &name=
  char sign;     // '=' or ':'
  size_t start;  // of the value
  size_t end;
  uint8_t class; // of the value's characters, when it has no quotes
  bool judged;   // it has none and may go on beyond end, which is as far as it is judged
  char quote;    // the quote around the value, or 0
  char stop;     // the character after the value, 0 at the end of all
  bool cut;      // the value is longer than a rule may look
};

static bool is_name_character(char c) {
  return char_is_letter(c) || char_is_digit(c) || c == '_' || c == '-' || c == '.';
}

static bool begins_line(const struct secret_view *v, size_t at) {
  size_t steps = 0;
  while (at > 0 && steps < NAME_MAX_SIZE && (is_blank(v->text[at - 1]) || v->text[at - 1] == '-')) {
    at--;
    steps++;
  }
  if (at >= 6 && steps > 0 && memcmp(v->text + at - 6, "export", 6) == 0) {
    return true;
  }
  return at == 0 || v->text[at - 1] == '\n' || v->text[at - 1] == '\r';
}

// Looks back from the sign at the name. False when there is none that means a secret.
static bool read_name(const struct secret_view *v, struct assignment *a) {
  size_t end = v->at;
  for (size_t i = 0; i < 8 && end > v->floor && is_blank(v->text[end - 1]); i++) {
    end--;
  }
  bool bracket = end > v->floor && v->text[end - 1] == ']';
  end -= bracket ? 1 : 0;
  bool quoted = end > v->floor && (v->text[end - 1] == '"' || v->text[end - 1] == '\'');
  end -= quoted ? 1 : 0;
  // JSON in JSON: \"name\": \"value\"
  while (quoted && end > v->floor && v->text[end - 1] == '\\' && v->at - end < 8) {
    end--;
  }
  if (end == v->floor || !is_name_character(v->text[end - 1]) || (bracket && !quoted)) {
    return false;
  }
  size_t start = end;
  while (start > v->floor && end - start < NAME_MAX_SIZE && is_name_character(v->text[start - 1])) {
    start--;
  }
  a->name = (struct piece){v->text + start, end - start};
  a->sureness = name_sureness(a->name);
  a->quoted_name = quoted;
  a->query = start > v->floor && (v->text[start - 1] == '?' || v->text[start - 1] == '&');
  a->sign = v->text[v->at];
  return a->sureness != NAME_HARMLESS;
}

static char character_at(const struct secret_view *v, size_t at, size_t end) {
  if (at < end) {
    return v->text[at];
  }
  return '\0';
}

static bool is_quote(char c) {
  return c == '"' || c == '\'' || c == '`';
}

// The value's end, when it began with a quote: the same quote, not escaped, on the same line. An
// opening \" is closed by \".
static enum secret_verdict read_quoted(const struct secret_view *v, struct secret_bound bound,
                                       bool escaped, struct assignment *a) {
  size_t at = a->start;
  for (; at < bound.end; at++) {
    char c = v->text[at];
    if (c == '\n' || c == '\r') {
      return SECRET_NONE;
    }
    if (c == a->quote) {
      break;
    }
    if (c == '\\') {
      if (at + 1 == bound.end) {
        at = bound.end;
        break;
      }
      if (escaped && v->text[at + 1] == a->quote) {
        break;
      }
      at++;
      if (v->text[at] == '\n' || v->text[at] == '\r') {
        return SECRET_NONE;
      }
    }
  }
  if (at >= bound.end && bound.more) {
    return SECRET_MORE;
  }
  a->end = at < bound.end ? at : bound.end;
  a->cut = at >= bound.end && bound.cut;
  a->stop = character_at(v, at, bound.end);
  return SECRET_FOUND;
}

// Looks ahead from the sign at the value.
static enum secret_verdict read_value(const struct secret_view *v, struct secret_bound bound,
                                      struct assignment *a) {
  size_t at = v->at + 1;
  // "=>" of Ruby and PHP; "==" and "::" are no assignments, and of ":=" the "=" will be tried.
  if (at < bound.end && a->sign == '=' && v->text[at] == '>') {
    at++;
  } else if (at < bound.end && (v->text[at] == '=' || v->text[at] == ':')) {
    return SECRET_NONE;
  }
  size_t blanks = at;
  while (at < bound.end && is_blank(v->text[at]) && at - blanks < NAME_MAX_SIZE) {
    at++;
  }
  a->spaced = at != blanks || (v->at > 0 && is_blank(v->text[v->at - 1]));
  // b"..." and the like.
  if (at + 1 < bound.end && char_is_letter(v->text[at]) && is_quote(v->text[at + 1])) {
    at++;
  }
  bool escaped = at + 1 < bound.end && v->text[at] == '\\' && is_quote(v->text[at + 1]);
  at += escaped ? 1 : 0;
  if (at + 1 >= bound.end && bound.more) {
    return SECRET_MORE;
  }
  if (at < bound.end && is_quote(v->text[at])) {
    a->quote = v->text[at];
    a->start = at + 1;
    return read_quoted(v, bound, escaped, a);
  }
  a->start = at;
  // NAME=value on a line of its own is for a shell or a .env file: all up to white space.
  a->class = a->own_line && a->sign == '=' && !a->spaced && name_is_capitals(a->name)
                 ? SECRET_LINE_WORD
                 : SECRET_UNSPACED;
  size_t judged_end = secret_judged_end(bound, at);
  a->end = secret_run(v, at, judged_end, a->class);
  if (a->end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  a->judged = a->end == judged_end && judged_end < bound.end;
  a->stop = character_at(v, a->end, bound.end);
  return SECRET_FOUND;
}

// A value without quotes that was judged to be a secret, to its end.
static enum secret_verdict follow_value(const struct secret_view *v, struct secret_bound bound,
                                        struct assignment *a) {
  if (a->judged) {
    a->end = secret_run(v, a->end, bound.end, a->class);
    if (a->end == bound.end && bound.more) {
      return SECRET_MORE;
    }
  }
  a->cut = a->cut || (a->quote == 0 && a->end == bound.end && bound.cut);
  return SECRET_FOUND;
}

// What is in a value.
struct looks {
  bool lower, upper, digit, blank, other; // other: neither letter, digit, blank, nor one of _-./
  bool same;                              // one character over and over
};

static struct looks look(struct piece value) {
  struct looks l = {.same = true};
  for (size_t i = 0; i < value.size; i++) {
    char c = value.text[i];
    l.lower = l.lower || (c >= 'a' && c <= 'z');
    l.upper = l.upper || char_is_upper(c);
    l.digit = l.digit || char_is_digit(c);
    l.blank = l.blank || is_blank(c);
    l.other = l.other ||
              !(char_is_letter(c) || char_is_digit(c) || is_blank(c) || strchr("_-./", c) != NULL);
    l.same = l.same && c == value.text[0];
  }
  return l;
}

static bool is_placeholder(struct piece value, struct piece name) {
  static const char *const words[] = {
      "string",   "str",         "text",    "required", "optional", "none",      "null",
      "nil",      "true",        "false",   "password", "passwd",   "secret",    "token",
      "key",      "undefined",   "hidden",  "redacted", "example",  "incorrect", "invalid",
      "wrong",    "missing",     "empty",   "unset",    "changeme", "input",     "prompt",
      "boolean",  "bool",        "bytes",   "integer",  "int",      "number",    "object",
      "varchar",  "char",        "any",     "default",  "value",    "accepted",  "expired",
      "rejected", "disabled",    "enabled", "yes",      "no",       "pass",      "username",
      "self",     "data",        "file",    "must",     "is",       "the",       "a",
      "masked",   "credentials", "basic",   "bearer",   NULL};
  if (value.size == 0 || strchr("$<{%*[(:", value.text[0]) != NULL ||
      (value.size < 16 && piece_is_one_of(value, words))) {
    return true;
  }
  // Our own masks, and those of others.
  if (memmem(value.text, value.size, "\u00ab", 2) != NULL ||
      memmem(value.text, value.size, "\u2026", 3) != NULL || piece_ends_with(value, "...") ||
      memmem(value.text, value.size, "***", 3) != NULL) {
    return true;
  }
  if (value.size >= 5 && piece_ends_with((struct piece){value.text, 4}, "your")) {
    return true;
  }
  // name = name, and the like: a parameter that is passed on.
  if (value.size != name.size) {
    return false;
  }
  size_t same = 0;
  while (same < name.size && char_lower(value.text[same]) == char_lower(name.text[same])) {
    same++;
  }
  return same == name.size;
}

// Names a file or another place, rather than being the thing.
static bool is_path(struct piece value) {
  size_t slashes = 0;
  for (size_t i = 0; i < value.size; i++) {
    slashes += value.text[i] == '/' ? 1 : 0;
  }
  bool rooted = value.text[0] == '/' || value.text[0] == '~' || value.text[0] == '.';
  return (rooted && slashes >= 2) || memmem(value.text, value.size, "://", 3) != NULL;
}

// A number in hexadecimal, or names joined by dots: what stands behind = and : in code.
static bool is_code_word(struct piece value, struct looks l) {
  if (value.size > 2 && value.size <= 18 && memcmp(value.text, "0x", 2) == 0) {
    return true;
  }
  const char *dot = memchr(value.text, '.', value.size);
  return dot != NULL && dot != value.text && !l.other && !l.digit;
}

// Looks like what a machine made up, or a person who had to use digits.
static bool is_mixed(struct looks l) {
  return (l.digit && (l.lower || l.upper)) || (l.other && (l.lower || l.upper || l.digit));
}

static bool is_word_end(char stop) {
  return stop == '\0' || stop == '\n' || stop == '\r' || is_blank(stop) || stop == ';' ||
         is_quote(stop) || stop == ',' || stop == '}' || stop == '&' || stop == '|' || stop == '\\';
}

static bool is_line_end(char stop) {
  return stop == '\0' || stop == '\n' || stop == '\r';
}

static bool is_weak_secret(const struct assignment *a, struct piece value) {
  struct looks l = look(value);
  bool is_code = a->quote == 0 && strchr("([{<", a->stop) != NULL && a->stop != '\0';
  // A bare "key" is most often the name of an entry, and then hashes are common.
  bool needs_both_cases = piece_is(a->name, "key");
  return !is_code && !l.blank && (!needs_both_cases || (l.lower && l.upper));
}

static bool is_quoted_secret(const struct assignment *a, struct piece value, struct looks l) {
  if (l.blank) {
    return piece_is(name_last_word(a->name), "passphrase");
  }
  if (a->sureness == NAME_PASSWORD) {
    return value.size >= 3;
  }
  return value.size >= 8 && is_mixed(l);
}

static bool is_bare_secret(const struct assignment *a, struct piece value, struct looks l) {
  bool is_password = a->sureness == NAME_PASSWORD;
  bool capitals = name_is_capitals(a->name);
  // foo(, a[, f{: code.
  if ((strchr("([{<", a->stop) != NULL && a->stop != '\0') || is_code_word(value, l)) {
    return false;
  }
  if (a->sign == '=' && !a->spaced) {
    bool only_digits = l.digit && !l.lower && !l.upper && !l.other;
    if (capitals) {
      return is_password ? value.size >= 3 : value.size >= 4 && !only_digits;
    }
    if (a->stop == ')' || (a->stop == ',' && !l.other)) {
      return false; // a keyword argument
    }
    return is_password ? value.size >= 3 : value.size >= 8 && is_mixed(l);
  }
  // With blanks around it may be code or prose: a name, a dotted name, a sentence.
  bool dotted = memchr(value.text, '.', value.size) != NULL;
  if (!is_word_end(a->stop) || (a->sign == '=' && dotted)) {
    return false;
  }
  if (is_password && is_mixed(l) && value.size >= 5) {
    return true;
  }
  if (is_password && a->sign == ':' && a->own_line && is_line_end(a->stop)) {
    return value.size >= 6 && !l.upper;
  }
  return !is_password && !dotted && value.size >= 12 && l.digit && (l.lower || l.upper);
}

static bool is_secret_value(const struct assignment *a, struct piece value) {
  // The cheapest question first: it answers most.
  if (a->sureness == NAME_WEAK && !secret_is_dense(value.text, value.size, 16)) {
    return false;
  }
  if (is_placeholder(value, a->name) || is_path(value)) {
    return false;
  }
  struct looks l = look(value);
  if (l.same || !(l.lower || l.upper || l.digit)) {
    return false;
  }
  if (a->sureness == NAME_WEAK) {
    return is_weak_secret(a, value);
  }
  return a->quote != 0 ? is_quoted_secret(a, value, l) : is_bare_secret(a, value, l);
}

// Authorization: [scheme] credentials, in a header, a command line or JSON.
static enum secret_verdict authorization(const struct secret_view *v, struct secret_bound bound,
                                         struct assignment *a, struct secret *found) {
  static const char *const schemes[] = {"bearer", "basic", "token", "negotiate",
                                        "apikey", "ntlm",  NULL};
  size_t at = v->at + 1;
  while (at < bound.end && (is_blank(v->text[at]) || is_quote(v->text[at])) && at - v->at < 16) {
    at++;
  }
  size_t word = at;
  size_t word_end = secret_run(v, word, secret_judged_end(bound, word), SECRET_UNSPACED);
  size_t start = word_end;
  while (start < bound.end && is_blank(v->text[start]) && start - word_end < 16) {
    start++;
  }
  bool has_scheme = piece_is_one_of((struct piece){v->text + word, word_end - word}, schemes);
  start = has_scheme ? start : word;
  size_t end = secret_run(v, start, secret_judged_end(bound, start), SECRET_UNSPACED);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  struct piece value = {v->text + start, end - start};
  if (is_placeholder(value, a->name)) {
    return SECRET_NONE;
  }
  struct looks l = look(value);
  bool is_word_like = !l.digit && !l.other && !(l.lower && l.upper);
  if (l.same || (has_scheme ? value.size < 4 || is_word_like
                            : !secret_is_dense(value.text, value.size, 16))) {
    return SECRET_NONE;
  }
  end = secret_run(v, end, bound.end, SECRET_UNSPACED);
  if (end == bound.end && bound.more) {
    return SECRET_MORE;
  }
  found->start = start;
  found->end = end;
  found->whole = true;
  found->rest = end == bound.end && bound.cut ? SECRET_UNSPACED : 0;
  return SECRET_FOUND;
}

// The value without the dots at its end, which belong to the sentence.
static struct piece undotted(const struct secret_view *v, const struct assignment *a) {
  struct piece value = {v->text + a->start, a->end - a->start};
  while (a->quote == 0 && !a->cut && value.size > 0 && value.text[value.size - 1] == '.') {
    value.size--;
  }
  return value;
}

enum secret_verdict secret_by_key(const struct secret_view *v, struct secret *found) {
  struct assignment a = {0};
  if (!read_name(v, &a)) {
    return SECRET_NONE;
  }
  struct secret_bound bound = secret_bound(v, SECRET_LOOK_AHEAD);
  if (a.sureness == NAME_AUTHORIZATION) {
    return authorization(v, bound, &a, found);
  }
  a.own_line = begins_line(v, (size_t)(a.name.text - v->text));
  enum secret_verdict verdict = read_value(v, bound, &a);
  if (verdict != SECRET_FOUND) {
    return verdict;
  }
  if (!is_secret_value(&a, undotted(v, &a))) {
    return SECRET_NONE;
  }
  verdict = follow_value(v, bound, &a);
  if (verdict != SECRET_FOUND) {
    return verdict;
  }
  found->start = a.start;
  found->end = a.start + undotted(v, &a).size;
  found->whole = a.sureness == NAME_PASSWORD || a.cut;
  if (a.cut) {
    found->rest = a.quote == 0 ? a.class : a.quote == '"' ? SECRET_IN_DOUBLE : SECRET_IN_SINGLE;
  }
  return SECRET_FOUND;
}
