// SPDX-License-Identifier: MIT
#ifndef FARCALL_RELAY_H
#define FARCALL_RELAY_H

// Joins a channel with descriptors: what comes from one goes to the other, each direction with its
// own end, neither further ahead than a bounded number of bytes.

#include "port.h"

struct relay_spec {
  // Bytes for the channel come from `from`; what the channel brings goes to `to`. Owned from now
  // on, also after a failure; -1: there is none. A socket is both. Pipes must not block.
  int from, to;
  // A socket to a supervisor: counted in runner.trees until it ends, whatever becomes of the
  // channel.
  bool tree;
  // Called when it is over, with the data, or NULL.
  void (*over)(void *data);
  void *data;
};

// Takes the channel over: also after a failure, when it is closed. 0 or -ENOMEM.
int relay_new(struct runner *runner, struct mux_channel *channel, const struct relay_spec *spec);

#endif
