// SPDX-License-Identifier: MIT
#ifndef FARCALL_DIRECTORY_H
#define FARCALL_DIRECTORY_H

// The request "mkdir": a private directory, which goes with its channel or with the runner.

#include "port.h"
#include "words.h"

// words: "mkdir" BASE...
void directory_start(struct runner *runner, struct mux_channel *channel, const struct words *words);

// Lets none of them look old, to be called every DIRECTORY_TOUCH_MS: `farcall env gc` takes an old
// one that no supervisor in sh knows of for one that was left.
#define DIRECTORY_TOUCH_MS 30000
void directory_touch_all(const struct runner *runner);

#endif
