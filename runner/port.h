// SPDX-License-Identifier: MIT
#ifndef FARCALL_PORT_H
#define FARCALL_PORT_H

// What stands behind a channel in the runner: a parked pipe, a relay, a listener, a file... A port
// begins each of their structs, is what mux_channel_get gives, and is in the runner's list.

#include "mux.h"
#include "watch.h"

struct port;
struct runner;

struct port_kind {
  // The callbacks of mux.h. drained may be NULL.
  void (*readable)(struct port *port);
  void (*drained)(struct port *port);
  // The engine is gone, and the runner will end. Frees it, or at least stops it.
  void (*stop)(struct port *port);
  // Called at the very end for what `stop` has left, or NULL.
  void (*last)(struct port *port);
};

struct port {
  const struct port_kind *kind;
  struct runner *runner;
  struct mux_channel *channel; // NULL: it has been closed
  struct port *next, **from;   // the runner's list
};

// What all ports share.
struct runner {
  struct watches watches;
  struct mux *mux;
  struct port *ports;
  int trees;      // supervisors that have not ended
  bool quit;      // the engine wants an end
  bool has_swept; // what dead ones have left
  // For what is on its way from a descriptor to a channel: two full frames with their heads are as
  // much as a pipe takes.
  char buffer[2 * (MUX_MAX_PAYLOAD - 8)];
};

// Puts a port into the list and behind its channel.
void port_init(struct port *port, const struct port_kind *kind, struct runner *runner,
               struct mux_channel *channel);
// Takes it out and closes the channel. What was written and finished still arrives.
void port_fini(struct port *port);

// Answers "ok WORDS\n"; words may be "" for none.
void port_ok(struct mux_channel *channel, const char *words);
// Answers "error STAGE ERRNO\n" and ends our direction. code is -errno.
void port_error(struct mux_channel *channel, const char *stage, int code);

#endif
