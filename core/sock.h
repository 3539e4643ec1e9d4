// SPDX-License-Identifier: MIT
#ifndef FARCALL_SOCK_H
#define FARCALL_SOCK_H

// Unix stream sockets: listening, connecting, pairs. It makes descriptors; what goes through them
// is fdbuf's. All are close-on-exec. Belongs to the loop's thread.

#include <stddef.h>
#include <sys/types.h>

#include "loop.h"

struct sock_peer {
  pid_t pid;
  uid_t uid;
  gid_t gid;
};

// fd is the callee's from here on. It may close the listener.
typedef void (*sock_accept_fn)(void *data, int fd, const struct sock_peer *peer);

struct sock_options {
  int backlog; // 0: 128
  mode_t mode; // of the socket's file, 0: 0600
};

struct sock_listener;

// Listens on path, which must not exist. The file has its mode before anybody can connect, because
// listening starts afterwards. Keep the socket in a private directory all the same: not every
// system heeds a socket's mode. Every connection is handed to fn with the peer's credentials as the
// kernel knows them. -ENAMETOOLONG when path does not fit into a socket address (sock_path_max),
// -EADDRINUSE when it exists, or -errno.
//
// When descriptors or memory have run out, accepting pauses and is tried again after a while; a
// connection that its peer has given up meanwhile is passed over.
int sock_listen(struct loop *loop, const char *path, const struct sock_options *options,
                sock_accept_fn fn, void *data, struct sock_listener **out);

// Stops listening, removes the file if it is still the one that was made, and frees. Accepts NULL.
void sock_close(struct sock_listener *listener);

// Connects to path. *fd is the caller's. -errno; -EAGAIN when the listener's backlog is full: a
// Unix socket cannot wait for that, so try again later.
int sock_connect(const char *path, int *fd);

// Two connected ends, both the caller's: ends[0] for this side, non-blocking; ends[1] to hand to a
// child, blocking as programs expect.
int sock_pair(int ends[2]);

// The longest path, in bytes.
size_t sock_path_max(void);

#endif
