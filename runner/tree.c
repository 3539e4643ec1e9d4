// SPDX-License-Identifier: MIT
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// The largest pid that Linux gives is below this. One bit each: pages that are not touched cost
// nothing.
#define PID_MAX (1 << 22)

static bool is_in(const uint8_t *set, pid_t pid) {
  return pid > 0 && pid < PID_MAX && (set[pid / 8] >> (pid % 8) & 1) != 0;
}

static void put_in(uint8_t *set, pid_t pid) {
  set[pid / 8] = (uint8_t)(set[pid / 8] | 1 << (pid % 8));
}

// The parent of a process that has not ended, or -1. Read from /proc/PID/stat behind the last
// parenthesis, because the name before it may hold anything.
static pid_t parent_of(int proc, const char *pid) {
  char path[32], text[512];
  snprintf(path, sizeof path, "%.16s/stat", pid);
  int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return -1;
  }
  ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) {
    return -1;
  }
  text[size] = '\0';
  const char *after = strrchr(text, ')');
  if (after == NULL || after[1] != ' ' || after[2] == '\0' || after[2] == 'Z' || after[2] == 'X') {
    return -1;
  }
  return (pid_t)strtol(after + 3, NULL, 10);
}

// The process behind the descriptor is looked at before it is signalled: if its pid had been given
// to another one in between, either that one descends from us too, or the signal goes nowhere.
static bool send_to(int proc, const char *name, const uint8_t *members, int number) {
  pid_t pid = (pid_t)strtol(name, NULL, 10);
  int fd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) {
    // Kernels before 5.3 have no such descriptor.
    return errno == ENOSYS && kill(pid, number) == 0;
  }
  bool sent = is_in(members, parent_of(proc, name)) &&
              syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) == 0;
  close(fd);
  return sent;
}

// Looks through /proc once, in the order of pids, which is nearly always the order of birth: a
// process that is born meanwhile is met further on. Signals each descendant that is not in `seen`.
static int look(DIR *dir, uint8_t *members, uint8_t *seen, int number) {
  int found = 0;
  rewinddir(dir);
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') {
      continue;
    }
    pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
    pid_t parent = parent_of(dirfd(dir), entry->d_name);
    if (pid >= PID_MAX || !is_in(members, parent)) {
      continue;
    }
    put_in(members, pid);
    if (!is_in(seen, pid) && send_to(dirfd(dir), entry->d_name, members, number)) {
      put_in(seen, pid);
      found++;
    }
  }
  return found;
}

struct sets {
  uint8_t members[PID_MAX / 8]; // this process and what descends from it
  uint8_t seen[PID_MAX / 8];    // who has had the signal
};

static int signal_all(DIR *dir, int number, int rounds) {
  struct sets *sets = calloc(1, sizeof *sets);
  if (sets == NULL) {
    return -1;
  }
  put_in(sets->members, getpid());
  int all = 0;
  // More than once, since a child may have a lower pid than its parent.
  for (int round = 0, found = 1; found > 0 && round < rounds; round++) {
    found = look(dir, sets->members, sets->seen, number);
    all += found;
  }
  free(sets);
  return all;
}

static int open_and_signal(int number, int rounds) {
  DIR *dir = opendir("/proc");
  if (dir == NULL) {
    return -1;
  }
  int count = signal_all(dir, number, rounds);
  closedir(dir);
  return count;
}

// Not until nobody new is met: while processes fork, what is asked for may never be over, and who
// asks has a clock to look at.
int tree_signal(int number) {
  return open_and_signal(number, 2);
}

// Stopping must win against forking, so it goes on as long as it finds somebody.
int tree_kill(void) {
  int stopped = open_and_signal(SIGSTOP, 100);
  return stopped < 0 ? -1 : open_and_signal(SIGKILL, 2);
}
