// SPDX-License-Identifier: MIT
#ifndef FARCALL_REMOVE_H
#define FARCALL_REMOVE_H

// Removes a directory of this user's with all in it. No symbolic link is followed and no other
// file system entered, whatever somebody else does there meanwhile. What cannot be removed stays,
// and so does what is more than some hundred directories deep.
void remove_tree(const char *path);

#endif
