// SPDX-License-Identifier: MIT
#ifndef FARCALL_REQUEST_H
#define FARCALL_REQUEST_H

// A request of an embedding program as one block of memory: a list of fields with names, which the
// engine's thread turns into a table. Nothing in it points to what the caller passed.

#include <stddef.h>

#include "farcall.h"

struct request_field {
  const char *group; // the list or map it is in, or NULL; static
  const char *name;  // its key; NULL in a list
  const char *value;
  size_t size; // of value, which is followed by a NUL
};

struct request_number {
  const char *name; // static
  double value;
};

enum { REQUEST_NUMBERS = 2 };

struct request {
  const char *kind; // "oneshot", "shell" or "run"; static
  struct request_number numbers[REQUEST_NUMBERS];
  size_t count;
  struct request_field fields[];
};

// FARCALL_OK and *out, to be freed by free(); FARCALL_EINVAL or FARCALL_ENOMEM.
int request_of_oneshot(const struct farcall_command *command, struct request **out);
int request_of_shell(const struct farcall_command *command, struct request **out);
int request_of_job(const struct farcall_job *job, struct request **out);

#endif
