// SPDX-License-Identifier: MIT
#include "directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "claim.h"
#include "remove.h"
#include "spawn.h"

struct directory {
  struct port port;
  int claim;
  char path[PATH_MAX];
};

static void directory_free(struct directory *directory) {
  close(directory->claim);
  port_fini(&directory->port);
  free(directory);
}

// Removes it, in a child, because how long that takes is for scripts to say. The first time also
// what dead runners have left beside it.
static void drop(struct directory *directory) {
  struct runner *runner = directory->port.runner;
  pid_t pid = spawn_fork(NULL, 0);
  if (pid <= 0) {
    remove_tree(directory->path);
  }
  if (pid == 0) {
    if (!runner->has_swept) {
      claim_sweep(directory->path);
    }
    _exit(0);
  }
  runner->has_swept = true;
  directory_free(directory);
}

static void readable(struct port *port) {
  const char *bytes;
  size_t size;
  int code;
  while ((code = mux_peek(port->channel, &bytes, &size)) == 0) {
    mux_consume(port->channel, size);
  }
  if (code != -EAGAIN) {
    drop((struct directory *)port);
  }
}

// Trees may still use it.
static void stop(struct port *port) {
  (void)port;
}

static void last(struct port *port) {
  struct directory *directory = (struct directory *)port;
  remove_tree(directory->path);
  directory_free(directory);
}

static const struct port_kind DIRECTORY = {readable, NULL, stop, last};

void directory_touch_all(const struct runner *runner) {
  for (const struct port *port = runner->ports; port != NULL; port = port->next) {
    if (port->kind == &DIRECTORY) {
      syscall(SYS_utimensat, AT_FDCWD, ((const struct directory *)port)->path, NULL, 0);
    }
  }
}

// In the first base that takes it. 0 or -errno of the last one.
static int make(struct directory *directory, const struct words *words) {
  int code = -EINVAL;
  for (size_t i = 1; i < words->count; i++) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
      return -errno;
    }
    int size = snprintf(directory->path, sizeof directory->path, "%s/farcall-run-%016llx",
                        words->at[i], (unsigned long long)number);
    if (words->at[i][0] != '/') {
      code = -EINVAL;
    } else if (size >= (int)sizeof directory->path) {
      code = -ENAMETOOLONG;
    } else if (mkdir(directory->path, 0700) == 0) {
      return 0;
    } else {
      code = -errno;
    }
  }
  return code;
}

void directory_start(struct runner *runner, struct mux_channel *channel,
                     const struct words *words) {
  struct directory *directory = calloc(1, sizeof *directory);
  int code = directory != NULL ? make(directory, words) : -ENOMEM;
  if (code != 0) {
    free(directory);
    port_error(channel, "mkdir", code);
    return;
  }
  directory->claim = claim_take(directory->path);
  port_init(&directory->port, &DIRECTORY, runner, channel);
  port_ok(channel, directory->path);
  mux_finish(channel);
}
