// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_BYTECODE_H
#define FARCALL_LUA_BYTECODE_H

// The modules of the Lua tree, compiled when the program was built: half of a short run went into
// parsing them. One file beside the tree, written by core/lua_compile.c, holds them all:
//
//   farcall bytecode 1\n        then for each module
//   NAME SIZE\n                 NAME is its file below farcall/; an empty line ends the list
//   the modules' bytecode in the same order, each without the name of its chunk
//
// A source that is newer than this file is used in its place, so that nobody who edits one has to
// build. lua_tree_open calls this, once for a state, before anything is required.

#include <lua.h>
#include <stdbool.h>

// Makes require look for `farcall.NAME` in TREE/farcall.bytecode before it looks for files. False
// when there is no such file or it is damaged: nothing is changed then.
bool bytecode_use(lua_State *L, const char *tree);

#endif
