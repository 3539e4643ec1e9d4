// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_SSH_H
#define FARCALL_LUA_SSH_H

// What lua_ssh.c (connections) and lua_ssh_channel.c (their channels) share.

#include "bind.h"
#include "ssh.h"

// Pushes nil, the text and the code. Returns 3.
int lua_ssh_fail(lua_State *L, const struct ssh_failure *failure);

// Makes the type of channels known.
void lua_ssh_channel_type(lua_State *L);

// Starts the command at index 2 on the connection whose object is at index 1, and pushes the
// channel; or nil, message, code.
int lua_ssh_exec(lua_State *L, struct loop *loop, struct ssh *ssh);

#endif
