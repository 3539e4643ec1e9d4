// SPDX-License-Identifier: MIT
#ifndef FARCALL_CONNECT_H
#define FARCALL_CONNECT_H

// `farcall-runner connect PATH`: joins standard input and output with a Unix socket, for stubs that
// have no sockets of their own. Ends with exit code 0 when the socket has ended; 1 after a failure,
// which it tells on standard error.
int connect_main(const char *path);

#endif
