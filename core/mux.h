// SPDX-License-Identifier: MIT
#ifndef FARCALL_MUX_H
#define FARCALL_MUX_H

// Many byte streams over one: what the stream transport and the runner speak (docs/wire.md has the
// frames). Both sides are the same machine; it does no I/O, keeps no time and starts no thread. It
// belongs to one thread. Links end and others take their place: what the peer has not acknowledged
// is kept, so that mux_resume can go on with a new link where the old one ended, and no byte is
// lost or comes twice.
//
// A channel has two directions. Each has a window: who sends stops when the receiver has not taken
// that much, so that memory is bounded on both sides whatever the peer does. Everything that the
// peer says is checked; what breaks the rules is ERR_SYNTAX or ERR_LIMIT from mux_feed, and then
// the link is of no use any more.
//
// Every function may be called from the callbacks, but for mux_free and mux_feed.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that each side may send on a new channel before it is granted more.
#define MUX_FIRST_WINDOW 65536
// Bytes of a request with which a channel is opened, and of a frame's payload.
#define MUX_MAX_REQUEST 32768
#define MUX_MAX_PAYLOAD 32768

struct mux;
struct mux_channel;

enum mux_side { MUX_ENGINE, MUX_RUNNER }; // whose channels have even, and odd numbers

struct mux_options {
  enum mux_side side;
  size_t max_channels; // that the peer may have opened at the same time; more are reset. 0: 1024
  size_t window;   // bytes that the peer may send and nobody has taken, per channel; 0: 1 MiB; at
                   // least 64 KiB
  size_t max_kept; // bytes sent and not acknowledged, beyond which no data are sent; 0: 4 MiB; at
                   // least 128 KiB
};

struct mux_events {
  // The peer has opened a channel. request is borrowed for the call. Unless it is kept
  // (mux_channel_set) or closed here, it is closed after the call.
  void (*opened)(struct mux *m, struct mux_channel *c, const char *request, size_t size,
                 void *data);
  // Something can be read of c that could not be before: bytes, the end or the abort. It is called
  // again only after a read has answered -EAGAIN.
  void (*readable)(struct mux_channel *c, void *user);
  // All that was written to c has been sent, or c was aborted; after a write that left something
  // pending, once.
  void (*drained)(struct mux_channel *c, void *user);
  // mux_output has something again, after it had nothing.
  void (*output)(struct mux *m, void *data);
};

// events are copied. 0 or -ENOMEM. data is handed to `opened` and `output`.
int mux_new(const struct mux_options *options, const struct mux_events *events, void *data,
            struct mux **out);
// Frees it with all channels; no callback comes. Accepts NULL.
void mux_free(struct mux *m);
// The link is lost for good, or the peer is not to be heard any more: every channel is aborted as
// if by the peer, and its user is told. mux_feed gives ERR_CLOSED from now on, or the error that it
// has given before. Idempotent.
void mux_abort(struct mux *m);

// Bytes of the link. 0, ERR_SYNTAX or ERR_LIMIT when the peer broke the rules, -ENOMEM. After an
// error every further call gives the same.
int mux_feed(struct mux *m, const void *bytes, size_t size);

// What is to be written to the link next, borrowed until the next call that is not const. False
// when there is nothing. Not more than some 64 KiB at a time are put in order ahead: what is
// written to another channel meanwhile gets its turn.
bool mux_output(struct mux *m, const char **bytes, size_t *size);
// So many of them have been written.
void mux_written(struct mux *m, size_t size);

// The link is lost. Nothing comes out until mux_resume.
void mux_suspend(struct mux *m);
// How many bytes have been fed in all: what the peer's mux_resume needs.
uint64_t mux_received(const struct mux *m);
// A new link; the peer has received so many bytes. 0, or ERR_SYNTAX when that cannot be.
int mux_resume(struct mux *m, uint64_t peer_received);

// Asks the peer for a sign of life: it answers by itself. mux_pongs counts the answers.
void mux_ping(struct mux *m);
uint64_t mux_pongs(const struct mux *m);

// Opens a channel with a request. 0, ERR_LIMIT, ERR_CLOSED after an error of the link, or -ENOMEM.
int mux_open(struct mux *m, const void *request, size_t size, struct mux_channel **out);

uint32_t mux_channel_id(const struct mux_channel *c);
// A channel that the peer has opened, or that mux_open gave and nobody has closed; or NULL.
struct mux_channel *mux_find(struct mux *m, uint32_t id);
struct mux *mux_of(const struct mux_channel *c);
// What is handed to the callbacks; not NULL means that the channel is kept.
void mux_channel_set(struct mux_channel *c, void *user);
void *mux_channel_get(const struct mux_channel *c);

// Bytes that can be read, borrowed until the next call on c; then mux_consume says how many of them
// have been taken. 0, -EAGAIN, ERR_EOF after the peer's end, -ECONNRESET after its abort (what came
// before the end or the abort is delivered first).
int mux_peek(struct mux_channel *c, const char **bytes, size_t *size);
void mux_consume(struct mux_channel *c, size_t size);
// Both at once, up to max bytes (at least 1). Borrowed until the next call on c.
int mux_read(struct mux_channel *c, size_t max, const char **bytes, size_t *size);
// A line without its newline, borrowed until the next call on c. As mux_read, and ERR_LIMIT when it
// is longer than max bytes. A line may be longer than the window. Bytes after the last newline are
// no line: they give ERR_EOF (or -ECONNRESET), and mux_read still returns them.
int mux_readline(struct mux_channel *c, size_t max, const char **line, size_t *size);

// Sends bytes as soon as the window and the link allow. 0; ERR_LIMIT when more than 256 MiB would
// be pending (nothing is taken); ERR_CLOSED after mux_finish; -EPIPE when the peer has aborted;
// -ENOMEM.
int mux_write(struct mux_channel *c, const void *bytes, size_t size);
// Bytes accepted and not yet handed to the link.
size_t mux_pending(const struct mux_channel *c);
// Ends our direction behind what is pending. Idempotent.
void mux_finish(struct mux_channel *c);
// Gives the channel up: what was not sent is lost unless mux_finish was called before; the peer
// sees an abort unless both directions have ended. c must not be used afterwards. Accepts NULL.
void mux_close(struct mux_channel *c);

#endif
