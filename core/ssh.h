// SPDX-License-Identifier: MIT
#ifndef FARCALL_SSH_H
#define FARCALL_SSH_H

// An SSH connection (libssh2) on the poll loop: handshake, authentication, then any number of
// commands, each on a channel of its own. Nothing here waits. What libssh2 sends goes through a
// queue of our own, so that no call of it is ever cut short in the middle of a packet: a session is
// one state machine, and after a partial send every other channel's write would fail. Channels are
// opened one after the other (libssh2 keeps that state in the session); a refused open is tried
// again when another channel has closed.
//
// Everything belongs to the loop's thread. Callbacks come from the loop only, never out of a
// function of this file, and may call anything here, ssh_free included.
//
// What the far side can make us hold is bounded: window bytes a channel that nobody reads,
// max_memory for all that libssh2 keeps.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"

struct ssh;
struct ssh_channel;

// What went wrong, NULL code: nothing. The code is one of
//   LOST      the other side went away          TIMEOUT    it does not answer any more
//   KEX       no common algorithms              AUTH       this key or user was refused
//   KEYFILE   the private key cannot be used    REFUSED    the channel was refused
//   DENIED    the command was refused           LIMIT      it made us hold too much
//   PROTOCOL  it said something that it must not
//   CLOSED    we closed it
struct ssh_failure {
  const char *code; // static
  char text[160];
};

struct ssh_options {
  uint32_t window;   // bytes that a channel may send before somebody reads them; 0: 512 KiB
  size_t max_memory; // 0: 256 MiB
};

typedef void (*ssh_fn)(struct ssh *ssh, void *data);

// Takes over a connected, non-blocking socket. 0 or -errno; then fd is still the caller's.
int ssh_new(struct loop *loop, int fd, const struct ssh_options *options, struct ssh **out);
// Says goodbye if it can be said at once, and closes: a step and all channels end with CLOSED, as
// their callbacks hear from the loop. Idempotent.
void ssh_close(struct ssh *ssh);
// Closes and frees; no callback comes any more. Its channels remain their owners'. Accepts NULL.
void ssh_free(struct ssh *ssh);

// NULL code while it lives.
const struct ssh_failure *ssh_death(const struct ssh *ssh);
// fn is called once, when it has died.
void ssh_on_death(struct ssh *ssh, ssh_fn fn, void *data);

// The steps before it can be used, one at a time. Each calls fn once, at its end or when the
// connection died; ssh_step_failure tells how it went. ERR_CLOSED when it is dead, -EBUSY while
// another step runs, or -ENOMEM; then fn is not called.

// Exchanges keys. host_keys: the types wanted ("ssh-ed25519,ecdsa-sha2-nistp256"), best first, or
// NULL for all.
int ssh_handshake(struct ssh *ssh, const char *host_keys, ssh_fn fn, void *data);
// Asks what the server would take; see ssh_methods.
int ssh_auth_methods(struct ssh *ssh, const char *user, ssh_fn fn, void *data);
// With a private key in a format of OpenSSH or PEM, not encrypted.
int ssh_auth_key(struct ssh *ssh, const char *user, const void *key, size_t size, ssh_fn fn,
                 void *data);
// With a public key (its blob) whose owner signs: sign is called from the loop with the bytes,
// which are borrowed until it returns; the answer goes to ssh_signed.
typedef void (*ssh_sign_fn)(struct ssh *ssh, const void *bytes, size_t size, void *data);
int ssh_auth_signer(struct ssh *ssh, const char *user, const void *blob, size_t size,
                    ssh_sign_fn sign, ssh_fn fn, void *data);
// The signature proper, without the name of its format; NULL: there will be none.
int ssh_signed(struct ssh *ssh, const void *signature, size_t size);

// How the last step went; the code is NULL if well.
const struct ssh_failure *ssh_step_failure(const struct ssh *ssh);
// The server's host key, borrowed; NULL before the handshake.
const char *ssh_host_key(const struct ssh *ssh, size_t *size);
// "publickey,password", or "" when the server lets this user in without anything. Borrowed.
const char *ssh_methods(const struct ssh *ssh);
bool ssh_is_authenticated(const struct ssh *ssh);

// From here on commands run. When nothing was heard for keepalive_ms (0: never, else a second
// at least), a question is sent; after three of these times without a byte the connection is dead
// (TIMEOUT).
int ssh_serve(struct ssh *ssh, uint64_t keepalive_ms);

// Counts, for specs: bytes that libssh2 holds, channels that the server has or that wait for it.
struct ssh_census {
  size_t memory, open, queued;
};
struct ssh_census ssh_census(const struct ssh *ssh);

// Channels

enum ssh_state {
  SSH_QUEUED,   // not started: waits for its turn
  SSH_OPENING,  // and
  SSH_STARTING, // ... on the way
  SSH_RUNNING,  // the server has started the command
  SSH_CLOSING,  // we close it
  SSH_DONE      // closed on both sides, or lost
};

struct ssh_exit {
  bool known;      // false: it was lost or closed before it ended
  int code;        // when signal is ""
  char signal[24]; // its name without SIG
};

// fn is called from the loop when the state has changed, when a read that said -EAGAIN could say
// something else now, and when everything written has gone.
typedef void (*ssh_channel_fn)(struct ssh_channel *channel, void *data);

// libssh2 makes packets of at most 35,000 bytes less some (MAX_SSH_PACKET_LEN, transport.c).
enum { SSH_COMMAND_MAX = 32768 };

// A command for the user's shell. -E2BIG when it has more than SSH_COMMAND_MAX bytes; ERR_CLOSED
// when the connection is dead or does not serve yet.
int ssh_exec(struct ssh *ssh, const char *command, size_t size, ssh_channel_fn fn, void *data,
             struct ssh_channel **out);
// Lets go; a channel that is open is closed in the background. fn is not called any more.
void ssh_channel_free(struct ssh_channel *channel);

enum ssh_state ssh_channel_state(const struct ssh_channel *channel);
// Why it ended before its command did; NULL code if it did not.
const struct ssh_failure *ssh_channel_failure(const struct ssh_channel *channel);
const struct ssh_exit *ssh_channel_exit(const struct ssh_channel *channel);

// Up to max bytes of standard output (*stream 0) or error (1), whichever was not served the last
// time first. 0, -EAGAIN, or ERR_EOF at the end of both. What had come before the connection died
// can still be read.
int ssh_channel_read(struct ssh_channel *channel, void *bytes, size_t max, size_t *size,
                     int *stream);
// Queues bytes for standard input. 0, ERR_LIMIT when more than 4 MiB would be queued (nothing is
// taken), or ERR_CLOSED.
int ssh_channel_write(struct ssh_channel *channel, const void *bytes, size_t size);
size_t ssh_channel_pending(const struct ssh_channel *channel);
// Whether the command ended before all that was queued had been sent.
bool ssh_channel_has_dropped(const struct ssh_channel *channel);
// Ends standard input after what is queued. Idempotent.
void ssh_channel_finish(struct ssh_channel *channel);
// Lets go of the command, which may run on: its output ends here, its exit is not told any more.
// The server keeps the channel until the command ends or has read what it was sent. Idempotent.
void ssh_channel_close(struct ssh_channel *channel);

#endif
