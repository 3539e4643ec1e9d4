// SPDX-License-Identifier: MIT
// farcall-runner: what the engine brings into an environment to have its scripts run there.

#include <stdio.h>
#include <string.h>

#include "attach.h"
#include "connect.h"
#include "door.h"
#include "serve.h"
#include "words.h"

#define LEASE_MS 45000

static int serve(int argc, char **argv) {
  struct serve_options options = {
      .mark = argv[2], .lease_ms = LEASE_MS, .dir = argc == 5 ? argv[4] : NULL};
  char *lease = strchr(argv[3], ':');
  if (lease != NULL) {
    *lease++ = '\0';
  }
  if (!words_number(argv[3], 10, 1000000000, &options.grace_ms) ||
      (lease != NULL && !words_number(lease, 10, 1000000000, &options.lease_ms)) ||
      strlen(options.mark) != DOOR_MARK) {
    return -1;
  }
  return serve_main(&options);
}

static int choose(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : "";
  if (strcmp(verb, "serve") == 0 && (argc == 4 || argc == 5)) {
    return serve(argc, argv);
  }
  if (strcmp(verb, "attach") == 0 && argc == 4) {
    return attach_main(argv[2], argv[3]);
  }
  if (strcmp(verb, "connect") == 0 && argc == 3) {
    return connect_main(argv[2], false);
  }
  if (strcmp(verb, "ask") == 0 && argc == 3) {
    return connect_main(argv[2], true);
  }
  if (strcmp(verb, "version") == 0 && argc == 2) {
    puts("1");
    return 0;
  }
  return -1;
}

int main(int argc, char **argv) {
  int status = choose(argc, argv);
  if (status < 0) {
    fputs("usage: farcall-runner serve MARK GRACE_MS[:LEASE_MS] [DIR]\n"
          "       farcall-runner attach MARK DIR\n"
          "       farcall-runner connect PATH\n"
          "       farcall-runner ask PATH\n"
          "       farcall-runner version\n",
          stderr);
    return 2;
  }
  return status;
}
