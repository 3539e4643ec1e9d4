// SPDX-License-Identifier: MIT
#ifndef FARCALL_SERVE_H
#define FARCALL_SERVE_H

// `farcall-runner serve`: speaks with the engine over standard input and output, and does what it
// asks for (docs/wire.md), until the engine is gone or says so. Then everything that it started is
// killed, and what it made is removed. When it is killed itself, its supervisors end their trees.

#include <stdint.h>

struct serve_options {
  const char *mark;  // 32 hexadecimal digits with which the first line begins
  uint64_t grace_ms; // how long to go on without a link; 0: not at all
  uint64_t lease_ms; // how long the engine may be silent before its link counts as lost
  const char *dir;   // where the door is (door.h); NULL: there is none
};

// The exit code.
int serve_main(const struct serve_options *options);

#endif
