// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "ssh_private.h"

enum {
  IN_MAX = 4 * 1024 * 1024,
  AGAIN_MS = 100, // between two tries of a refused open
  TRIES_MAX = 50, // of them while no channel of ours is open
  PIECE = 32 * 1024,
  REST_SPARE = 128 * 1024,
};

static const char TYPE[] = "session";
static const char EXEC[] = "exec";

// The list

static void append(struct ssh *ssh, struct ssh_channel *channel) {
  channel->ssh = ssh;
  channel->next = NULL;
  channel->before = ssh->last;
  if (ssh->last != NULL) {
    ssh->last->next = channel;
  } else {
    ssh->first = channel;
  }
  ssh->last = channel;
}

static void detach(struct ssh_channel *channel) {
  struct ssh *ssh = channel->ssh;
  if (ssh == NULL) {
    return;
  }
  if (channel->before != NULL) {
    channel->before->next = channel->next;
  } else {
    ssh->first = channel->next;
  }
  if (channel->next != NULL) {
    channel->next->before = channel->before;
  } else {
    ssh->last = channel->before;
  }
  channel->next = channel->before = NULL;
  channel->ssh = NULL;
}

// Makes channel the first; those before it follow at the end in their order.
static void rotate(struct ssh *ssh, struct ssh_channel *channel) {
  if (channel->before == NULL) {
    return;
  }
  ssh->last->next = ssh->first;
  ssh->first->before = ssh->last;
  ssh->last = channel->before;
  ssh->last->next = NULL;
  ssh->first = channel;
  channel->before = NULL;
}

static void destroy(struct ssh_channel *channel) {
  detach(channel);
  buf_fini(&channel->in);
  buf_fini(&channel->rest[0]);
  buf_fini(&channel->rest[1]);
  free(channel->command);
  free(channel);
}

static void change(struct ssh_channel *channel, enum ssh_state state) {
  channel->state = state;
  channel->changed = true;
}

// Ends

static void stop_input(struct ssh_channel *channel) {
  channel->dropped = channel->dropped || buf_size(&channel->in) > 0;
  channel->deaf = true;
  buf_fini(&channel->in);
}

// Takes everything that libssh2 still holds for the channel. False: it must wait (keys are being
// exchanged anew), try again later.
static bool take_rest(struct ssh_channel *channel) {
  char bytes[PIECE];
  for (int stream = 0; stream <= 1; stream++) {
    for (;;) {
      ssize_t n = libssh2_channel_read_ex(channel->raw, stream, bytes, sizeof bytes);
      if (n == LIBSSH2_ERROR_EAGAIN) {
        unsigned long left = 0;
        libssh2_channel_window_read_ex(channel->raw, &left, NULL);
        if (left > 0 && channel->ssh->fd >= 0 && channel->ssh->death.code == NULL) {
          return false;
        }
      }
      if (n <= 0) {
        break;
      }
      if (buf_append(&channel->rest[stream], bytes, (size_t)n) != 0) {
        break;
      }
    }
  }
  return true;
}

static void note_exit(struct ssh_channel *channel) {
  char *name = NULL;
  size_t size = 0;
  libssh2_channel_get_exit_signal(channel->raw, &name, &size, NULL, NULL, NULL, NULL);
  channel->exit.known = true;
  channel->exit.code = libssh2_channel_get_exit_status(channel->raw);
  if (name != NULL) {
    // Whatever the server calls it: only what a name of a signal can be.
    size_t fits = 0;
    while (fits < size && fits < sizeof channel->exit.signal - 1 && name[fits] > ' ' &&
           name[fits] <= '~') {
      fits++;
    }
    memcpy(channel->exit.signal, name, fits);
    if (fits == 0) {
      channel->exit.signal[0] = '?';
    }
    libssh2_free(channel->ssh->raw, name);
  }
}

// The channel is closed on both sides, or will never be.
static void finish(struct ssh_channel *channel, const char *code, const char *text) {
  if (code != NULL && channel->failure.code == NULL) {
    ssh_set_failure(&channel->failure, code, text);
  }
  stop_input(channel);
  change(channel, SSH_DONE);
}

// Closes and, when the server has closed as well, frees.
static bool closed(struct ssh_channel *channel) {
  struct ssh *ssh = channel->ssh;
  int rc = libssh2_channel_close(channel->raw);
  if (rc == LIBSSH2_ERROR_EAGAIN || ssh_fail_raw(ssh, rc)) {
    return false;
  }
  libssh2_channel_free(channel->raw);
  channel->raw = NULL;
  // There may be room for one that was refused.
  ssh->held = false;
  return true;
}

static void retire(struct ssh_channel *channel) {
  if (libssh2_channel_wait_closed(channel->raw) != 0 || !take_rest(channel)) {
    return;
  }
  note_exit(channel);
  if (closed(channel)) {
    finish(channel, NULL, NULL);
  }
}

static void close_turn(struct ssh_channel *channel) {
  if (closed(channel)) {
    finish(channel, NULL, NULL);
  }
}

// Starts

static void start_turn(struct ssh_channel *channel) {
  int rc = libssh2_channel_process_startup(channel->raw, EXEC, sizeof EXEC - 1, channel->command,
                                           (unsigned)channel->command_size);
  if (rc == LIBSSH2_ERROR_EAGAIN) {
    return;
  }
  free(channel->command);
  channel->command = NULL;
  if (rc == LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED) {
    ssh_set_failure(&channel->failure, "DENIED", "the server refused to run the command");
    change(channel, SSH_CLOSING);
    close_turn(channel);
  } else if (!ssh_fail_raw(channel->ssh, rc)) {
    change(channel, channel->deaf ? SSH_CLOSING : SSH_RUNNING);
  }
}

static size_t count_open(const struct ssh *ssh) {
  size_t count = 0;
  for (const struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
    count += c->raw != NULL;
  }
  return count;
}

static void on_refused(struct ssh *ssh) {
  struct ssh_channel *channel = ssh->opening;
  ssh->opening = NULL;
  if (channel == NULL) {
    return;
  }
  if (channel->deaf) {
    finish(channel, NULL, NULL);
    return;
  }
  // The server's limit: it counts channels that are closing, and may know more of them than we do.
  if (count_open(ssh) > 0) {
    ssh->tries = 0;
  } else if (++ssh->tries >= TRIES_MAX) {
    char *text = NULL;
    ssh->tries = 0;
    libssh2_session_last_error(ssh->raw, &text, NULL, 0);
    finish(channel, "REFUSED", text != NULL ? text : "the server opens no channel");
    return;
  }
  channel->state = SSH_QUEUED;
  ssh->held = true;
  if (ssh->again.loop == NULL) {
    ssh_again(ssh, AGAIN_MS);
  }
}

static struct ssh_channel *first_queued(const struct ssh *ssh) {
  struct ssh_channel *c = ssh->first;
  while (c != NULL && c->state != SSH_QUEUED) {
    c = c->next;
  }
  return c;
}

static void opened(struct ssh *ssh, LIBSSH2_CHANNEL *raw) {
  if (ssh->opening_idle) {
    ssh->opening_idle = false;
    ssh->idle = raw;
    ssh->closing_idle = true;
    return;
  }
  struct ssh_channel *channel = ssh->opening;
  ssh->opening = NULL;
  ssh->tries = 0;
  channel->raw = raw;
  if (channel->deaf) {
    change(channel, SSH_CLOSING);
    close_turn(channel);
  } else {
    change(channel, SSH_STARTING);
    start_turn(channel);
  }
}

// One after the other, because libssh2 keeps the state of opening in the session.
static void open_turn(struct ssh *ssh) {
  while (ssh->death.code == NULL) {
    if (ssh->opening == NULL && !ssh->opening_idle) {
      struct ssh_channel *next = ssh->held ? NULL : first_queued(ssh);
      if (next == NULL) {
        return;
      }
      ssh->opening = next;
      next->state = SSH_OPENING;
    }
    LIBSSH2_CHANNEL *raw = libssh2_channel_open_ex(ssh->raw, TYPE, sizeof TYPE - 1, ssh->window,
                                                   LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0);
    if (raw != NULL) {
      opened(ssh, raw);
      continue;
    }
    int rc = libssh2_session_last_errno(ssh->raw);
    if (rc == LIBSSH2_ERROR_CHANNEL_FAILURE) {
      ssh->opening_idle = false;
      on_refused(ssh);
      continue;
    }
    if (rc != LIBSSH2_ERROR_EAGAIN) {
      ssh_fail_raw(ssh, rc < 0 ? rc : LIBSSH2_ERROR_PROTO);
    }
    return;
  }
}

// Makes libssh2 take in what the socket has. It does that only on behalf of a channel; where there
// is none, one that was opened and closed again serves (the server may send questions that need
// answers, and the answers to our own).
static void listen_turn(struct ssh *ssh) {
  if (ssh->idle != NULL) {
    if (ssh->closing_idle) {
      int rc = libssh2_channel_close(ssh->idle);
      ssh->closing_idle = rc == LIBSSH2_ERROR_EAGAIN;
      ssh_fail_raw(ssh, rc);
    }
    char byte;
    ssh_fail_raw(ssh, (int)libssh2_channel_read_ex(ssh->idle, 0, &byte, sizeof byte));
    return;
  }
  bool any = false;
  for (struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
    if (c->raw != NULL) {
      any = true;
      // Both only read the socket and look at a flag.
      int rc = libssh2_channel_wait_eof(c->raw);
      ssh_fail_raw(ssh, rc == 0 ? libssh2_channel_wait_closed(c->raw) : rc);
      if (ssh->dry) {
        return;
      }
    }
  }
  if (!any && !ssh->dry && ssh->opening == NULL && first_queued(ssh) == NULL) {
    ssh->opening_idle = true;
  }
}

// Writing

// Gives libssh2 one packet of the channel's input. False if it cannot go on now.
static bool write_packet(struct ssh_channel *channel) {
  struct ssh *ssh = channel->ssh;
  if (channel->state != SSH_RUNNING || ssh->death.code != NULL) {
    return false;
  }
  if (buf_size(&channel->in) == 0) {
    if (channel->finish && !channel->finished) {
      int rc = libssh2_channel_send_eof(channel->raw);
      channel->finished = rc == 0;
      ssh_fail_raw(ssh, rc);
    }
    return false;
  }
  ssize_t n =
      libssh2_channel_write_ex(channel->raw, 0, buf_peek(&channel->in), buf_size(&channel->in));
  if (n == LIBSSH2_ERROR_CHANNEL_CLOSED || n == LIBSSH2_ERROR_CHANNEL_EOF_SENT) {
    stop_input(channel);
    channel->changed = true;
    return false;
  }
  if (n <= 0) {
    ssh_fail_raw(ssh, (int)n);
    return false;
  }
  buf_consume(&channel->in, (size_t)n);
  channel->changed = channel->changed || buf_size(&channel->in) == 0;
  return true;
}

// A packet of each in turn, until the socket has enough to do.
static void write_turn(struct ssh *ssh) {
  bool more = true;
  while (more) {
    more = false;
    for (struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
      if (buf_size(&ssh->out) >= SSH_OUT_HIGH) {
        ssh_flush(ssh);
        if (buf_size(&ssh->out) >= SSH_OUT_HIGH) {
          // Whoever was not served comes first the next time.
          rotate(ssh, c);
          return;
        }
      }
      more = write_packet(c) || more;
    }
  }
}

void ssh_channels_turn(struct ssh *ssh) {
  listen_turn(ssh);
  struct ssh_channel *next;
  for (struct ssh_channel *c = ssh->first; c != NULL && ssh->death.code == NULL; c = next) {
    next = c->next;
    if (c->state == SSH_STARTING) {
      start_turn(c);
    } else if (c->state == SSH_RUNNING) {
      retire(c);
    } else if (c->state == SSH_CLOSING) {
      close_turn(c);
    }
  }
  open_turn(ssh);
  write_turn(ssh);
  for (struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
    if (c->want_read && c->state == SSH_RUNNING) {
      unsigned long available = 0;
      libssh2_channel_window_read_ex(c->raw, &available, NULL);
      if (available > 0 || libssh2_channel_eof(c->raw) != 0) {
        c->want_read = false;
        c->changed = true;
      }
    }
  }
}

void ssh_channels_end(struct ssh *ssh) {
  ssh->opening = NULL;
  ssh->opening_idle = false;
  ssh->idle = NULL;
  struct ssh_channel *next;
  for (struct ssh_channel *c = ssh->first; c != NULL; c = next) {
    next = c->next;
    if (c->state == SSH_RUNNING) {
      take_rest(c);
      if (libssh2_channel_wait_closed(c->raw) == 0) {
        note_exit(c);
      }
    }
    // Freed with the session.
    c->raw = NULL;
    if (c->state != SSH_DONE) {
      bool ended = c->exit.known;
      finish(c, ended ? NULL : ssh->death.code, ssh->death.text);
    }
  }
}

void ssh_channels_forget(struct ssh *ssh) {
  struct ssh_channel *next;
  for (struct ssh_channel *c = ssh->first; c != NULL; c = next) {
    next = c->next;
    detach(c);
    if (!c->owned) {
      destroy(c);
    }
  }
}

// A callback may free any channel, so each time the search starts anew.
static struct ssh_channel *next_changed(struct ssh *ssh) {
  for (struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
    // The analyser loses sight of what detach has taken out.
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc)
    if (c->changed || c->state == SSH_DONE) {
      return c;
    }
  }
  return NULL;
}

void ssh_channels_deliver(struct ssh *ssh) {
  struct ssh_channel *channel;
  while (!ssh->freed && (channel = next_changed(ssh)) != NULL) {
    channel->changed = false;
    if (channel->state == SSH_DONE) {
      detach(channel);
    }
    if (channel->owned) {
      channel->fn(channel, channel->data);
    } else if (channel->state == SSH_DONE) {
      destroy(channel);
    }
  }
}

// What owners call

int ssh_exec(struct ssh *ssh, const char *command, size_t size, ssh_channel_fn fn, void *data,
             struct ssh_channel **out) {
  if (ssh->fd < 0 || !ssh->serving || ssh->death.code != NULL) {
    return ERR_CLOSED;
  }
  if (size > SSH_COMMAND_MAX) {
    return -E2BIG;
  }
  struct ssh_channel *channel = calloc(1, sizeof *channel);
  if (channel == NULL) {
    return -ENOMEM;
  }
  channel->command = malloc(size + 1);
  if (channel->command == NULL) {
    free(channel);
    return -ENOMEM;
  }
  memcpy(channel->command, command, size);
  channel->command_size = size;
  channel->owned = true;
  channel->fn = fn;
  channel->data = data;
  buf_init(&channel->in, IN_MAX);
  // libssh2 never holds more than a window and a read for a channel.
  buf_init(&channel->rest[0], (size_t)ssh->window * 2 + REST_SPARE);
  buf_init(&channel->rest[1], (size_t)ssh->window * 2 + REST_SPARE);
  append(ssh, channel);
  ssh_kick(ssh);
  *out = channel;
  return 0;
}

void ssh_channel_close(struct ssh_channel *channel) {
  if (channel->state == SSH_DONE || channel->state == SSH_CLOSING) {
    return;
  }
  stop_input(channel);
  if (channel->failure.code == NULL) {
    ssh_set_failure(&channel->failure, "CLOSED", "the command was let go");
  }
  if (channel->state == SSH_QUEUED) {
    finish(channel, NULL, NULL);
  } else if (channel->state == SSH_RUNNING) {
    change(channel, SSH_CLOSING);
  }
  // Otherwise when the server has answered.
  ssh_kick(channel->ssh);
}

void ssh_channel_free(struct ssh_channel *channel) {
  if (channel == NULL) {
    return;
  }
  channel->owned = false;
  ssh_channel_close(channel);
  if (channel->state == SSH_DONE) {
    destroy(channel);
  }
}

enum ssh_state ssh_channel_state(const struct ssh_channel *channel) {
  return channel->state;
}

const struct ssh_failure *ssh_channel_failure(const struct ssh_channel *channel) {
  return &channel->failure;
}

const struct ssh_exit *ssh_channel_exit(const struct ssh_channel *channel) {
  return &channel->exit;
}

static int read_rest(struct ssh_channel *channel, void *bytes, size_t max, size_t *size,
                     int *stream) {
  for (int i = 0; i <= 1; i++) {
    *stream = i == 0 ? 1 - channel->last : channel->last;
    struct buf *rest = &channel->rest[*stream];
    size_t n = buf_size(rest);
    if (n > 0) {
      *size = n < max ? n : max;
      memcpy(bytes, buf_peek(rest), *size);
      buf_consume(rest, *size);
      channel->last = *stream;
      return 0;
    }
  }
  return ERR_EOF;
}

int ssh_channel_read(struct ssh_channel *channel, void *bytes, size_t max, size_t *size,
                     int *stream) {
  if (channel->state == SSH_DONE) {
    return read_rest(channel, bytes, max, size, stream);
  }
  if (channel->state == SSH_CLOSING) {
    return ERR_EOF;
  }
  // A read makes room for max bytes beyond the window.
  max = max < PIECE ? max : PIECE;
  bool running = channel->state == SSH_RUNNING;
  for (int i = 0; i <= 1 && running && channel->ssh->death.code == NULL; i++) {
    *stream = i == 0 ? 1 - channel->last : channel->last;
    struct buf *rest = &channel->rest[*stream];
    if (buf_size(rest) > 0) {
      return read_rest(channel, bytes, max, size, stream);
    }
    ssize_t n = libssh2_channel_read_ex(channel->raw, *stream, bytes, max);
    if (n > 0) {
      *size = (size_t)n;
      channel->last = *stream;
      // The window may have been opened again, which is a packet to be sent.
      if (buf_size(&channel->ssh->out) > 0) {
        ssh_kick(channel->ssh);
      }
      return 0;
    }
    ssh_fail_raw(channel->ssh, (int)n);
  }
  if (running && channel->ssh->death.code == NULL && libssh2_channel_eof(channel->raw) != 0) {
    return ERR_EOF;
  }
  channel->want_read = true;
  return -EAGAIN;
}

int ssh_channel_write(struct ssh_channel *channel, const void *bytes, size_t size) {
  if (channel->deaf || channel->finish) {
    return ERR_CLOSED;
  }
  int failed = buf_append(&channel->in, bytes, size);
  if (failed != 0) {
    return failed;
  }
  struct ssh *ssh = channel->ssh;
  while (buf_size(&ssh->out) < SSH_OUT_HIGH && write_packet(channel)) {
  }
  ssh_flush(ssh);
  return 0;
}

size_t ssh_channel_pending(const struct ssh_channel *channel) {
  return buf_size(&channel->in);
}

bool ssh_channel_has_dropped(const struct ssh_channel *channel) {
  return channel->dropped;
}

void ssh_channel_finish(struct ssh_channel *channel) {
  channel->finish = true;
  if (channel->state == SSH_RUNNING && channel->ssh->death.code == NULL) {
    write_packet(channel);
    ssh_flush(channel->ssh);
  }
}

struct ssh_census ssh_census(const struct ssh *ssh) {
  struct ssh_census census = {.memory = ssh->memory, .open = count_open(ssh)};
  for (const struct ssh_channel *c = ssh->first; c != NULL; c = c->next) {
    census.queued += c->state == SSH_QUEUED || c->state == SSH_OPENING;
  }
  return census;
}
