// SPDX-License-Identifier: MIT
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
#define CHILD_STACK ((size_t)65536)

// The child runs in the parent's memory on a stack of its own: instrumentation would leave marks
// of the child's frames in the parent's shadow memory.
#define IN_CHILD __attribute__((no_sanitize("address", "undefined", "thread")))

enum stage {
  STAGE_SESSION,
  STAGE_RLIMIT,
  STAGE_FDS,
  STAGE_USER,
  STAGE_CWD,
  STAGE_EXEC,
};

struct mapping {
  int child;
  int parent;
};

// What parent and child share. The parent sleeps until the child has executed or ended.
struct plan {
  const struct proc_spec *spec;
  char *const *envp;
  char *const *candidates; // paths to try, NULL-terminated
  struct mapping *maps;    // sorted by child
  size_t map_count;
  struct rlimit *rlimits;
  volatile enum stage stage;
  volatile int error; // errno; 0: the program runs
  volatile size_t tried;
};

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

// Calls visit with each absolute place where name could be. Stops at a result other than 0.
static int each_candidate(const char *name, const char *path, char *buffer, size_t size,
                          int (*visit)(const char *candidate, void *data), void *data) {
  size_t length = strlen(name);
  if (length == 0) {
    return -ENOENT;
  }
  int result = 0;
  for (const char *from = path != NULL ? path : DEFAULT_PATH; result == 0 && *from != '\0';) {
    size_t part = strcspn(from, ":");
    if (from[0] == '/') {
      if (part + length + 2 > size) {
        return -ENAMETOOLONG;
      }
      memcpy(buffer, from, part);
      buffer[part] = '/';
      memcpy(buffer + part + 1, name, length + 1);
      result = visit(buffer, data);
    }
    from += part + (from[part] == ':');
  }
  return result;
}

static int visit_which(const char *candidate, void *data) {
  struct stat st;
  if (stat(candidate, &st) != 0 || !S_ISREG(st.st_mode)) {
    return 0;
  }
  if (faccessat(AT_FDCWD, candidate, X_OK, AT_EACCESS) == 0) {
    return 1;
  }
  *(int *)data = -EACCES;
  return 0;
}

int proc_which(const char *name, const char *path, char *buffer, size_t size) {
  int missing = -ENOENT;
  int result = 0;
  if (strchr(name, '/') == NULL) {
    result = each_candidate(name, path, buffer, size, visit_which, &missing);
  } else if (name[0] == '/') {
    if (strlen(name) >= size) {
      return -ENAMETOOLONG;
    }
    memcpy(buffer, name, strlen(name) + 1);
    result = visit_which(buffer, &missing);
  }
  if (result < 0) {
    return result;
  }
  return result == 1 ? 0 : missing;
}

// The list of paths to execute: the name itself when it has a slash, else all places on the PATH.
struct candidates {
  char **list; // NULL-terminated, owned with its strings
  size_t count;
};

static int visit_collect(const char *candidate, void *data) {
  struct candidates *all = data;
  // Most elements of a PATH do not have it: asking here is cheaper than failing to execute.
  if (access(candidate, F_OK) != 0) {
    return 0;
  }
  char **list = realloc(all->list, (all->count + 2) * sizeof *list);
  if (list == NULL) {
    return -ENOMEM;
  }
  all->list = list;
  list[all->count] = strdup(candidate);
  if (list[all->count] == NULL) {
    return -ENOMEM;
  }
  list[++all->count] = NULL;
  return 0;
}

static void candidates_fini(struct candidates *all) {
  for (size_t i = 0; i < all->count; i++) {
    free(all->list[i]);
  }
  free(all->list);
}

static const char *variable(char *const *envp, const char *name) {
  size_t length = strlen(name);
  for (; *envp != NULL; envp++) {
    if (strncmp(*envp, name, length) == 0 && (*envp)[length] == '=') {
      return *envp + length + 1;
    }
  }
  return NULL;
}

static int candidates_init(struct candidates *all, const char *name, char *const *envp) {
  char buffer[PATH_MAX];
  if (strchr(name, '/') == NULL) {
    int code =
        each_candidate(name, variable(envp, "PATH"), buffer, sizeof buffer, visit_collect, all);
    return code == 0 && all->count == 0 ? -ENOENT : code;
  }
  all->list = calloc(2, sizeof *all->list);
  if (all->list == NULL || (all->list[0] = strdup(name)) == NULL) {
    return -ENOMEM;
  }
  all->count = 1;
  return 0;
}

static int compare_maps(const void *a, const void *b) {
  return ((const struct mapping *)a)->child - ((const struct mapping *)b)->child;
}

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

IN_CHILD static int child_main(void *data) {
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
  int made = clone(child_main, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, plan);
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
