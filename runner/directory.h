// SPDX-License-Identifier: MIT
#ifndef FARCALL_DIRECTORY_H
#define FARCALL_DIRECTORY_H

// The request "mkdir": a private directory, which goes with its channel or with the runner.

#include "port.h"
#include "words.h"

// words: "mkdir" BASE...
void directory_start(struct runner *runner, struct mux_channel *channel, const struct words *words);

#endif
