// SPDX-License-Identifier: MIT
#ifndef FARCALL_ATTACH_H
#define FARCALL_ATTACH_H

// `farcall-runner attach MARK DIR`: gives its standard input and output to the runner that has its
// door (door.h) in DIR, and stays until that one does not need them any more. Exit code 0 then; 1,
// and "\n<MARK> error STAGE ERRNO WORDS\n" on standard output, when it did not come to that.
int attach_main(const char *mark, const char *dir);

#endif
