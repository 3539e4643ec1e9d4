// SPDX-License-Identifier: MIT
// libfarcall as a whole, with a backend that answers by itself, so that nothing but the library is
// measured: submitters, cancellers, collectors, handles that are closed in the middle.
// Usage: stress_embed CONFIG [REQUESTS_A_SUBMITTER] [ROUNDS]; spec/stress/echo.lua is in the
// configuration's backend_path.

#include <farcall.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUBMITTERS = 8, COLLECTORS = 2, TEXT = 32 };

struct bout {
  struct farcall *farcall;
  size_t requests;
  atomic_size_t accepted, refused, collected, cancelled, logged;
};

struct expected {
  char text[TEXT];
};

static void fail(const char *what, const char *more) {
  printf("FAILED: %s: %s\n", what, more != NULL ? more : "");
  exit(1);
}

static void *submit(void *argument) {
  struct bout *bout = argument;
  unsigned random = (unsigned)(size_t)&random;
  for (size_t i = 0; i < bout->requests; i++) {
    struct expected *expected = malloc(sizeof *expected);
    snprintf(expected->text, TEXT, "%zu", i * 1000 + (size_t)(rand_r(&random) % 1000));
    struct farcall_command command = {.backend = "echo",
                                      .command = "cat",
                                      .stdin_bytes = expected->text,
                                      .stdin_size = strlen(expected->text),
                                      .user = expected};
    uint64_t id = 0;
    int code;
    while ((code = farcall_oneshot(bout->farcall, &command, &id)) == FARCALL_EAGAIN) {
      atomic_fetch_add(&bout->refused, 1);
      sched_yield();
    }
    if (code == FARCALL_ECLOSED) {
      free(expected);
      return NULL;
    } else if (code != FARCALL_OK) {
      fail("submit", farcall_strerror(code));
    }
    atomic_fetch_add(&bout->accepted, 1);
    if (rand_r(&random) % 8 == 0) {
      farcall_cancel(bout->farcall, id);
    }
  }
  return NULL;
}

static void *collect(void *argument) {
  struct bout *bout = argument;
  struct farcall_result *result;
  int code;
  while ((code = farcall_wait(bout->farcall, 60 * 1000, &result)) == FARCALL_OK) {
    struct expected *expected = result->user;
    if (result->error_kind != NULL) {
      if (strcmp(result->error_kind, "cancelled") != 0) {
        fail(result->error_kind, result->error_text);
      }
      atomic_fetch_add(&bout->cancelled, 1);
    } else if (strcmp(result->out, expected->text) != 0 || result->exit_code != 7) {
      fail("a wrong answer", result->out);
    }
    free(expected);
    farcall_result_free(result);
    atomic_fetch_add(&bout->collected, 1);
  }
  if (code != FARCALL_ECLOSED) {
    fail("wait", farcall_strerror(code));
  }
  return NULL;
}

static void note(void *data, const char *level, const char *text) {
  struct bout *bout = data;
  atomic_fetch_add(&bout->logged, strlen(level) + strlen(text) > 0);
}

static void run(const char *config, size_t requests, bool stop_early) {
  struct bout bout = {.requests = requests};
  struct farcall_options options = {
      .config = config, .max_requests = 64, .log = note, .log_data = &bout};
  char error[512];
  if (farcall_open(&options, &bout.farcall, error, sizeof error) != FARCALL_OK) {
    fail("open", error);
  }
  pthread_t submitters[SUBMITTERS];
  pthread_t collectors[COLLECTORS];
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
  while (stop_early && atomic_load(&bout.collected) < requests) {
    sched_yield();
  }
  if (stop_early) {
    farcall_stop(bout.farcall);
  }
  for (int i = 0; i < SUBMITTERS; i++) {
    pthread_join(submitters[i], NULL);
  }
  farcall_stop(bout.farcall);
  for (int i = 0; i < COLLECTORS; i++) {
    pthread_join(collectors[i], NULL);
  }
  farcall_close(bout.farcall);
  size_t accepted = atomic_load(&bout.accepted);
  if (accepted != atomic_load(&bout.collected)) {
    fail("requests were lost", NULL);
  }
  printf("%8zu requests, %zu cancelled, %zu refused\n", accepted, atomic_load(&bout.cancelled),
         atomic_load(&bout.refused));
}

int main(int argc, char **argv) {
  if (argc < 2) {
    return 2;
  }
  size_t requests = argc > 2 ? strtoul(argv[2], NULL, 10) : 5000;
  size_t rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 10;
  run(argv[1], requests, false);
  for (size_t i = 0; i < rounds; i++) {
    run(argv[1], requests / 4, true);
  }
  return 0;
}
