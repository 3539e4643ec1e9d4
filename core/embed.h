// SPDX-License-Identifier: MIT
#ifndef FARCALL_EMBED_H
#define FARCALL_EMBED_H

// What the two halves of libfarcall share: farcall.c, which any thread calls, and lua_embed.c, the
// engine's thread.

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "farcall.h"
#include "handoff.h"
#include "request.h"

struct farcall {
  struct handoff *handoff;
  pthread_t thread;
  unsigned generation; // of the process: another one after a fork

  // For the engine's thread; the pointers of options are the opener's, and good until it has posted
  // opened.
  struct farcall_options options;
  char tree[PATH_MAX];
  sem_t opened;
  bool has_opened; // the engine's thread has said how it went
  bool has_closed; // it has taken HANDOFF_CLOSE
  int code;        // of farcall_open
  char error[1024];
};

// A request with the result that it will have, drawn together so that no request can end without
// one.
struct embed_parcel {
  struct request *request;
  struct embed_result *result;
};

// Text of a result that is being made: NULL where there is none.
struct embed_text {
  const char *bytes;
  size_t size;
};
enum embed_text_name {
  EMBED_OUT,
  EMBED_ERR,
  EMBED_JSON,
  EMBED_SIGNAL_NAME,
  EMBED_ERROR_KIND,
  EMBED_ERROR_OP,
  EMBED_ERROR_TEXT,
  EMBED_ERROR_HINT,
  EMBED_ERROR_CODE,
  EMBED_TEXTS,
};
struct embed_outcome {
  int exit_code;
  int signal;
  bool timed_out, truncated, restarted;
  struct embed_text texts[EMBED_TEXTS];
};

// The engine's thread. What a request came to, copied; it is over then.
void embed_finish(struct farcall *handle, uint64_t id, const struct embed_outcome *outcome);
// farcall_open returns FARCALL_OK, or code and this text.
void embed_opened(struct farcall *handle, int code, const char *error);

// The thread's body: struct farcall -> NULL. Returns after HANDOFF_CLOSE, or when it could not
// open.
void *embed_serve(void *handle);

#endif
