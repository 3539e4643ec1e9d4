// SPDX-License-Identifier: MIT
#ifndef FARCALL_PROC_H
#define FARCALL_PROC_H

// Starts programs. proc_spawn costs what vfork costs, whatever the size of this process: the child
// borrows this process' memory until it executes, so everything is prepared beforehand and the
// child only makes system calls. It does not wait for the child: give the pid to
// loop_child_start. No shell, no fork without exec. Any thread may call it.

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

// What the child gets as a standard stream; a number >= 0 is a descriptor of this process.
enum { PROC_INHERIT = -1, PROC_NULL = -2, PROC_PIPE = -3 };

struct proc_fd {
  int child;  // number in the child, 3 or more
  int parent; // borrowed descriptor of this process
};

struct proc_rlimit {
  int resource; // RLIMIT_X
  rlim_t value; // soft and hard; lowered to the hard limit that is in force
};

// Everything is borrowed for the duration of the call. proc_spec_init sets what is not mandatory.
struct proc_spec {
  char *const *argv; // NULL-terminated; a name without slash is looked up in the child's PATH
  char *const *envp; // NULL-terminated "K=V"; NULL: this process' environment
  const char *cwd;   // NULL: this process' directory
  int stdio[3];      // PROC_X or a descriptor
  const struct proc_fd *fds;
  size_t fd_count;
  const struct proc_rlimit *rlimits;
  size_t rlimit_count;
  bool session;    // lead a new session, and so a new process group
  bool walk_fds;   // close descriptors one by one, as on a kernel without close_range: for specs
  long file_umask; // -1: as in this process
  long uid, gid;   // -1: unchanged; setting one drops the supplementary groups
};

struct proc_child {
  pid_t pid;
  int stdio[3]; // this process' ends of pipes, non-blocking and close-on-exec; -1 where none
};

// What went wrong, in words that a code follows: "exec /bin/x", "cannot enter directory /y".
struct proc_failure {
  char what[256];
};

// Fills spec with the defaults: no fds or limits, all streams /dev/null, a new session.
void proc_spec_init(struct proc_spec *spec);

// Starts a child. All other descriptors are closed in it, the signal mask is empty, every signal
// has its default effect. The working directory is entered, and the program looked for, with the
// child's uid and gid. On success *out is written; its descriptors belong to the caller and the
// child must be waited for. On failure, whichever side it happened on, there is no child, *failure
// says what could not be done, and the code is returned.
int proc_spawn(const struct proc_spec *spec, struct proc_child *out, struct proc_failure *failure);

// Looks a program up in a PATH (NULL: the system's default). A name with a slash stands for itself
// and must be absolute. Elements of the path that are not absolute are passed over: what they
// mean depends on who looks. 0 and the absolute path in buffer; -ENOENT; -EACCES when all that
// was found may not be executed; -ENAMETOOLONG.
int proc_which(const char *name, const char *path, char *buffer, size_t size);

// The RLIMIT_X of a name ("fsize", "nofile"...), or -1.
int proc_rlimit_number(const char *name);

#endif
