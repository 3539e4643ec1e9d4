// SPDX-License-Identifier: MIT
#ifndef FARCALL_CONNECT_H
#define FARCALL_CONNECT_H

#include <stdbool.h>

// `farcall-runner connect PATH`: joins standard input and output with a Unix socket, for stubs that
// have no sockets of their own. Ends with exit code 0 when the socket has ended; 1 after a failure,
// which it tells on standard error.
// line, `farcall-runner ask PATH`: ends when a whole line has come, and keeps the socket open until
// then, whatever becomes of standard input. A socket that ends before is a failure.
int connect_main(const char *path, bool line);

#endif
