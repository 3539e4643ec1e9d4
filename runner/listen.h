// SPDX-License-Identifier: MIT
#ifndef FARCALL_LISTEN_H
#define FARCALL_LISTEN_H

// The request "listen": a Unix socket whose connections become channels.

#include "port.h"
#include "words.h"

// words: "listen" PATH. The socket's file is removed when the channel is closed.
void listen_start(struct runner *runner, struct mux_channel *channel, const struct words *words);

// A Unix socket of this type at a path, mode 0600, that listens and does not block: or -errno.
int listen_at(const char *path, int type);
// A connection that does not block, of this user's or root's, or -errno (-EACCES: of another one).
int listen_accept(int fd, pid_t *pid, uid_t *uid);

#endif
