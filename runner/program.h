// SPDX-License-Identifier: MIT
#ifndef FARCALL_PROGRAM_H
#define FARCALL_PROGRAM_H

// The file that this process runs from.

#include "sha256.h"

// Its SHA-256 as text; "-" where it cannot be read (no /proc).
void program_hash(char text[SHA256_HEX_SIZE + 1]);

#endif
