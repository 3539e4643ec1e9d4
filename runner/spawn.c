// SPDX-License-Identifier: MIT
#include "spawn.h"

#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// Not every libc's headers know it.
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define MAX_DESCRIPTORS 65536

static struct rlimit descriptors; // as we got it
static char *directory;

void spawn_prepare(void) {
  for (int number = 1; number <= SIGRTMAX; number++) {
    signal(number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_IGN); // children are not waited for
  if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
    struct rlimit more = descriptors;
    more.rlim_cur = more.rlim_max < MAX_DESCRIPTORS ? more.rlim_max : MAX_DESCRIPTORS;
    if (more.rlim_cur > descriptors.rlim_cur) {
      setrlimit(RLIMIT_NOFILE, &more);
    }
  }
  directory = getcwd(NULL, 0);
  int ignored = chdir("/");
  (void)ignored;
  prctl(PR_SET_DUMPABLE, 0);
}

// Where the kernel cannot close a range (before Linux 5.9).
static void close_each(int first) {
  DIR *list = opendir("/proc/self/fd");
  if (list == NULL) {
    for (int fd = first; fd < MAX_DESCRIPTORS; fd++) {
      close(fd);
    }
    return;
  }
  // Closing changes the list while it is read, so until nothing is left.
  for (int closed = 1; closed > 0;) {
    closed = 0;
    rewinddir(list);
    for (const struct dirent *entry; (entry = readdir(list)) != NULL;) {
      int fd = (int)strtol(entry->d_name, NULL, 10);
      if (fd >= first && fd != dirfd(list)) {
        closed += close(fd) == 0;
      }
    }
  }
  closedir(list);
}

pid_t spawn_fork(const int *fds, size_t count) {
  pid_t pid = fork();
  if (pid != 0) {
    return pid;
  }
  setsid();
  for (size_t i = 0; i < count; i++) {
    if (dup2(fds[i], (int)i) < 0) {
      _exit(127);
    }
  }
  if (syscall(SYS_close_range, (unsigned)count, UINT_MAX, 0) != 0) {
    close_each((int)count);
  }
  signal(SIGPIPE, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setrlimit(RLIMIT_NOFILE, &descriptors);
  if (directory != NULL) {
    // If it is not there any more, the child is where we are.
    int ignored = chdir(directory);
    (void)ignored;
  }
  return 0;
}
