// SPDX-License-Identifier: MIT
#ifndef FARCALL_EXEC_H
#define FARCALL_EXEC_H

// The requests "pipe" and "exec": a process under a supervisor of its own, with a channel for
// standard input and output, one for standard error, and one that is the supervisor's control
// socket (supervisor.h).

#include "port.h"
#include "words.h"

// Parks a channel.
void exec_pipe(struct runner *runner, struct mux_channel *channel);

// words: "exec" OUT ERR OPTIONS... What fails is told as the supervisor would, by `exec-failed`.
void exec_start(struct runner *runner, struct mux_channel *control, const struct words *words);

#endif
