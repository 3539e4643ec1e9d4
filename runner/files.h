// SPDX-License-Identifier: MIT
#ifndef FARCALL_FILES_H
#define FARCALL_FILES_H

// The requests "put" and "get": a regular file written whole, or read.

#include "port.h"
#include "words.h"

// words: "put" PATH MODE SIZE. The file is there under its name only when all has come.
void files_put(struct runner *runner, struct mux_channel *channel, const struct words *words);
// words: "get" PATH OFFSET MAX.
void files_get(struct runner *runner, struct mux_channel *channel, const struct words *words);

#endif
