// SPDX-License-Identifier: MIT
#ifndef FARCALL_SUPERVISOR_H
#define FARCALL_SUPERVISOR_H

// farcall-supervisor: starts a script and kills its whole tree. It stands between the engine and
// the script on the machine where the script runs:
//
//   farcall-supervisor --control FD [--level auto|pidns|cgroup|subreaper] [--grace-ms N]
//     [--linger-ms N] [--deadline-ms N] [--rlimit NAME=N]... [--cwd DIR] [--environ SIZE]
//     [--words SIZE] -- [PROGRAM [ARG...]]
//
// The script gets standard streams, working directory, variables, umask and further descriptors as
// the supervisor got them, and a session of its own.
//
// Where a program in between has ways of its own with bytes, they come over FD, before all else:
// --environ bytes of variables, NAME=VALUE and NUL each, then --words bytes of the program and its
// arguments, with NUL after each. (What is on a command line is also for all users to see.)
//
// FD is a socket to the engine. Lines to the engine: `level NAME`, then `started PID` (as the
// script sees it) or `exec-failed STAGE ERRNO`, then `deadline` when it passed, `exited CODE` or
// `signalled N`, at last `gone` when nothing of the tree is left, or `left N` when N processes
// could not be killed. Lines from the engine: `kill [GRACE_MS]` (TERM, grace, KILL) and `signal N`
// (to the script's process group). The end of the socket means that the engine has died: the tree
// goes too.
//
// When the main process has ended, what it left running has --linger-ms to end by itself, because
// the last writer of a pipeline often outlives the shell by a moment; then it is killed.
//
// The levels, in the order in which `auto` tries them:
//   pidns      A PID namespace. Its init is a child of the supervisor; when it dies, however it
//              dies, the kernel kills everything inside before anything else can happen. Nothing
//              can leave it. Needs CAP_SYS_ADMIN. (A user namespace would get by without, but then
//              set-user-id programs and group memberships behave differently in scripts.)
//   cgroup     A control group with cgroup.kill: as sure while the supervisor lives, but a script
//              that runs as root may move itself out, and SIGKILL of the supervisor leaves the
//              group.
//   subreaper  Orphans become children of the supervisor, which finds all descendants in /proc,
//              stops them all and then kills them. Always possible; a SIGKILL of the supervisor
//              itself takes only the script's main process along. With cgroup, it runs as the
//              second net.

// What farcall-supervisor is, with these arguments: 2 when they are wrong, 1 when the engine died
// before it had said all; otherwise it ends the process. Not for a process with threads.
int supervisor_main(int argc, char **argv);

#endif
