// SPDX-License-Identifier: MIT
#ifndef FARCALL_HANDOFF_H
#define FARCALL_HANDOFF_H

// How requests go from any thread to the one that serves them, and results back: a fixed number of
// slots, the oneshot queue one way, a ring of slots the other. No lock anywhere; what can fail
// fails at submission, and nothing that was accepted is lost. It owns neither requests nor results
// and knows nothing of what they are.
//
// A slot is drawn by the submitter, filled, and given back by whoever picks up the result. Both
// ways have room for every slot, so neither a cancellation nor a result can meet a full queue.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HANDOFF_SLOTS_MAX = 65536 };

struct handoff;

// 0 and *out, or -errno; -EINVAL for 0 slots or too many.
int handoff_new(size_t slots, struct handoff **out);
// When no thread uses it any more. What is left in it is forgotten. Accepts NULL.
void handoff_free(struct handoff *handoff);

// Any thread.

// 0 and *id, which is below 2^53; -EAGAIN when no slot is free; ERR_CLOSED after handoff_stop.
int handoff_submit(struct handoff *handoff, void *request, uint64_t *id);
// The server will see HANDOFF_CANCEL for this request, unless it has finished it by then. 0, or
// -ENOENT.
int handoff_cancel(struct handoff *handoff, uint64_t id);
// Nothing is accepted from now on. The server sees HANDOFF_STOP. Idempotent.
void handoff_stop(struct handoff *handoff);
// The server sees HANDOFF_CLOSE. Once, and last.
void handoff_close(struct handoff *handoff);
// A result, within so many milliseconds (-1: for ever). 0; -EAGAIN; ERR_CLOSED when the server has
// ended and all have been picked up; -errno.
int handoff_wait(struct handoff *handoff, int timeout_ms, void **result);
// Readable while handoff_wait has something to say; to be watched only.
int handoff_fd(const struct handoff *handoff);

// The serving thread.

enum handoff_what { HANDOFF_NOTHING, HANDOFF_REQUEST, HANDOFF_CANCEL, HANDOFF_STOP, HANDOFF_CLOSE };
struct handoff_event {
  enum handoff_what what;
  uint64_t id;   // of a request or cancellation
  void *request; // of a request
};

// Readable when handoff_turn has something to do. -errno on failure.
int handoff_pollfd(struct handoff *handoff);
// Collects what has come, waiting at most timeout_ms for something (-1: for ever). 0 or -errno.
int handoff_turn(struct handoff *handoff, int timeout_ms);
// The next event that a turn has collected; HANDOFF_NOTHING when there is none.
struct handoff_event handoff_take(struct handoff *handoff);
// The request of an id that was taken and not finished.
void *handoff_request(const struct handoff *handoff, uint64_t id);
// Hands the result of a request over to whoever waits. Once for each.
void handoff_finish(struct handoff *handoff, uint64_t id, void *result);
// An id that was taken and is not finished; false when there is none. To fail them all.
bool handoff_any_taken(const struct handoff *handoff, uint64_t *id);
// How many are accepted and not finished, those that are still to come included. After HANDOFF_STOP
// it only falls.
size_t handoff_unfinished(const struct handoff *handoff);
// All is finished and the server has ended: the waiting are told, after the last result.
void handoff_end(struct handoff *handoff);

#endif
