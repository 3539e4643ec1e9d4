// SPDX-License-Identifier: MIT
// Eight threads submit oneshots to the backends of a configuration while a script runs in the first
// of them and the persistent shell of each sleeps. Every answer is checked.
//
//   embed CONFIG BACKEND...          e.g. embed docker.lua box lab
//   cc embed.c $(pkg-config --cflags --libs farcall) -pthread
//
// Exits with 0 when everything held, 1 when something did not, 2 when it could not begin.

#include <farcall.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 8, ONESHOTS = 6, BACKENDS_MAX = 8, PATIENCE_MS = 120 * 1000 };

// What a request is, and what its result must be. Comes back as the result's user pointer.
struct expected {
  enum { ONESHOT, SHELL, SCRIPT, CLEAN_UP } kind;
  const char *backend;
  uint64_t id;
  char input[64];
  char output[128];
  int exit_code;
};

struct program {
  struct farcall *farcall;
  const char **backends;
  size_t count;
  struct expected oneshots[THREADS][BACKENDS_MAX][ONESHOTS];
  unsigned failures;
};

struct submitter {
  struct program *program;
  size_t number;
  pthread_t thread;
};

static int submit(struct farcall *farcall, const struct farcall_command *command, uint64_t *id) {
  int code;
  while ((code = farcall_oneshot(farcall, command, id)) == FARCALL_EAGAIN) {
    sched_yield(); // as many as may be are under way; they end by themselves
  }
  return code;
}

// Nothing here locks, and nothing waits for the engine.
static void *submit_all(void *argument) {
  struct submitter *self = argument;
  struct program *program = self->program;
  for (size_t i = 0; i < ONESHOTS; i++) {
    for (size_t b = 0; b < program->count; b++) {
      struct expected *expected = &program->oneshots[self->number][b][i];
      expected->kind = ONESHOT;
      expected->backend = program->backends[b];
      expected->exit_code = (int)(self->number * ONESHOTS + i);
      snprintf(expected->input, sizeof expected->input, "thread %zu, oneshot %zu", self->number, i);
      snprintf(expected->output, sizeof expected->output, "thread %zu, oneshot %zu at $HOME",
               self->number, i);
      char line[64];
      snprintf(line, sizeof line, "cat; printf ' at $HOME'; exit %d", expected->exit_code);
      struct farcall_command command = {
          .backend = expected->backend,
          .command = line,
          .stdin_bytes = expected->input,
          .stdin_size = strlen(expected->input),
          .timeout = 100,
          .user = expected,
      };
      int code = submit(program->farcall, &command, &expected->id);
      if (code != FARCALL_OK) {
        fprintf(stderr, "embed: %s\n", farcall_strerror(code));
        exit(1);
      }
    }
  }
  return NULL;
}

static void complain(struct program *program, const struct farcall_result *result,
                     const char *problem) {
  const struct expected *expected = result->user;
  program->failures++;
  fprintf(
      stderr, "embed: %s: %s: exit code %d, \"%s\", \"%s\"%s%s%s%s\n", expected->backend, problem,
      result->exit_code, result->out, result->err, result->error_kind != NULL ? ", " : "",
      result->error_kind != NULL ? result->error_kind : "", result->error_text != NULL ? ": " : "",
      result->error_text != NULL ? result->error_text : "");
}

static void check(struct program *program, const struct farcall_result *result) {
  const struct expected *expected = result->user;
  switch (expected->kind) {
  case ONESHOT:
    if (result->error_kind != NULL || result->exit_code != expected->exit_code ||
        strcmp(result->out, expected->output) != 0 || result->err_size != 0) {
      complain(program, result, "a wrong answer to a oneshot");
    }
    break;
  case SHELL: // it slept until it was cancelled
    if (result->error_kind == NULL || strcmp(result->error_kind, "cancelled") != 0) {
      complain(program, result, "the shell did not sleep to the end");
    }
    break;
  case SCRIPT:
    if (result->error_kind != NULL || result->exit_code != 0 || result->json == NULL ||
        strcmp(result->out, "the script has seen the file\n") != 0) {
      complain(program, result, "the script did not run to its end");
    }
    break;
  case CLEAN_UP:
    if (result->exit_code != 0) {
      complain(program, result, "cannot clean up");
    }
  }
}

// Picks up so many results, which must be of these kinds.
static void collect(struct program *program, size_t count, const char *what, bool long_ones) {
  for (size_t i = 0; i < count; i++) {
    struct farcall_result *result;
    int code = farcall_wait(program->farcall, PATIENCE_MS, &result);
    if (code != FARCALL_OK) {
      fprintf(stderr, "embed: %zu of %zu %s: %s\n", i, count, what, farcall_strerror(code));
      exit(1);
    }
    const struct expected *expected = result->user;
    if (!long_ones && (expected->kind == SHELL || expected->kind == SCRIPT)) {
      complain(program, result, "ended before the oneshots had");
    }
    check(program, result);
    farcall_result_free(result);
  }
}

static void must(int code, const char *what) {
  if (code != FARCALL_OK) {
    fprintf(stderr, "embed: %s: %s\n", what, farcall_strerror(code));
    exit(1);
  }
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 2 + BACKENDS_MAX) {
    fprintf(stderr, "usage: embed CONFIG BACKEND... (at most %d)\n", BACKENDS_MAX);
    return 2;
  }
  static struct program program;
  program.backends = (const char **)argv + 2;
  program.count = (size_t)argc - 2;
  struct farcall_options options = {.config = argv[1], .max_running = 32};
  char error[512];
  if (farcall_open(&options, &program.farcall, error, sizeof error) != FARCALL_OK) {
    fprintf(stderr, "embed: %s\n", error);
    return 2;
  }

  // A script that calls tools until a file appears, and shells that sleep.
  char file[64];
  snprintf(file, sizeof file, "/tmp/farcall-embed-%ld", (long)getpid());
  char script[512];
  snprintf(script, sizeof script,
           "import time\nfrom farcall import terminal\n"
           "while terminal('test -e %s')['exit_code'] != 0:\n    time.sleep(0.05)\n"
           "print('the script has seen the file')\n",
           file);
  struct expected running = {.kind = SCRIPT, .backend = program.backends[0]};
  struct farcall_job job = {
      .script = script,
      .language = "python",
      .backend = running.backend,
      .timeout = 100,
      .max_calls = 100000,
      .user = &running,
  };
  must(farcall_run(program.farcall, &job, &running.id), "the script");
  struct expected sleeping[BACKENDS_MAX];
  for (size_t b = 0; b < program.count; b++) {
    sleeping[b] = (struct expected){.kind = SHELL, .backend = program.backends[b]};
    struct farcall_command command = {
        .backend = sleeping[b].backend, .command = "sleep 1000", .user = &sleeping[b]};
    must(farcall_shell(program.farcall, &command, &sleeping[b].id), "the shell");
  }

  struct submitter submitters[THREADS];
  for (size_t i = 0; i < THREADS; i++) {
    submitters[i] = (struct submitter){.program = &program, .number = i};
    if (pthread_create(&submitters[i].thread, NULL, submit_all, &submitters[i]) != 0) {
      fputs("embed: no threads\n", stderr);
      return 2;
    }
  }
  size_t oneshots = THREADS * ONESHOTS * program.count;
  collect(&program, oneshots, "oneshots", false);
  for (size_t i = 0; i < THREADS; i++) {
    pthread_join(submitters[i].thread, NULL);
  }

  // All have come while script and shells were under way. Now those may end.
  struct expected making = {.kind = CLEAN_UP, .backend = running.backend};
  const char *const make[] = {"touch", file, NULL};
  struct farcall_command command = {.backend = making.backend, .argv = make, .user = &making};
  must(submit(program.farcall, &command, NULL), "the file");
  for (size_t b = 0; b < program.count; b++) {
    must(farcall_cancel(program.farcall, sleeping[b].id), "cancelling the shell");
  }
  collect(&program, 2 + program.count, "others", true);
  const char *const clean[] = {"rm", file, NULL};
  command.argv = clean;
  must(submit(program.farcall, &command, NULL), "the file");
  collect(&program, 1, "others", true);

  farcall_stop(program.farcall);
  struct farcall_result *result;
  if (farcall_wait(program.farcall, PATIENCE_MS, &result) != FARCALL_ECLOSED) {
    fputs("embed: more results than requests\n", stderr);
    program.failures++;
  }
  farcall_close(program.farcall);
  printf("embed: %zu oneshots from %d threads on %zu backends beside a script and %zu shells: "
         "%u wrong\n",
         oneshots, THREADS, program.count, program.count, program.failures);
  return program.failures == 0 ? 0 : 1;
}
