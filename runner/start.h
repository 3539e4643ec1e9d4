// SPDX-License-Identifier: MIT
#ifndef FARCALL_START_H
#define FARCALL_START_H

// Starts the script's main process from the supervisor. Not for programs with much memory or with
// threads: the child is a fork.

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

struct start_rlimit {
  int resource;
  rlim_t value; // lowered to the hard limit that is in force
};

struct start_spec {
  char *const *argv; // the program is looked for as execvp does
  const struct start_rlimit *rlimits;
  size_t rlimit_count;
  const char *cwd;      // directory to start in, or NULL: the caller's
  int cgroup;           // descriptor of a version 2 cgroup's directory to be born in, or -1
  int cgroup_procs;     // descriptor of a cgroup.procs to enter before the program runs, or -1
  bool die_with_parent; // SIGKILL when the caller dies
};

struct start_failure {
  const char *stage; // "fork", "session", "rlimit", "cgroup", "cwd", "exec": static
  int error;         // errno
};

// A fork with the flags of clone(2): where CLONE_VFORK is among them, the parent sleeps until the
// child has executed. cgroup as in start_spec. The child's pid, 0 in the child, or -1 and errno.
pid_t start_fork(unsigned long flags, int cgroup);

// The pid of the main process, which leads a session of its own, has no signal blocked and runs its
// program already; or -1 and *failure, and no child is left.
pid_t start_script(const struct start_spec *spec, struct start_failure *failure);

// The RLIMIT_X of a name ("fsize"), or -1.
int start_rlimit_number(const char *name, size_t length);

#endif
