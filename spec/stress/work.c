// SPDX-License-Identifier: MIT
// Jobs of every kind, cancelled at random and closed while they run, again and again: for the
// sanitizers. Usage: stress_work [ROUNDS]

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs.h"
#include "work.h"

enum { ROUNDS = 200, JOBS = 60 };

struct round {
  struct work *work;
  struct loop *loop;
  char path[JOBS][64];
  uint64_t ids[JOBS];
  size_t came;
  size_t close_after; // so many callbacks
  bool closed;
};

static void done(const struct work_result *result, void *data) {
  struct round *round = data;
  if (result->code != 0 && result->what != NULL && strstr(result->what, "farcall") != NULL &&
      result->code != -ENOENT) {
    fprintf(stderr, "%s: %d\n", result->what, result->code);
    abort();
  }
  round->came++;
  if (round->came == round->close_after && !round->closed) {
    round->closed = true;
    work_free(round->work); // from inside a callback
  }
}

static void submit(struct round *round, size_t i, int fd) {
  static const enum work_kind kinds[] = {WORK_WRITE, WORK_READ, WORK_SYNC, WORK_WRITE,
                                         WORK_RESOLVE};
  struct work_request request = {
      .kind = kinds[i % 5],
      .path = round->path[i % 5 == 1 ? i - 1 : i],
      .bytes = round->path,
      .size = sizeof round->path,
      .write = {.mode = 0600, .sync = i % 10 == 3},
      .max = 4096,
      .fd = fd,
      .host = i % 2 == 0 ? "127.0.0.1" : "localhost",
      .port = "80",
      .done = done,
      .data = round,
  };
  if (work_submit(round->work, &request, &round->ids[i]) != 0) {
    abort();
  }
}

static void play(const char *dir, int number) {
  struct round *round = calloc(1, sizeof *round);
  if (round == NULL || loop_new(&round->loop) != 0 || work_new(round->loop, &round->work) != 0) {
    abort();
  }
  int fd = open(dir, O_RDONLY | O_CLOEXEC);
  for (size_t i = 0; i < JOBS; i++) {
    snprintf(round->path[i], sizeof round->path[i], "%s/%zu", dir, i);
    submit(round, i, fd);
  }
  close(fd); // the jobs have their own
  size_t cancelled = 0;
  for (int i = 0; i < number % 20; i++) {
    cancelled += work_cancel(round->work, round->ids[rand() % JOBS]);
  }
  if (number % 3 == 0) {
    round->close_after = (size_t)(rand() % 30) + 1;
  } else if (number % 3 == 1) {
    loop_turn(round->loop, 1);
    round->closed = true;
    work_free(round->work);
  }
  if (loop_run(round->loop) != 0 || (!round->closed && round->came + cancelled != JOBS)) {
    fprintf(stderr, "round %d: %zu of %d came, %zu cancelled\n", number, round->came, JOBS,
            cancelled);
    abort();
  }
  if (!round->closed) {
    work_free(round->work);
  }
  loop_free(round->loop);
  free(round);
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
  char dir[] = "/tmp/farcall-stress-XXXXXX";
  if (mkdtemp(dir) == NULL) {
    return 1;
  }
  srand(1);
  for (int i = 0; i < rounds; i++) {
    play(dir, i);
  }
  printf("work: %d rounds of %d jobs\n", rounds, JOBS);
  return fs_rmtree(dir) != 0;
}
