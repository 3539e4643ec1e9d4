// SPDX-License-Identifier: MIT
#ifndef FARCALL_SPAWN_H
#define FARCALL_SPAWN_H

// A child of the runner that keeps nothing of it but these descriptors.

#include <stddef.h>
#include <sys/types.h>

// To be called once, at the start: standard signals, more descriptors than the usual 1024, no
// directory held, nobody who could look into the process. The child below gets back what was.
void spawn_prepare(void);

// Forks. In the child (0) the descriptors given are now 0, 1, 2... and all others are closed, its
// session is its own, and signals, limits and directory are those that a program expects. None of
// them may be below count - 1.
pid_t spawn_fork(const int *fds, size_t count);

#endif
