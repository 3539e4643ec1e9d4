// SPDX-License-Identifier: MIT
#ifndef FARCALL_TCP_H
#define FARCALL_TCP_H

// Connecting to one TCP address without waiting. Names are work's business (WORK_RESOLVE); which of
// several addresses to try, and for how long, is the caller's. Belongs to the loop's thread.

#include "loop.h"

struct tcp_connect;

// code 0: fd is connected, non-blocking, close-on-exec, with TCP_NODELAY, and the callee's. Else
// -errno, and fd is -1. The attempt is over and freed when this is called.
typedef void (*tcp_connect_fn)(void *data, int code, int fd);

// Begins to connect to a numeric IPv4 or IPv6 address (with %zone where it has one) and calls fn
// once, from the loop. 0, -EINVAL when address or port are no numbers, or -errno: then fn is not
// called.
int tcp_connect_start(struct loop *loop, const char *address, const char *port, tcp_connect_fn fn,
                      void *data, struct tcp_connect **out);
// Gives up: fn is not called any more. Not after fn has been called.
void tcp_connect_stop(struct tcp_connect *attempt);

#endif
