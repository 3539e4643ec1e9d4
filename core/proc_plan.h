// SPDX-License-Identifier: MIT
#ifndef FARCALL_PROC_PLAN_H
#define FARCALL_PROC_PLAN_H

// What the parts of proc share, and nobody else: where to look for the program (proc_which.c), and
// what the child does between clone and exec (proc_child.c).

#include <stddef.h>
#include <sys/resource.h>

#include "proc.h"

// The list of paths to execute: the name itself when it has a slash, else all places on the PATH.
struct candidates {
  char **list; // NULL-terminated, owned with its strings
  size_t count;
};

// For a program's name and the child's variables. 0, -ENOENT, -ENAMETOOLONG or -ENOMEM. *all, which
// is empty before, must be given to candidates_fini in any case.
int candidates_init(struct candidates *all, const char *name, char *const *envp);
void candidates_fini(struct candidates *all);

enum stage {
  STAGE_SESSION,
  STAGE_RLIMIT,
  STAGE_FDS,
  STAGE_USER,
  STAGE_CWD,
  STAGE_EXEC,
};

struct mapping {
  int child;
  int parent;
};

// What parent and child share. The parent sleeps until the child has executed or ended.
struct plan {
  const struct proc_spec *spec;
  char *const *envp;
  char *const *candidates; // paths to try, NULL-terminated
  struct mapping *maps;    // sorted by child
  size_t map_count;
  struct rlimit *rlimits;
  volatile enum stage stage;
  volatile int error; // errno; 0: the program runs
  volatile size_t tried;
};

// The child's whole life, from a plan. Only system calls. Returns by _exit or not at all.
int proc_child_main(void *plan);

#endif
