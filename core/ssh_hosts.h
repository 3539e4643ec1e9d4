// SPDX-License-Identifier: MIT
#ifndef FARCALL_SSH_HOSTS_H
#define FARCALL_SSH_HOSTS_H

// Hashed names of known_hosts files.

#include <stdbool.h>

// Whether a hashed name ("|1|salt|hash") is that of name ("host" or "[host]:port"). False for
// anything else, malformed fields included. Costs a few hundred microseconds at most.
bool ssh_hosts_is_hash_of(const char *hashed, const char *name);

#endif
