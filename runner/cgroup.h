// SPDX-License-Identifier: MIT
#ifndef FARCALL_CGROUP_H
#define FARCALL_CGROUP_H

// A control group of the supervisor's own, made below the one that it is in: version 2 with
// cgroup.kill (Linux 5.14), else the freezer of version 1. It is no tool for limits.

#include <stdbool.h>

struct cgroup {
  int parent; // directory in which it was made; -1: none
  int dir;    // the group's directory
  int procs;  // its cgroup.procs; only where a process cannot be born in it (version 1)
  bool frozen_kill;
  char name[48];
};

// 0, or -1 when there is no hierarchy to write to. Version 1 is tried only when asked for: to move
// a process into it takes the kernel many milliseconds.
int cgroup_make(struct cgroup *group, bool old_version);

// Kills what is in it, and in groups that were made below it.
void cgroup_kill(const struct cgroup *group);

// Removes it with what was made below it, as far as they are empty, and closes the descriptors.
// Idempotent.
void cgroup_remove(struct cgroup *group);

#endif
