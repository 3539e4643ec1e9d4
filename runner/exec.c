// SPDX-License-Identifier: MIT
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay.h"
#include "spawn.h"
#include "supervisor.h"

// Ends of what a process is joined by: its own and ours.
enum { IN, OUT, ERR, CONTROL, JOINTS };
struct joints {
  int theirs[JOINTS];
  int ours[JOINTS];
};

static void parked_stop(struct port *port) {
  port_fini(port);
  free(port);
}

static void parked_readable(struct port *port) {
  const char *bytes;
  size_t size;
  if (mux_peek(port->channel, &bytes, &size) == -ECONNRESET) {
    parked_stop(port);
  }
}

static const struct port_kind PARKED = {parked_readable, NULL, parked_stop, NULL};

void exec_pipe(struct runner *runner, struct mux_channel *channel) {
  struct port *port = malloc(sizeof *port);
  if (port != NULL) {
    port_init(port, &PARKED, runner, channel);
  }
}

static struct port *find_parked(const struct runner *runner, const char *word) {
  uint64_t id;
  if (word == NULL || !words_number(word, 10, UINT32_MAX, &id)) {
    return NULL;
  }
  struct mux_channel *channel = mux_find(runner->mux, (uint32_t)id);
  struct port *port = channel != NULL ? mux_channel_get(channel) : NULL;
  return port != NULL && port->kind == &PARKED ? port : NULL;
}

static void close_all(const int *fds) {
  for (int i = 0; i < JOINTS; i++) {
    if (fds[i] >= 0) {
      close(fds[i]);
    }
  }
}

// 0 or -errno.
static int join(struct joints *joints) {
  for (int i = 0; i < JOINTS; i++) {
    joints->theirs[i] = joints->ours[i] = -1;
  }
  for (int i = 0; i < JOINTS; i++) {
    int ends[2];
    if (i == CONTROL ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0
                     : pipe2(ends, O_CLOEXEC) != 0) {
      int code = -errno;
      close_all(joints->theirs);
      close_all(joints->ours);
      return code;
    }
    joints->theirs[i] = ends[i != IN];
    joints->ours[i] = ends[i == IN];
    if (i != CONTROL) {
      fcntl(joints->ours[i], F_SETFL, O_NONBLOCK);
    }
  }
  return 0;
}

// In the child. The words stay where they are: this copy of the memory is its own.
static void supervise(const struct words *words) {
  enum { BEFORE = 3, LEFT_OUT = 3 };
  char *argv[BEFORE + WORDS_MAX + 2] = {"farcall-supervisor", "--control", "3"};
  int argc = BEFORE;
  for (size_t i = LEFT_OUT; i < words->count; i++) {
    memcpy(&argv[argc++], &words->at[i], sizeof *argv); // const, as nobody writes to it
  }
  argv[argc++] = "--";
  _exit(supervisor_main(argc, argv));
}

static struct mux_channel *unpark(struct port *port) {
  struct mux_channel *channel = port->channel;
  port->channel = NULL;
  port_fini(port);
  free(port);
  return channel;
}

static void fail(struct mux_channel *control, const char *stage, int code) {
  char line[64];
  int size = snprintf(line, sizeof line, "exec-failed %s %d\ngone\n", stage, -code);
  (void)mux_write(control, line, (size_t)size);
  mux_finish(control);
}

void exec_start(struct runner *runner, struct mux_channel *control, const struct words *words) {
  struct port *out = find_parked(runner, words->at[1]);
  struct port *err = find_parked(runner, words->count > 1 ? words->at[2] : NULL);
  if (out == NULL || err == NULL || out == err) {
    fail(control, "pipes", -EINVAL);
    return;
  }
  struct joints joints;
  int code = join(&joints);
  if (code == 0) {
    pid_t pid = spawn_fork(joints.theirs, JOINTS);
    if (pid == 0) {
      supervise(words);
    }
    code = pid < 0 ? -errno : 0;
    close_all(joints.theirs);
  }
  struct mux_channel *out_channel = unpark(out), *err_channel = unpark(err);
  if (code != 0) {
    fail(control, "fork", code);
    mux_close(out_channel);
    mux_close(err_channel);
    return;
  }
  const int *ours = joints.ours;
  // For want of memory the sockets are closed, and the supervisor ends.
  (void)relay_new(runner, control,
                  &(struct relay_spec){.from = ours[CONTROL], .to = ours[CONTROL], .tree = true});
  (void)relay_new(runner, out_channel, &(struct relay_spec){.from = ours[OUT], .to = ours[IN]});
  (void)relay_new(runner, err_channel, &(struct relay_spec){.from = ours[ERR], .to = -1});
}
