// SPDX-License-Identifier: MIT
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc_plan.h"

#define CHILD_STACK ((size_t)65536)

static const struct {
  const char *name;
  int number;
} RLIMITS[] = {
    {"as", RLIMIT_AS},         {"core", RLIMIT_CORE},   {"cpu", RLIMIT_CPU},
    {"data", RLIMIT_DATA},     {"fsize", RLIMIT_FSIZE}, {"memlock", RLIMIT_MEMLOCK},
    {"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}, {"stack", RLIMIT_STACK},
};

int proc_rlimit_number(const char *name) {
  for (size_t i = 0; i < sizeof RLIMITS / sizeof *RLIMITS; i++) {
    if (strcmp(RLIMITS[i].name, name) == 0) {
      return RLIMITS[i].number;
    }
  }
  return -1;
}

void proc_spec_init(struct proc_spec *spec) {
  *spec = (struct proc_spec){.stdio = {PROC_NULL, PROC_NULL, PROC_NULL},
                             .session = true,
                             .file_umask = -1,
                             .uid = -1,
                             .gid = -1};
}

static int compare_maps(const void *a, const void *b) {
  return ((const struct mapping *)a)->child - ((const struct mapping *)b)->child;
}

// Opens what the standard streams need: ours[i] stays here, theirs[i] goes to the child.
static int open_stdio(const struct proc_spec *spec, int ours[3], int theirs[3], int *null) {
  for (int i = 0; i < 3; i++) {
    int want = spec->stdio[i];
    // Inheriting what is closed here would hand the child's next file to it as a standard stream.
    if (want == PROC_INHERIT) {
      want = fcntl(i, F_GETFD) >= 0 ? i : PROC_NULL;
    }
    if (want == PROC_PIPE) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) {
        return -errno;
      }
      ours[i] = ends[i == 0];
      theirs[i] = ends[i != 0];
      if (fcntl(ours[i], F_SETFL, O_NONBLOCK) != 0) {
        return -errno;
      }
    } else if (want == PROC_NULL) {
      if (*null < 0 && (*null = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0) {
        return -errno;
      }
      theirs[i] = *null;
    } else {
      theirs[i] = want;
    }
  }
  return 0;
}

static int plan_fds(struct plan *plan, const int theirs[3]) {
  const struct proc_spec *spec = plan->spec;
  plan->map_count = 3 + spec->fd_count;
  plan->maps = calloc(plan->map_count, sizeof *plan->maps);
  if (plan->maps == NULL) {
    return -ENOMEM;
  }
  for (int i = 0; i < 3; i++) {
    plan->maps[i] = (struct mapping){i, theirs[i]};
  }
  for (size_t i = 0; i < spec->fd_count; i++) {
    plan->maps[3 + i] = (struct mapping){spec->fds[i].child, spec->fds[i].parent};
  }
  qsort(plan->maps, plan->map_count, sizeof *plan->maps, compare_maps);
  for (size_t i = 0; i < plan->map_count; i++) {
    if (plan->maps[i].parent < 0 || (i > 0 && plan->maps[i].child <= plan->maps[i - 1].child)) {
      return -EBADF;
    }
  }
  return 0;
}

static int plan_rlimits(struct plan *plan) {
  const struct proc_spec *spec = plan->spec;
  if (spec->rlimit_count == 0) {
    return 0;
  }
  plan->rlimits = calloc(spec->rlimit_count, sizeof *plan->rlimits);
  if (plan->rlimits == NULL) {
    return -ENOMEM;
  }
  for (size_t i = 0; i < spec->rlimit_count; i++) {
    const struct proc_rlimit *want = &spec->rlimits[i];
    struct rlimit *limit = &plan->rlimits[i];
    if (getrlimit((__rlimit_resource_t)want->resource, limit) != 0) {
      return -errno;
    }
    rlim_t hard = limit->rlim_max;
    limit->rlim_cur = want->value < hard ? want->value : hard;
    // One second more until SIGKILL, so that SIGXCPU comes first and can be told apart.
    limit->rlim_max = want->resource == RLIMIT_CPU && limit->rlim_cur < hard ? limit->rlim_cur + 1
                                                                             : limit->rlim_cur;
  }
  return 0;
}

static void describe(struct proc_failure *failure, const struct plan *plan) {
  const struct proc_spec *spec = plan->spec;
  const char *program = plan->candidates != NULL ? plan->candidates[plan->tried] : spec->argv[0];
  const char *text = "exec ";
  const char *object = "";
  const char *more = "";
  switch (plan->stage) {
  case STAGE_SESSION:
    text = "cannot start a session";
    break;
  case STAGE_RLIMIT:
    text = "cannot set resource limits";
    break;
  case STAGE_FDS:
    text = "cannot place descriptors";
    break;
  case STAGE_USER:
    text = "cannot change user or group";
    break;
  case STAGE_CWD:
    text = "cannot enter directory ";
    object = spec->cwd;
    break;
  case STAGE_EXEC:
    object = program;
    // The file is there: what is missing is named in it.
    if (plan->error == ENOENT && plan->candidates != NULL && object[0] == '/' &&
        access(object, F_OK) == 0) {
      more = ": its interpreter";
    }
    break;
  }
  snprintf(failure->what, sizeof failure->what, "%s%.200s%s", text, object, more);
}

#ifdef __SANITIZE_THREAD__
// By its other name: ThreadSanitizer takes clone for a fork, and what the child does then for the
// parent's, whose memory it shares.
int __clone(int (*fn)(void *), void *stack, int flags, void *argument, ...);
#define clone __clone
#endif

// Runs the plan. 0 and *pid, or -errno and no child.
static int run_plan(struct plan *plan, pid_t *pid) {
  char *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) {
    return -errno;
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int made = clone(proc_child_main, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, plan);
  int code = made < 0 ? -errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  munmap(stack, CHILD_STACK);
  if (code == 0 && plan->error != 0) {
    while (waitpid(made, NULL, 0) < 0 && errno == EINTR) {
    }
    return -plan->error;
  }
  *pid = made;
  return code;
}

static void close_fd(int *fd) {
  if (*fd >= 0) {
    close(*fd);
  }
  *fd = -1;
}

int proc_spawn(const struct proc_spec *spec, struct proc_child *out, struct proc_failure *failure) {
  int ours[3] = {-1, -1, -1};
  int theirs[3] = {-1, -1, -1};
  int null = -1;
  struct candidates candidates = {NULL, 0};
  struct plan plan = {
      .spec = spec, .envp = spec->envp != NULL ? spec->envp : environ, .stage = STAGE_EXEC};
  int code = candidates_init(&candidates, spec->argv[0], plan.envp);
  if (code == 0) {
    plan.candidates = candidates.list;
    plan.stage = STAGE_FDS;
    code = open_stdio(spec, ours, theirs, &null);
  }
  if (code == 0) {
    code = plan_fds(&plan, theirs);
  }
  if (code == 0) {
    plan.stage = STAGE_RLIMIT;
    code = plan_rlimits(&plan);
  }
  pid_t pid = -1;
  if (code == 0) {
    plan.stage = STAGE_EXEC;
    code = run_plan(&plan, &pid);
  }
  if (code == 0) {
    *out = (struct proc_child){pid, {ours[0], ours[1], ours[2]}};
  } else {
    describe(failure, &plan);
  }
  for (int i = 0; i < 3; i++) {
    if (spec->stdio[i] == PROC_PIPE) {
      close_fd(&theirs[i]);
    }
    if (code != 0) {
      close_fd(&ours[i]);
    }
  }
  close_fd(&null);
  candidates_fini(&candidates);
  free(plan.maps);
  free(plan.rlimits);
  return code;
}
