// SPDX-License-Identifier: MIT
#ifndef FARCALL_TREE_H
#define FARCALL_TREE_H

// Finds and signals all descendants of this process, which must be a child subreaper, so that
// orphans become its children and nothing can leave the tree. A process that does not descend from
// this one is never signalled, whatever pids are used again meanwhile.

// Sends a signal to every descendant that is met, parents first; one that is born meanwhile may be
// missed. How many there are (zombies that wait for
// their parents are not counted), or -1 when /proc cannot be read.
int tree_signal(int number);

// Stops every descendant, looks again until nothing new has come up, then kills all: what is
// stopped cannot fork. To be repeated while there are children to wait for. Returns as tree_signal.
int tree_kill(void);

#endif
