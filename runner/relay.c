// SPDX-License-Identifier: MIT
#include "relay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"

struct relay {
  struct port port;
  struct relay_spec spec;
  bool socket;
  struct watch from, to; // of a socket only `from` is used
  bool paused;           // what has been read waits for the link
  bool blocked;          // the descriptor takes nothing more for now
  bool deaf;             // nobody takes what the channel brings
  bool from_over;        // the descriptor has ended
  bool to_over;          // the peer's direction of the channel has ended
};

static void relay_free(struct relay *relay) {
  struct runner *runner = relay->port.runner;
  watch_close(&runner->watches, &relay->from);
  watch_close(&runner->watches, &relay->to);
  port_fini(&relay->port);
  if (relay->spec.tree) {
    runner->trees--;
  }
  if (relay->spec.over != NULL) {
    relay->spec.over(relay->spec.data);
  }
  free(relay);
}

static void update(struct relay *relay) {
  struct watches *watches = &relay->port.runner->watches;
  uint32_t in = relay->from_over || relay->paused ? 0 : EPOLLIN;
  uint32_t out = relay->blocked ? EPOLLOUT : 0;
  if (relay->socket) {
    watch_set(watches, &relay->from, in | out);
  } else {
    watch_set(watches, &relay->from, in);
    watch_set(watches, &relay->to, out);
  }
}

// Nothing more is written to the descriptor.
static void end_writing(struct relay *relay) {
  relay->blocked = false;
  relay->deaf = true;
  if (relay->socket) {
    shutdown(relay->from.fd, SHUT_WR);
  } else {
    watch_close(&relay->port.runner->watches, &relay->to);
  }
}

// The channel has been aborted, or is not needed. A tree is still seen to its end.
static void drop_channel(struct relay *relay) {
  if (!relay->spec.tree || relay->from_over) {
    relay_free(relay);
    return;
  }
  mux_close(relay->port.channel);
  relay->port.channel = NULL;
  relay->to_over = true;
  relay->paused = false;
  end_writing(relay);
  update(relay);
}

// Frees it when nothing more can come. Until the peer has ended its direction too, the channel is
// kept, because to close it would abort it.
static void settle(struct relay *relay) {
  if (relay->from_over && relay->to_over) {
    relay_free(relay);
  } else {
    update(relay);
  }
}

static ssize_t give(const struct relay *relay, const char *bytes, size_t size) {
  return relay->socket ? send(relay->from.fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                       : write(relay->to.fd, bytes, size);
}

// From the channel to the descriptor. May free the relay.
static void pump_out(struct relay *relay) {
  const char *bytes;
  size_t size;
  int code;
  relay->blocked = false;
  while ((code = mux_peek(relay->port.channel, &bytes, &size)) == 0) {
    if (relay->deaf) {
      mux_consume(relay->port.channel, size);
      continue;
    }
    ssize_t given = give(relay, bytes, size);
    if (given >= 0) {
      mux_consume(relay->port.channel, (size_t)given);
    } else if (errno == EAGAIN) {
      relay->blocked = true;
      break;
    } else if (errno != EINTR) {
      end_writing(relay);
    }
  }
  if (code == ERR_EOF) {
    relay->to_over = true;
    end_writing(relay);
  } else if (code != 0 && code != -EAGAIN) {
    drop_channel(relay);
    return;
  }
  settle(relay);
}

static ssize_t take(const struct relay *relay, char *buffer, size_t size) {
  return relay->socket ? recv(relay->from.fd, buffer, size, MSG_DONTWAIT)
                       : read(relay->from.fd, buffer, size);
}

// From the descriptor to the channel. False when the relay may have been freed.
static bool pump_in(struct relay *relay) {
  struct runner *runner = relay->port.runner;
  struct mux_channel *channel = relay->port.channel;
  if (channel != NULL && mux_pending(channel) > 0) {
    relay->paused = true;
    update(relay);
    return true;
  }
  ssize_t size = take(relay, runner->buffer, sizeof runner->buffer);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  }
  if (size <= 0) {
    relay->from_over = true;
    if (!relay->socket) {
      watch_close(&runner->watches, &relay->from);
    }
    if (size == 0 && channel != NULL) {
      mux_finish(channel);
      settle(relay);
    } else {
      drop_channel(relay);
    }
    return false;
  }
  if (channel != NULL && mux_write(channel, runner->buffer, (size_t)size) != 0) {
    drop_channel(relay);
    return false;
  }
  return true;
}

static void on_from(void *data, uint32_t events) {
  struct relay *relay = data;
  bool out = relay->blocked && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0;
  if (!relay->from_over && !relay->paused && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0 &&
      !pump_in(relay)) {
    return;
  }
  if (out) {
    pump_out(relay);
  }
}

static void on_to(void *data, uint32_t events) {
  (void)events;
  pump_out(data);
}

static void readable(struct port *port) {
  struct relay *relay = (struct relay *)port;
  if (!relay->blocked) {
    pump_out(relay);
  }
}

static void drained(struct port *port) {
  struct relay *relay = (struct relay *)port;
  relay->paused = false;
  update(relay);
}

static void stop(struct port *port) {
  struct relay *relay = (struct relay *)port;
  if (port->channel != NULL) {
    drop_channel(relay);
  }
}

static void last(struct port *port) {
  relay_free((struct relay *)port);
}

static const struct port_kind RELAY = {readable, drained, stop, last};

int relay_new(struct runner *runner, struct mux_channel *channel, const struct relay_spec *spec) {
  struct relay *relay = calloc(1, sizeof *relay);
  if (relay == NULL) {
    close(spec->from);
    if (spec->to >= 0 && spec->to != spec->from) {
      close(spec->to);
    }
    mux_close(channel);
    return -ENOMEM;
  }
  relay->spec = *spec;
  relay->socket = spec->from == spec->to;
  relay->deaf = spec->to < 0;
  watch_init(&relay->from, spec->from, on_from, relay);
  watch_init(&relay->to, relay->socket ? -1 : spec->to, on_to, relay);
  port_init(&relay->port, &RELAY, runner, channel);
  runner->trees += spec->tree;
  // What came before it was ours has been announced already.
  pump_out(relay);
  return 0;
}
