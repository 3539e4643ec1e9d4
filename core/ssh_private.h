// SPDX-License-Identifier: MIT
#ifndef FARCALL_SSH_PRIVATE_H
#define FARCALL_SSH_PRIVATE_H

// What ssh.c (the connection) and ssh_channel.c (its channels) know of each other.

#include <libssh2.h>

#include "buf.h"
#include "ssh.h"

struct ssh_step;

struct ssh_channel {
  struct ssh *ssh; // NULL when the connection is gone
  struct ssh_channel *next, *before;
  LIBSSH2_CHANNEL *raw; // while it is open
  enum ssh_state state;
  bool owned;     // not freed yet
  bool changed;   // fn is to be called
  bool want_read; // a read has said -EAGAIN
  bool finish;    // end of input is wanted
  bool finished;  // and sent
  bool deaf;      // takes no input any more
  bool dropped;   // and had some left
  int last;       // the stream that was served the last time
  char *command;  // until it has been started
  size_t command_size;
  struct buf in;      // its standard input, to be sent
  struct buf rest[2]; // what was left when it was closed
  struct ssh_failure failure;
  struct ssh_exit exit;
  ssh_channel_fn fn;
  void *data;
};

struct ssh {
  struct loop *loop; // held
  int fd;            // owned; -1 when dead
  struct loop_fd watch;
  struct loop_timer kick;      // a turn is needed although nothing has come
  struct loop_timer keepalive; // runs while it serves
  struct loop_timer again;     // until a refused open is tried again
  LIBSSH2_SESSION *raw;
  struct ssh_block *blocks; // all that libssh2 has allocated
  size_t memory, max_memory;
  uint32_t window;
  struct buf out; // to be written to the socket

  size_t budget;    // bytes that this turn may still read
  bool dry;         // the socket has said that nothing is there
  bool heard;       // something came since the last tick of keepalive
  bool pumping;     // libssh2 is on the C stack
  bool serving;     // commands run
  bool freed;       // ssh_free was called from a callback
  unsigned missed;  // ticks without a byte
  unsigned calls;   // callbacks on the C stack
  uint64_t tick_ms; // of keepalive
  int socket_error; // -errno, or 1 for the end of the stream
  bool out_of_memory;

  struct ssh_step *step; // of getting ready, while one runs
  struct ssh_failure step_failure;
  char methods[256];
  struct ssh_failure death;
  ssh_fn on_death;
  void *on_death_data;

  struct ssh_channel *first, *last; // in the order of their starts
  struct ssh_channel *opening;
  LIBSSH2_CHANNEL *idle; // a closed channel: libssh2 reads the socket only for channels
  bool opening_idle, closing_idle;
  bool held;      // a refused open waits
  unsigned tries; // refused although no channel was open
};

// Notes that the connection cannot go on; the turn that runs, or the next one, ends it.
void ssh_fail(struct ssh *ssh, const char *code, const char *text);
// The same for a failing call of libssh2, unless it is only about waiting (returns false then).
bool ssh_fail_raw(struct ssh *ssh, int rc);
void ssh_set_failure(struct ssh_failure *failure, const char *code, const char *text);
// Asks for a turn.
void ssh_kick(struct ssh *ssh);
// Lets the queue of opens try again after ms, if it is held then.
void ssh_again(struct ssh *ssh, uint64_t ms);
// Writes what is queued, as far as the socket takes it.
void ssh_flush(struct ssh *ssh);
// Bytes of channels' input wait while more than this is on its way to the socket.
#define SSH_OUT_HIGH ((size_t)256 * 1024)

// One turn of all channels: reads, opens, starts, writes, closes.
void ssh_channels_turn(struct ssh *ssh);
// The connection is dying: takes what has come, ends all channels.
void ssh_channels_end(struct ssh *ssh);
// The connection goes: its channels, all done, remain their owners'.
void ssh_channels_forget(struct ssh *ssh);
// Calls what has changed. Channels may go meanwhile, and the connection too (ssh->freed).
void ssh_channels_deliver(struct ssh *ssh);

#endif
