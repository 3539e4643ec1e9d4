// SPDX-License-Identifier: MIT
#include "port.h"

#include <limits.h>
#include <stdio.h>

void port_init(struct port *port, const struct port_kind *kind, struct runner *runner,
               struct mux_channel *channel) {
  *port = (struct port){.kind = kind, .runner = runner, .channel = channel};
  port->next = runner->ports;
  port->from = &runner->ports;
  if (port->next != NULL) {
    port->next->from = &port->next;
  }
  runner->ports = port;
  mux_channel_set(channel, port);
}

void port_fini(struct port *port) {
  *port->from = port->next;
  if (port->next != NULL) {
    port->next->from = port->from;
  }
  mux_close(port->channel);
  port->channel = NULL;
}

static void answer(struct mux_channel *channel, const char *line, int size) {
  // A failure means that nobody is there to read it.
  (void)mux_write(channel, line, (size_t)size);
}

void port_ok(struct mux_channel *channel, const char *words) {
  char line[PATH_MAX + 64];
  int size = snprintf(line, sizeof line, *words != '\0' ? "ok %s\n" : "ok\n", words);
  answer(channel, line, size);
}

void port_error(struct mux_channel *channel, const char *stage, int code) {
  char line[64];
  answer(channel, line, snprintf(line, sizeof line, "error %s %d\n", stage, -code));
  mux_finish(channel);
}
