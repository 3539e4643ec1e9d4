// SPDX-License-Identifier: MIT
#ifndef FARCALL_DOOR_H
#define FARCALL_DOOR_H

// How a runner that has lost its link gets a new one: `farcall-runner attach`, another exec in the
// same environment, hands its standard input and output over through a socket in the runner's
// private directory. Scripts of the same user can connect there too, so it asks for the token that
// the engine has given to the runner.
//
// Where the output of an exec comes only when it ends, there is no link that stays. The engine then
// takes turns: each is an exec that brings so many bytes of the link, waits until the runner has
// something to say, or for the time that it holds, and ends.

#include <stdint.h>

#include "port.h"

#define DOOR_TOKEN 64
#define DOOR_MARK 32
#define DOOR_KNOCKERS 8
#define DOOR_PATH 108 // sun_path

// What comes with the descriptors.
struct door_knock {
  char mark[DOOR_MARK];
  char token[DOOR_TOKEN];
  uint64_t received; // by the engine, over all links
  // Of a turn: how many bytes come, behind how many, and for how many milliseconds it holds.
  uint64_t turn; // 0: a link that stays
  uint64_t from;
  uint64_t size;
  uint64_t hold_ms;
};

// in and out now belong to the callee, as does peer, which ends with the exec that has sent them;
// it is to be told "ok" or "error STAGE ERRNO WORDS", and closed when the link is not needed any
// more.
typedef void (*door_fn)(void *data, const struct door_knock *knock, int in, int out, int peer);

// Somebody who has connected and said nothing yet.
struct door_knocker {
  struct watch watch;
  struct door *door;
};

struct door {
  struct watches *watches;
  const char *dir;   // borrowed
  const char *token; // borrowed; DOOR_TOKEN bytes
  door_fn fn;
  void *data;
  int claim;
  struct watch watch;
  struct door_knocker knockers[DOOR_KNOCKERS];
  size_t next; // whose place the next one takes
};

// Makes dir, which must not be there yet, and the socket in it. The fields down to data must be
// set. 0 or -errno.
int door_open(struct door *door);
// Removes them.
void door_close(struct door *door);

// The path of the socket in dir. 0 or -ENAMETOOLONG.
int door_path(const char *dir, char path[DOOR_PATH]);

#endif
