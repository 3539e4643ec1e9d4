// SPDX-License-Identifier: MIT
// The floor under farcall's oneshots: a bare spawn loop. Usage: oneshot_spawn TOTAL WIDTH PROGRAM
// [ARG...] runs PROGRAM TOTAL times, WIDTH at a time, and prints spawns a second, on two lines:
// with the streams at /dev/null, and with stdout and stderr read to their ends through pipes, which
// is what a oneshot gives.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { STREAMS = 2, READ_BYTES = 65536 };

struct child {
  pid_t pid; // 0: free
  int fds[STREAMS];
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// glibc's posix_spawn is vfork-class: the child shares our memory until it has called exec.
static pid_t spawn(char **argv, const int ends[STREAMS]) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  for (int i = 0; i < STREAMS; i++) {
    if (ends != NULL) {
      posix_spawn_file_actions_adddup2(&actions, ends[i], i + 1);
    } else {
      posix_spawn_file_actions_addopen(&actions, i + 1, "/dev/null", O_WRONLY, 0);
    }
  }
  pid_t pid;
  errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
  if (errno != 0) {
    die(argv[0]);
  }
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

static void bare(int total, int width, char **argv) {
  int started = 0;
  for (int ended = 0; ended < total;) {
    while (started < total && started - ended < width) {
      spawn(argv, NULL);
      started++;
    }
    if (waitpid(-1, NULL, 0) > 0) {
      ended++;
    }
  }
}

static void start_with_pipes(struct child *child, char **argv) {
  int ends[STREAMS];
  for (int i = 0; i < STREAMS; i++) {
    int both[2];
    if (pipe2(both, O_CLOEXEC) != 0) {
      die("pipe2");
    }
    child->fds[i] = both[0];
    ends[i] = both[1];
  }
  child->pid = spawn(argv, ends);
  for (int i = 0; i < STREAMS; i++) {
    close(ends[i]);
  }
}

// True when the child has closed both streams and has been reaped.
static int drain(struct child *child, const struct pollfd *polled) {
  static char bytes[READ_BYTES];
  for (int i = 0; i < STREAMS; i++) {
    if (polled[i].revents != 0 && read(child->fds[i], bytes, sizeof bytes) <= 0) {
      close(child->fds[i]);
      child->fds[i] = -1;
    }
  }
  if (child->fds[0] >= 0 || child->fds[1] >= 0) {
    return 0;
  }
  waitpid(child->pid, NULL, 0);
  child->pid = 0;
  return 1;
}

static void with_pipes(int total, int width, char **argv) {
  struct child *children = calloc((size_t)width, sizeof *children);
  struct pollfd *polled = calloc((size_t)width * STREAMS, sizeof *polled);
  if (children == NULL || polled == NULL) {
    die("calloc");
  }
  int started = 0;
  for (int ended = 0; ended < total;) {
    for (int c = 0; c < width; c++) {
      if (children[c].pid == 0 && started < total) {
        start_with_pipes(&children[c], argv);
        started++;
      }
      for (int i = 0; i < STREAMS; i++) {
        int fd = children[c].pid != 0 ? children[c].fds[i] : -1;
        polled[c * STREAMS + i] = (struct pollfd){.fd = fd, .events = POLLIN};
      }
    }
    if (poll(polled, (nfds_t)width * STREAMS, -1) < 0) {
      die("poll");
    }
    for (int c = 0; c < width; c++) {
      ended += children[c].pid != 0 && drain(&children[c], polled + (size_t)c * STREAMS);
    }
  }
  free(children);
  free(polled);
}

static void measure(const char *name, void (*loop)(int, int, char **), char **argv) {
  int total = atoi(argv[1]);
  int width = atoi(argv[2]);
  double start = now();
  loop(total, width, argv + 3);
  double seconds = now() - start;
  printf("%.0f/s %s (%d in %.3f s)\n", total / seconds, name, total, seconds);
}

int main(int argc, char **argv) {
  if (argc < 4 || atoi(argv[1]) < 1 || atoi(argv[2]) < 1) {
    fprintf(stderr, "usage: %s TOTAL WIDTH PROGRAM [ARG...]\n", argv[0]);
    return 2;
  }
  measure("bare", bare, argv);
  measure("with pipes", with_pipes, argv);
  return 0;
}
