// SPDX-License-Identifier: MIT
// The child between clone and exec.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc_plan.h"

// The child runs in the parent's memory on a stack of its own: instrumentation would leave marks
// of the child's frames in the parent's shadow memory.
#define IN_CHILD __attribute__((no_sanitize("address", "undefined", "thread")))

IN_CHILD static void walk_and_close(int lowest, const struct plan *plan) {
  struct entry {
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[];
  };
  _Alignas(struct entry) char buffer[4096];
  int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) {
    struct rlimit files;
    int highest = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 65536
                      ? (int)files.rlim_cur
                      : 65536;
    for (int fd = lowest; fd < highest; fd++) {
      close(fd);
    }
    return;
  }
  long size;
  while ((size = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0) {
    for (long at = 0; at < size;) {
      const struct entry *entry = (const struct entry *)(buffer + at);
      at += entry->size;
      int fd = 0;
      for (const char *digit = entry->name; *digit >= '0' && *digit <= '9'; digit++) {
        fd = fd * 10 + (*digit - '0');
      }
      bool keep = entry->name[0] == '.' || fd < lowest || fd == dir;
      for (size_t i = 0; i < plan->map_count; i++) {
        keep = keep || plan->maps[i].child == fd;
      }
      if (!keep) {
        close(fd);
      }
    }
  }
  close(dir);
}

// Closes everything that the plan does not name.
IN_CHILD static void close_others(const struct plan *plan) {
  int from = 0;
  bool walk = plan->spec->walk_fds;
  for (size_t i = 0; !walk && i <= plan->map_count; i++) {
    bool last = i == plan->map_count;
    int next = last ? -1 : plan->maps[i].child;
    if (last || next > from) {
      walk = syscall(SYS_close_range, from, last ? UINT_MAX : (unsigned)(next - 1), 0) != 0;
    }
    from = next + 1;
  }
  if (walk) {
    walk_and_close(0, plan);
  }
}

// Puts the descriptors at their numbers. A source that stands where another belongs, or below the
// highest target, is moved out of the way first.
IN_CHILD static int place_fds(struct plan *plan) {
  int highest = plan->maps[plan->map_count - 1].child;
  for (size_t i = 0; i < plan->map_count; i++) {
    struct mapping *map = &plan->maps[i];
    if (map->parent <= highest && map->parent != map->child) {
      map->parent = fcntl(map->parent, F_DUPFD_CLOEXEC, highest + 1);
      if (map->parent < 0) {
        return -1;
      }
    }
  }
  for (size_t i = 0; i < plan->map_count; i++) {
    const struct mapping *map = &plan->maps[i];
    if (map->parent == map->child ? fcntl(map->child, F_SETFD, 0) < 0
                                  : dup2(map->parent, map->child) < 0) {
      return -1;
    }
  }
  close_others(plan);
  return 0;
}

// By raw system calls: glibc's would try to change all threads of the parent.
IN_CHILD static int become_user(const struct proc_spec *spec) {
  if (spec->uid < 0 && spec->gid < 0) {
    return 0;
  }
  if (syscall(SYS_setgroups, 0, NULL) != 0 ||
      (spec->gid >= 0 && syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) != 0) ||
      (spec->uid >= 0 && syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) != 0)) {
    return -1;
  }
  return 0;
}

// Handlers must be gone before signals are let in: they would run in the parent's memory. Raw
// system calls, because what a library remembers of handlers is the parent's too; zeros are the
// standard action and the empty mask in the kernel's own layout.
IN_CHILD static void reset_signals(void) {
  unsigned long zeros[8] = {0};
  for (int number = 1; number < NSIG; number++) {
    syscall(SYS_rt_sigaction, number, zeros, NULL, NSIG / 8);
  }
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, zeros, NULL, NSIG / 8);
}

IN_CHILD static int prepare(struct plan *plan) {
  const struct proc_spec *spec = plan->spec;
  reset_signals();
  plan->stage = STAGE_SESSION;
  if (spec->session && setsid() < 0) {
    return -1;
  }
  plan->stage = STAGE_FDS;
  if (place_fds(plan) != 0) {
    return -1;
  }
  plan->stage = STAGE_RLIMIT;
  for (size_t i = 0; i < spec->rlimit_count; i++) {
    if (setrlimit((__rlimit_resource_t)spec->rlimits[i].resource, &plan->rlimits[i]) != 0) {
      return -1;
    }
  }
  if (spec->file_umask >= 0) {
    umask((mode_t)spec->file_umask);
  }
  plan->stage = STAGE_USER;
  if (become_user(spec) != 0) {
    return -1;
  }
  plan->stage = STAGE_CWD;
  if (spec->cwd != NULL && chdir(spec->cwd) != 0) {
    return -1;
  }
  return 0;
}

IN_CHILD int proc_child_main(void *data) {
  struct plan *plan = data;
  if (prepare(plan) != 0) {
    plan->error = errno;
    _exit(127);
  }
  plan->stage = STAGE_EXEC;
  int error = ENOENT;
  for (size_t i = 0; plan->candidates[i] != NULL; i++) {
    execve(plan->candidates[i], plan->spec->argv, plan->envp);
    // As execvp does: what may not be executed does not end the search.
    if (errno != ENOENT && errno != ENOTDIR) {
      error = errno;
      plan->tried = i;
    }
    if (errno != EACCES && errno != ENOENT && errno != ENOTDIR) {
      break;
    }
  }
  plan->error = error;
  _exit(127);
}
