// SPDX-License-Identifier: MIT
#ifndef FARCALL_PROGRAM_H
#define FARCALL_PROGRAM_H

// The file that this process runs from.

#include "sha256.h"

// Tells what is started from now on where it is, as FARCALL_RUNNER, if that is known.
void program_announce(void);

// Its SHA-256 as text; "-" where it cannot be read (no /proc).
void program_hash(char text[SHA256_HEX_SIZE + 1]);

#endif
