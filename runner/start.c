// SPDX-License-Identifier: MIT
#include "start.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// As linux/sched.h has them, which not every libc finds.
#define INTO_CGROUP 0x200000000ULL
struct clone_arguments {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
      set_tid_size, cgroup;
};

static const struct {
  const char *name;
  int number;
} RLIMITS[] = {
    {"as", RLIMIT_AS},         {"core", RLIMIT_CORE},   {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},     {"fsize", RLIMIT_FSIZE}, {"memlock", RLIMIT_MEMLOCK},
    {"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}, {"stack", RLIMIT_STACK},
};

int start_rlimit_number(const char *name, size_t length) {
  for (size_t i = 0; i < sizeof RLIMITS / sizeof *RLIMITS; i++) {
    if (strlen(RLIMITS[i].name) == length && memcmp(RLIMITS[i].name, name, length) == 0) {
      return RLIMITS[i].number;
    }
  }
  return -1;
}

pid_t start_fork(unsigned long flags, int cgroup) {
  if (cgroup < 0) {
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  }
  struct clone_arguments args = {.flags = flags | INTO_CGROUP, .exit_signal = SIGCHLD};
  args.cgroup = (unsigned)cgroup;
  return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static bool set_rlimit(const struct start_rlimit *want) {
  struct rlimit limit;
  // By the system call: what type a resource has is not the same everywhere.
  if (syscall(SYS_prlimit64, 0, want->resource, NULL, &limit) != 0) {
    return false;
  }
  rlim_t hard = limit.rlim_max;
  limit.rlim_cur = want->value < hard ? want->value : hard;
  limit.rlim_max = limit.rlim_cur;
  // One second more until SIGKILL, so that SIGXCPU comes first and can be told apart.
  if (want->resource == RLIMIT_CPU && limit.rlim_cur < hard) {
    limit.rlim_max++;
  }
  return syscall(SYS_prlimit64, 0, want->resource, &limit, NULL) == 0;
}

// In the child: makes everything ready for the program. The stage that failed, or NULL.
static const char *prepare(const struct start_spec *spec, pid_t parent) {
  // A parent that died before it was asked for leaves another one behind.
  if (spec->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)) {
    return "session";
  }
  if (setsid() < 0) {
    return "session";
  }
  if (spec->cgroup_procs >= 0 && write(spec->cgroup_procs, "0", 1) != 1) {
    return "cgroup";
  }
  for (size_t i = 0; i < spec->rlimit_count; i++) {
    if (!set_rlimit(&spec->rlimits[i])) {
      return "rlimit";
    }
  }
  if (spec->cwd != NULL && chdir(spec->cwd) != 0) {
    return "cwd";
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  return NULL;
}

pid_t start_script(const struct start_spec *spec, struct start_failure *failure) {
  // The strings are the same in both processes, so a pointer to one can be shared.
  struct start_failure *told =
      mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (told == MAP_FAILED) {
    *failure = (struct start_failure){"fork", errno};
    return -1;
  }
  pid_t parent = getpid();
  pid_t pid = start_fork(CLONE_VFORK, spec->cgroup);
  if (pid == 0) {
    const char *stage = prepare(spec, parent);
    if (stage == NULL) {
      stage = "exec";
      execvp(spec->argv[0], spec->argv);
    }
    told->error = errno;
    told->stage = stage;
    _exit(127);
  }
  *failure = pid < 0 ? (struct start_failure){"fork", errno} : *told;
  munmap(told, sizeof *told);
  if (pid > 0 && failure->stage != NULL) {
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return -1;
  }
  return pid;
}
