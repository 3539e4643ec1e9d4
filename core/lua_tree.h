// SPDX-License-Identifier: MIT
#ifndef FARCALL_LUA_TREE_H
#define FARCALL_LUA_TREE_H

// Finding farcall's Lua files, and making a Lua state that runs them: for the program and for
// libfarcall.

#include <stdbool.h>
#include <stddef.h>

struct lua_State;

// Whether dir holds farcall/.
bool lua_tree_is(const char *dir);

// Looks for the tree from dir, which is where the program or the library lies: in a build folder,
// in an installation. Writes the directory that holds farcall/ to tree.
bool lua_tree_find(const char *dir, char *tree, size_t size);

// A Lua state with the core's modules in it that loads farcall from tree, or NULL for lack of
// memory.
struct lua_State *lua_tree_open(const char *tree);

#endif
