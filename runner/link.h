// SPDX-License-Identifier: MIT
#ifndef FARCALL_LINK_H
#define FARCALL_LINK_H

// The two descriptors over which the engine is reached: standard input and output of an exec. They
// may be pipes or sockets that others have too, so that their flags are left alone; still nothing
// here waits.

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "watch.h"

struct link {
  struct watch in, out;
  bool in_socket, out_socket;
  bool shared; // the output can only be written to piece by piece, asking first
};

// Takes the descriptors over. Nothing is waited for yet.
void link_init(struct link *link, int in, int out);

// As read(2) and write(2), but -EAGAIN instead of waiting, and -errno.
ssize_t link_read(const struct link *link, char *buffer, size_t size);
ssize_t link_write(const struct link *link, const char *bytes, size_t size);

// Writes all of a short line, waiting for at most some seconds. 0 or -errno.
int link_say(const struct link *link, const char *line);

// Idempotent.
void link_close(struct watches *set, struct link *link);
bool link_is_open(const struct link *link);

#endif
