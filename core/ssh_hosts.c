// SPDX-License-Identifier: MIT
#include "ssh_hosts.h"

#include <libssh2.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { LINE_MAX_SIZE = 256 };

// Any key does: it is the name that is compared. The text is base64 of "ssh-rsa" as a key has it.
static const char KEY[] = "AAAAB3NzaC1yc2E=";

// base64 of a SHA-1. For a hash of any other length libssh2 1.10 forgets to free its context.
static bool is_sha1(const char *text) {
  enum { DIGITS = 27 };
  size_t digits = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
  return digits == DIGITS && text[DIGITS] == '=';
}

// "|1|salt|hash", each of them a SHA-1.
static bool is_hashed(const char *hashed) {
  enum { SALT = 3, HASH = 32, END = 60 };
  return strlen(hashed) == END && strncmp(hashed, "|1|", SALT) == 0 && is_sha1(hashed + SALT) &&
         hashed[HASH - 1] == '|' && is_sha1(hashed + HASH);
}

static bool matches(LIBSSH2_KNOWNHOSTS *hosts, const char *line, const char *name) {
  if (libssh2_knownhost_readline(hosts, line, strlen(line), LIBSSH2_KNOWNHOST_FILE_OPENSSH) != 0) {
    return false;
  }
  int found = libssh2_knownhost_checkp(
      hosts, name, -1, KEY, sizeof KEY - 1,
      LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_BASE64, NULL);
  return found == LIBSSH2_KNOWNHOST_CHECK_MATCH;
}

bool ssh_hosts_is_hash_of(const char *hashed, const char *name) {
  char line[LINE_MAX_SIZE];
  int size = snprintf(line, sizeof line, "%s ssh-rsa %s\n", hashed, KEY);
  if (!is_hashed(hashed) || size < 0 || size >= (int)sizeof line) {
    return false;
  }
  LIBSSH2_SESSION *session = libssh2_session_init();
  LIBSSH2_KNOWNHOSTS *hosts = session != NULL ? libssh2_knownhost_init(session) : NULL;
  bool found = hosts != NULL && matches(hosts, line, name);
  if (hosts != NULL) {
    libssh2_knownhost_free(hosts);
  }
  if (session != NULL) {
    libssh2_session_free(session);
  }
  return found;
}
