// SPDX-License-Identifier: MIT
#include "secret_names.h"

#include <stdint.h>
#include <string.h>

bool piece_ends_with(struct piece p, const char *end) {
  size_t size = strlen(end);
  if (size > p.size) {
    return false;
  }
  for (size_t i = 0; i < size; i++) {
    if (char_lower(p.text[p.size - size + i]) != end[i]) {
      return false;
    }
  }
  return true;
}

bool piece_is(struct piece p, const char *word) {
  return p.size == strlen(word) && piece_ends_with(p, word);
}

bool piece_is_one_of(struct piece p, const char *const *words) {
  for (; *words != NULL; words++) {
    if (piece_is(p, *words)) {
      return true;
    }
  }
  return false;
}

// Cuts the last word off a name: snake_case, kebab-case, dotted, camelCase and CAPITALS.
static struct piece cut_last_word(struct piece *name) {
  size_t end = name->size;
  while (end > 0 && !char_is_letter(name->text[end - 1])) {
    end--;
  }
  size_t start = end;
  while (start > 0 && char_is_letter(name->text[start - 1])) {
    start--;
    if (char_is_upper(name->text[start]) && start > 0 && !char_is_upper(name->text[start - 1])) {
      break;
    }
  }
  name->size = start;
  return (struct piece){name->text + start, end - start};
}

bool name_is_capitals(struct piece name) {
  for (size_t i = 0; i < name.size; i++) {
    if (char_is_letter(name.text[i]) && !char_is_upper(name.text[i])) {
      return false;
    }
  }
  return true;
}

struct piece name_last_word(struct piece name) {
  return cut_last_word(&name);
}

static enum name_sureness sureness_of_key(struct piece before, bool capitals) {
  static const char *const sure[] = {"api",     "secret",     "private", "access", "auth",
                                     "service", "encryption", "signing", "master", "account",
                                     "license", "app",        "admin",   "deploy", "storage",
                                     "session", "client",     NULL};
  static const char *const harmless[] = {"public", "primary", "foreign", "partition", "sort",
                                         "cache",  "group",   "index",   "unique",    "hash",
                                         "range",  "pub",     "row",     "object",    NULL};
  if (piece_is_one_of(before, harmless)) {
    return NAME_HARMLESS;
  }
  if (piece_is_one_of(before, sure)) {
    return NAME_STRONG;
  }
  return capitals && before.size != 0 ? NAME_STRONG : NAME_WEAK;
}

// What the last two letters of such a name can be: most names are out at this point.
static bool may_be_secret(struct piece name) {
#define BIT(c) (1u << ((c) - 'a'))
  static const uint32_t before_last[26] = {
      ['d' - 'a'] = BIT('r') | BIT('w'), // password passwd pwd
      ['e' - 'a'] = BIT('d') | BIT('s'), // passcode passphrase
      ['g' - 'a'] = BIT('i'),            // sig
      ['h' - 'a'] = BIT('t'),            // auth
      ['l' - 'a'] = BIT('a'),            // credential
      ['n' - 'a'] = BIT('e') | BIT('o'), // token authorization
      ['s' - 'a'] = BIT('l') | BIT('s'), // credentials pass
      ['t' - 'a'] = BIT('e'),            // secret
      ['w' - 'a'] = BIT('p'),            // pw
      ['y' - 'a'] = BIT('e'),            // key
  };
#undef BIT
  size_t end = name.size;
  while (end > 0 && !char_is_letter(name.text[end - 1])) {
    end--;
  }
  if (end < 2 || !char_is_letter(name.text[end - 2])) {
    return false;
  }
  uint32_t mask = before_last[char_lower(name.text[end - 1]) - 'a'];
  return (mask >> (char_lower(name.text[end - 2]) - 'a') & 1) != 0;
}

enum name_sureness name_sureness(struct piece name) {
  static const char *const passwords[] = {"pwd", "passcode", "passphrase", NULL};
  static const char *const glued_keys[] = {"apikey",    "accesskey",  "secretkey",     "authkey",
                                           "masterkey", "privatekey", "encryptionkey", NULL};
  static const char *const counted[] = {"max",   "min",  "num",     "total",        "next", "page",
                                        "input", "stop", "special", "continuation", NULL};
  if (!may_be_secret(name)) {
    return NAME_HARMLESS;
  }
  bool capitals = name_is_capitals(name);
  struct piece rest = name;
  struct piece word = cut_last_word(&rest);
  struct piece before = cut_last_word(&rest);
  if (piece_ends_with(word, "password") || piece_ends_with(word, "passwd") ||
      piece_is_one_of(word, passwords)) {
    return NAME_PASSWORD;
  }
  if ((piece_is(word, "pass") || piece_is(word, "pw")) && before.size != 0) {
    return NAME_PASSWORD;
  }
  if (piece_ends_with(word, "secret") || piece_ends_with(word, "credential") ||
      piece_ends_with(word, "credentials") || piece_is_one_of(word, glued_keys)) {
    return NAME_STRONG;
  }
  if (piece_ends_with(word, "token")) {
    return piece_is_one_of(before, counted) ? NAME_HARMLESS : capitals ? NAME_STRONG : NAME_WEAK;
  }
  if (piece_is(word, "key")) {
    return sureness_of_key(before, capitals);
  }
  if (piece_is(word, "authorization")) {
    return NAME_AUTHORIZATION;
  }
  return piece_is(word, "auth") || piece_is(word, "sig") ? NAME_WEAK : NAME_HARMLESS;
}
