// SPDX-License-Identifier: MIT
#ifndef FARCALL_MUX_PRIVATE_H
#define FARCALL_MUX_PRIVATE_H

// What the files of the mux share: mux.c has the channels, mux_in.c reads what the peer sends,
// mux_out.c puts in order what goes to it.

#include "buf.h"
#include "list.h"
#include "mux.h"

enum mux_frame {
  FRAME_OPEN = 1,
  FRAME_DATA,
  FRAME_END,
  FRAME_WINDOW,
  FRAME_RESET,
  FRAME_ACK,
  FRAME_PING,
  FRAME_PONG
};
#define FRAME_HEAD 8
#define FRAME_MAX (FRAME_HEAD + MUX_MAX_PAYLOAD)
// After so many bytes the peer is told that they have come.
#define ACK_EVERY 65536
#define MAX_WINDOW ((uint32_t)1 << 31)

struct mux_channel {
  struct list sending;      // first; in m->fresh, m->rest, or m->lost
  struct list drained;      // in m->drained
  struct mux_channel *next; // of the same bucket
  struct mux *m;
  uint32_t id;
  void *user;

  struct buf in;
  size_t taken;       // bytes at the front of in that the caller still looks at
  size_t searched;    // bytes of in, from the front, that hold no newline
  uint32_t in_window; // bytes that the peer may send
  int in_end;         // 0, ERR_EOF or -ECONNRESET: nothing comes any more
  bool armed;         // what comes next is told: the last read answered -EAGAIN
  bool widened;       // more than the first window has been granted

  struct buf out;
  uint32_t out_window; // bytes that we may send
  bool finishing;      // nothing more may be written
  bool end_sent;
  bool owes_drained;
  bool aborted; // by the peer, or with the mux
  bool closed;  // by its user: only what is in out goes on
};

struct mux_bucket {
  struct mux_channel *first;
};

struct mux {
  struct mux_events events;
  void *data;
  enum mux_side side;
  size_t max_channels, window, max_kept;
  int failed; // what mux_feed has said
  bool suspended;
  bool feeding; // mux_feed is on the stack
  bool idle;    // mux_output had nothing

  struct mux_bucket *buckets;
  size_t bucket_count; // a power of two
  size_t count;        // channels in them
  size_t peers;        // of these, those that the peer has opened
  uint32_t own_last, peer_last;

  // The link's input: a head, then what belongs to it.
  uint64_t received;
  unsigned char head[FRAME_HEAD];
  size_t head_got;
  enum mux_frame type;
  uint32_t id;
  size_t left;        // bytes of the payload that have not come
  struct buf payload; // of a frame that came in pieces, but DATA

  // The link's output. The ring holds what the peer may not have: from `base`, which it is known to
  // have received, over `next`, up to which it is written, to `end`. Counted over all links.
  char *ring;
  size_t ring_size; // a power of two, or 0
  uint64_t base, next, end;
  struct buf control; // frames that go before data
  uint64_t acked;     // of received
  bool ack_due;
  uint64_t pings_due, pings_sent, pongs_due, pongs;
  // Channels with bytes that may be sent: those that had none before and now have few, and the
  // others.
  struct list fresh, rest;
  bool rest_turn;
  struct list drained; // that are to be told
  struct list lost;    // by mux_abort, that are to be told
};

// mux.c

// Also a channel that its user has closed.
struct mux_channel *mux_lookup(const struct mux *m, uint32_t id);
// A channel that has been opened by one of the two; in the table, but in no list. NULL: no memory.
struct mux_channel *mux_add(struct mux *m, uint32_t id);
// Forgets and frees it. Nothing is said to the peer.
void mux_drop(struct mux_channel *c);
// Lets the peer send more when it is time.
void mux_grant(struct mux_channel *c);
void mux_tell_readable(struct mux_channel *c);
// Nothing comes and goes on it any more; nobody is told.
void mux_cut(struct mux_channel *c);
// Tells the user of an aborted channel.
void mux_tell_cut(struct mux_channel *c);

// mux_out.c

// A frame that goes before data. When memory runs out the mux has failed.
void mux_control(struct mux *m, uint32_t id, enum mux_frame type, const void *payload, size_t size);
void mux_control_u32(struct mux *m, uint32_t id, enum mux_frame type, uint32_t value);
// c has bytes that may be sent, perhaps. fresh: it had none before.
void mux_want(struct mux_channel *c, bool fresh);
// The peer has received so many bytes. 0, or ERR_SYNTAX.
int mux_acknowledged(struct mux *m, uint64_t received);
// Tells of output when there was none. The last thing that a function does.
void mux_wake(struct mux *m);

#endif
