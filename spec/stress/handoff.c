// SPDX-License-Identifier: MIT
// Submitters, cancellers and those who pick up results on all sides of one handoff, with a server
// that finishes in any order, and a stop in the middle: every accepted request has one result,
// every slot comes back. Usage: stress_handoff [REQUESTS_A_SUBMITTER]

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "err.h"
#include "handoff.h"

enum { SUBMITTERS = 8, COLLECTORS = 3, REQUESTS = 100 * 1000, HELD = 16 };

// Written by the submitter, then by the server, then read by who picks up, without any
// synchronization of their own.
struct request {
  size_t answered;
  size_t cancelled;
  uint64_t id;
};

struct bout {
  struct handoff *handoff;
  size_t requests;   // of each submitter
  size_t stop_after; // so many served; 0: when all have come
  atomic_size_t accepted;
  atomic_size_t refused;
  atomic_size_t collected;
  atomic_size_t cancelled;
  size_t cancels_seen; // the server's
  atomic_bool failed;
};

static void fail(struct bout *bout, const char *what) {
  atomic_store(&bout->failed, true);
  printf("FAILED: %s\n", what);
  exit(1);
}

static void *submit(void *argument) {
  struct bout *bout = argument;
  unsigned random = (unsigned)(size_t)&random;
  for (size_t i = 0; i < bout->requests; i++) {
    struct request *request = calloc(1, sizeof *request);
    uint64_t id = 0;
    int code;
    while ((code = handoff_submit(bout->handoff, request, &id)) == -EAGAIN) {
      atomic_fetch_add_explicit(&bout->refused, 1, memory_order_relaxed);
      sched_yield();
    }
    if (code == ERR_CLOSED) {
      free(request);
      return NULL;
    }
    atomic_fetch_add(&bout->accepted, 1);
    // The request may be gone by now, the id is still good.
    if (rand_r(&random) % 4 == 0) {
      code = handoff_cancel(bout->handoff, id);
      if (code == 0) {
        atomic_fetch_add(&bout->cancelled, 1);
        handoff_cancel(bout->handoff, id);
      } else if (code != -ENOENT) {
        fail(bout, "cancel");
      }
    }
  }
  return NULL;
}

static void *collect(void *argument) {
  struct bout *bout = argument;
  for (;;) {
    void *result = NULL;
    int code = handoff_wait(bout->handoff, 60 * 1000, &result);
    if (code == ERR_CLOSED) {
      return NULL;
    } else if (code != 0) {
      fail(bout, "nothing came for a minute");
    }
    struct request *request = result;
    if (request->answered != 1) {
      fail(bout, "a result that is not the server's");
    }
    free(request);
    atomic_fetch_add(&bout->collected, 1);
  }
}

static void finish(struct bout *bout, struct request *request) {
  request->answered++;
  handoff_finish(bout->handoff, request->id, request);
}

static void *serve(void *argument) {
  struct bout *bout = argument;
  struct request *held[HELD] = {NULL};
  size_t served = 0;
  bool stopping = false;
  for (;;) {
    struct handoff_event event = handoff_take(bout->handoff);
    if (event.what == HANDOFF_CLOSE) {
      return NULL;
    } else if (event.what == HANDOFF_STOP) {
      stopping = true;
    } else if (event.what == HANDOFF_CANCEL) {
      struct request *request = handoff_request(bout->handoff, event.id);
      if (request->id != event.id) {
        fail(bout, "a cancellation for somebody else");
      }
      request->cancelled++;
      bout->cancels_seen++;
    } else if (event.what == HANDOFF_REQUEST) {
      struct request *request = event.request;
      request->id = event.id;
      // Finishes another one, which it has held for a while.
      struct request **place = &held[served++ % HELD];
      struct request *other = *place;
      *place = request;
      if (other != NULL) {
        finish(bout, other);
      }
      if (served == bout->stop_after) {
        handoff_stop(bout->handoff);
      }
    } else {
      for (size_t i = 0; i < HELD; i++) {
        if (held[i] != NULL) {
          finish(bout, held[i]);
          held[i] = NULL;
        }
      }
      if (stopping && handoff_unfinished(bout->handoff) == 0) {
        handoff_end(bout->handoff);
        stopping = false;
      }
      handoff_turn(bout->handoff, -1);
    }
  }
}

static void run(const char *name, size_t slots, size_t requests, size_t stop_after) {
  struct bout bout = {.requests = requests, .stop_after = stop_after};
  pthread_t server;
  pthread_t submitters[SUBMITTERS];
  pthread_t collectors[COLLECTORS];
  if (handoff_new(slots, &bout.handoff) != 0 || pthread_create(&server, NULL, serve, &bout) != 0) {
    abort();
  }
  for (int i = 0; i < COLLECTORS; i++) {
    if (pthread_create(&collectors[i], NULL, collect, &bout) != 0) {
      abort();
    }
  }
  for (int i = 0; i < SUBMITTERS; i++) {
    if (pthread_create(&submitters[i], NULL, submit, &bout) != 0) {
      abort();
    }
  }
  for (int i = 0; i < SUBMITTERS; i++) {
    pthread_join(submitters[i], NULL);
  }
  handoff_stop(bout.handoff);
  for (int i = 0; i < COLLECTORS; i++) {
    pthread_join(collectors[i], NULL);
  }
  handoff_close(bout.handoff);
  pthread_join(server, NULL);
  size_t accepted = atomic_load(&bout.accepted);
  if (accepted != atomic_load(&bout.collected) ||
      (stop_after == 0 && accepted != requests * SUBMITTERS)) {
    fail(&bout, "requests were lost");
  }
  // A cancellation may come too late to be seen, and one that was seen may be asked for again.
  printf("%-24s %8zu requests, %zu refused, %zu of %zu cancellations seen\n", name, accepted,
         atomic_load(&bout.refused), bout.cancels_seen, atomic_load(&bout.cancelled));
  handoff_free(bout.handoff);
}

int main(int argc, char **argv) {
  size_t requests = argc > 1 ? strtoul(argv[1], NULL, 10) : REQUESTS;
  run("1024 slots", 1024, requests, 0);
  run("17 slots", 17, requests / 2, 0);
  run("1 slot", 1, requests / 20, 0);
  for (size_t i = 1; i <= 20; i++) {
    run("stopped in between", 64, requests, i * requests / 40 + 1);
  }
  return 0;
}
