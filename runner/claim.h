// SPDX-License-Identifier: MIT
#ifndef FARCALL_CLAIM_H
#define FARCALL_CLAIM_H

// Whose a directory of a runner is. A file in it is locked as long as its runner lives: the kernel
// lets go of that however the runner ends, and tells everybody, whatever processes they can see and
// whatever time it is. What nobody holds any more goes with the next runner that cleans up there.

// Claims a new directory of ours: a descriptor, which is the claim, or -1 where there are no locks
// or no room. Then nobody will take it for one that has been left.
int claim_take(const char *dir);

// Removes the directories beside this one, which need not be there any more, that runners of this
// user have claimed under this kernel and that nobody holds.
void claim_sweep(const char *dir);

#endif
