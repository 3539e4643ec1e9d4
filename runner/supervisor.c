// SPDX-License-Identifier: MIT
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "start.h"
#include "tree.h"

#define MAX_RLIMITS 16

// How long the tree has after the engine's death between TERM and KILL, and how long killing may
// take until the rest is given up (uninterruptible sleep, or another user's process).
#define ORPHAN_GRACE_MS 1000
#define GIVE_UP_MS 10000

enum level { LEVEL_AUTO, LEVEL_PIDNS, LEVEL_CGROUP, LEVEL_SUBREAPER };
static const char *const LEVELS[] = {"auto", "pidns", "cgroup", "subreaper"};

enum phase {
  PHASE_RUN,    // the main process runs
  PHASE_LINGER, // it has ended; others may end by themselves
  PHASE_TERM,   // all have been asked to end
  PHASE_KILL,
};

struct options {
  int control;
  enum level level;
  long grace_ms, linger_ms, deadline_ms; // deadline: -1 none
  struct start_rlimit rlimits[MAX_RLIMITS];
  size_t rlimit_count;
  const char *cwd; // or NULL
  long environ_size, words_size;
  char **argv;
};

struct run {
  const struct options *options;
  enum level level;
  struct cgroup group;
  int signals; // signalfd
  pid_t main;  // 0: has been reaped
  enum phase phase;
  int64_t phase_end, deadline; // monotonic milliseconds; INT64_MAX: never
  bool engine_gone;
  char input[128];
  size_t input_size;
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Tells the engine. If it is not there any more, that is noticed when reading.
__attribute__((format(printf, 2, 3))) static void tell(int control, const char *format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  int size = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (size > 0) {
    send(control, line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1, MSG_NOSIGNAL);
  }
}

static void signal_tree(const struct run *run, int number) {
  if (run->level == LEVEL_PIDNS) {
    kill(-1, number);
  } else {
    tree_signal(number);
  }
}

static void kill_tree(const struct run *run) {
  if (run->level == LEVEL_PIDNS) {
    kill(-1, SIGKILL);
    return;
  }
  cgroup_kill(&run->group);
  tree_kill();
}

static void enter(struct run *run, enum phase phase, long duration_ms) {
  run->phase = phase;
  run->phase_end = now_ms() + duration_ms;
  if (phase == PHASE_TERM) {
    signal_tree(run, SIGTERM);
    signal_tree(run, SIGCONT);
  } else if (phase == PHASE_KILL) {
    // Against a thousand processes that fork, an equal share of the processor is too little.
    setpriority(PRIO_PROCESS, 0, -20);
  }
}

// Asks the tree to end, unless that has been done already; a shorter grace counts.
static void ask_to_end(struct run *run, long grace_ms) {
  if (run->phase < PHASE_TERM) {
    enter(run, PHASE_TERM, grace_ms);
  } else if (run->phase == PHASE_TERM && now_ms() + grace_ms < run->phase_end) {
    run->phase_end = now_ms() + grace_ms;
  }
}

static void obey(struct run *run, const char *line) {
  if (strcmp(line, "kill") == 0) {
    ask_to_end(run, run->options->grace_ms);
  } else if (strncmp(line, "kill ", 5) == 0) {
    ask_to_end(run, strtol(line + 5, NULL, 10));
  } else if (strncmp(line, "signal ", 7) == 0 && run->main > 0) {
    int number = (int)strtol(line + 7, NULL, 10);
    if (number > 0) {
      kill(-run->main, number);
    }
  }
}

static void read_control(struct run *run) {
  ssize_t size = recv(run->options->control, run->input + run->input_size,
                      sizeof run->input - run->input_size, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  run->input_size += size > 0 ? (size_t)size : 0;
  // A line that does not fit is none of ours: the other side is not what it should be.
  if (size <= 0 ||
      (run->input_size == sizeof run->input && memchr(run->input, '\n', run->input_size) == NULL)) {
    run->engine_gone = true;
    long grace = run->options->grace_ms;
    ask_to_end(run, grace < ORPHAN_GRACE_MS ? grace : ORPHAN_GRACE_MS);
    return;
  }
  char *end;
  while ((end = memchr(run->input, '\n', run->input_size)) != NULL) {
    *end = '\0';
    obey(run, run->input);
    run->input_size -= (size_t)(end + 1 - run->input);
    memmove(run->input, end + 1, run->input_size);
  }
}

static void read_signals(struct run *run) {
  struct signalfd_siginfo info;
  while (read(run->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    if (info.ssi_signo != SIGCHLD) {
      ask_to_end(run, run->options->grace_ms);
    }
  }
}

// Reaps who has ended. False when no child is left, and so no descendant either.
static bool reap(struct run *run) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
    if (pid == 0 || (pid < 0 && errno == EINTR)) {
      return true;
    }
    if (pid < 0) {
      return false;
    }
    if (pid == run->main) {
      run->main = 0;
      if (WIFEXITED(status)) {
        tell(run->options->control, "exited %d\n", WEXITSTATUS(status));
      } else {
        tell(run->options->control, "signalled %d\n", WTERMSIG(status));
      }
      if (run->phase == PHASE_RUN) {
        enter(run, PHASE_LINGER, run->options->linger_ms);
      }
    }
  }
}

static void wait_for_events(struct run *run) {
  struct pollfd fds[] = {{.fd = run->signals, .events = POLLIN},
                         {.fd = run->engine_gone ? -1 : run->options->control, .events = POLLIN}};
  int64_t end = run->phase == PHASE_RUN ? run->deadline : run->phase_end;
  int timeout = -1;
  if (run->phase == PHASE_KILL) {
    timeout = 5;
  } else if (end != INT64_MAX) {
    int64_t left = end - now_ms();
    timeout = left < 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
  }
  if (poll(fds, 2, timeout) <= 0) {
    return;
  }
  if (fds[0].revents != 0) {
    read_signals(run);
  }
  if (fds[1].revents != 0) {
    read_control(run);
  }
}

// From the start of the script until nothing of its tree is left. The number of processes that
// could not be killed.
static int attend(struct run *run) {
  const struct options *options = run->options;
  while (reap(run)) {
    int64_t now = now_ms();
    if (run->phase == PHASE_RUN && now >= run->deadline) {
      tell(options->control, "deadline\n");
      enter(run, PHASE_TERM, options->grace_ms);
    } else if ((run->phase == PHASE_LINGER || run->phase == PHASE_TERM) && now >= run->phase_end) {
      enter(run, PHASE_KILL, GIVE_UP_MS);
    }
    if (run->phase == PHASE_KILL) {
      kill_tree(run);
      if (now >= run->phase_end) {
        int left = run->level == LEVEL_PIDNS ? 1 : tree_signal(0);
        return left > 0 ? left : 1;
      }
    }
    wait_for_events(run);
  }
  return 0;
}

// The signals that are waited for; blocked, so that none is lost and init gets them too.
static int open_signals(enum level level) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  // Inside the namespace nobody but the script could send these.
  if (level != LEVEL_PIDNS) {
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGHUP);
  }
  sigprocmask(SIG_SETMASK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

// Lets go of what belongs to the script: its pipes end when it ends, and its directory is not held.
static void let_go(const struct options *options) {
  for (int fd = 0; fd < 3; fd++) {
    if (fd != options->control) {
      close(fd);
    }
  }
  int ignored = chdir("/");
  (void)ignored;
}

// Starts the script and attends to it. The number of processes that are left.
static int supervise(struct run *run) {
  const struct options *options = run->options;
  run->deadline = options->deadline_ms < 0 ? INT64_MAX : now_ms() + options->deadline_ms;
  tell(options->control, "level %s\n", LEVELS[run->level]);
  const struct start_spec spec = {.argv = options->argv,
                                  .rlimits = options->rlimits,
                                  .rlimit_count = options->rlimit_count,
                                  .cwd = options->cwd,
                                  .cgroup = run->group.frozen_kill ? -1 : run->group.dir,
                                  .cgroup_procs = run->group.procs,
                                  .die_with_parent = run->level != LEVEL_PIDNS};
  struct start_failure failure;
  run->main = start_script(&spec, &failure);
  let_go(options);
  if (run->main < 0) {
    tell(options->control, "exec-failed %s %d\n", failure.stage, failure.error);
    return 0;
  }
  tell(options->control, "started %ld\n", (long)run->main);
  return attend(run);
}

// The inner process: attends to the script; in a PID namespace it is the init. link: a byte goes up
// when all is ready and nothing has been started; its end means that the outer one is dead, which
// may have come before PR_SET_PDEATHSIG. 0, or 1 when something is left or nothing was started.
static int be_inner(struct run *run, int link) {
  struct pollfd up = {.fd = link, .events = 0};
  bool pidns = run->level == LEVEL_PIDNS;
  run->signals = open_signals(run->level);
  if (prctl(PR_SET_PDEATHSIG, pidns ? SIGKILL : SIGTERM) != 0 || poll(&up, 1, 0) != 0 ||
      (!pidns && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)) {
    return 1;
  }
  // Mounts of the host still come in, so that nothing there is held; ours stay here.
  if (pidns && (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 ||
                mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)) {
    return 1;
  }
  if (send(link, "", 1, MSG_NOSIGNAL) != 1) {
    return 1;
  }
  int left = supervise(run);
  cgroup_remove(&run->group);
  if (left > 0) {
    tell(run->options->control, "left %d\n", left);
  } else if (poll(&up, 1, 0) != 0) {
    // Nobody outside is there to say it.
    tell(run->options->control, "gone\n");
  }
  return left > 0;
}

// The inner process was killed. A PID namespace died with it; otherwise its orphans came to us.
static int clean_up_after(struct run *run) {
  enter(run, PHASE_KILL, GIVE_UP_MS);
  while (reap(run)) {
    if (now_ms() >= run->phase_end) {
      return 1;
    }
    kill_tree(run);
    poll(NULL, 0, 5);
  }
  return 0;
}

// False when this level is not to be had; then nothing has been started. Two processes: the outer
// one only waits for the inner one, so that neither can be killed without the other one cleaning
// up.
static bool run_level(const struct options *options, enum level level) {
  struct run run = {.options = options,
                    .level = level,
                    .group = {.parent = -1, .dir = -1, .procs = -1},
                    .signals = -1,
                    .phase_end = INT64_MAX};
  int link[2];
  if ((level == LEVEL_CGROUP && cgroup_make(&run.group, options->level == LEVEL_CGROUP) != 0) ||
      (level != LEVEL_PIDNS && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) != 0) {
    cgroup_remove(&run.group);
    return false;
  }
  pid_t inner = start_fork(level == LEVEL_PIDNS ? CLONE_NEWPID | CLONE_NEWNS : 0, -1);
  if (inner == 0) {
    close(link[0]);
    _exit(be_inner(&run, link[1]));
  }
  close(link[1]);
  char ready;
  bool good = inner > 0 && recv(link[0], &ready, 1, 0) == 1;
  if (good) {
    let_go(options);
  }
  int status = 0;
  while (inner > 0 && waitpid(inner, &status, 0) < 0 && errno == EINTR) {
  }
  bool left = WIFEXITED(status) && WEXITSTATUS(status) != 0;
  if (good && !WIFEXITED(status)) {
    left = clean_up_after(&run) != 0;
  }
  cgroup_remove(&run.group);
  if (good && !left) {
    tell(options->control, "gone\n");
  }
  close(link[0]);
  return good;
}

static bool parse_rlimit(struct options *options, const char *text) {
  size_t length = strcspn(text, "=");
  int resource = start_rlimit_number(text, length);
  char *end = NULL;
  if (resource < 0 || text[length] != '=' || options->rlimit_count == MAX_RLIMITS) {
    return false;
  }
  unsigned long long value = strtoull(text + length + 1, &end, 10);
  options->rlimits[options->rlimit_count++] = (struct start_rlimit){resource, value};
  return *end == '\0';
}

static bool parse_level(struct options *options, const char *text) {
  for (size_t i = 0; i < sizeof LEVELS / sizeof *LEVELS; i++) {
    if (strcmp(LEVELS[i], text) == 0) {
      options->level = (enum level)i;
      return true;
    }
  }
  return false;
}

static bool parse_number(long *value, const char *text) {
  char *end = NULL;
  *value = strtol(text, &end, 10);
  return end != text && *end == '\0' && *value >= 0;
}

static bool parse_option(struct options *options, const char *name, const char *value) {
  long control = -1;
  if (strcmp(name, "--level") == 0) {
    return parse_level(options, value);
  }
  if (strcmp(name, "--rlimit") == 0) {
    return parse_rlimit(options, value);
  }
  if (strcmp(name, "--cwd") == 0) {
    options->cwd = value;
    return true;
  }
  if (strcmp(name, "--control") == 0) {
    bool good = parse_number(&control, value) && control < 65536;
    options->control = (int)control;
    return good;
  }
  long *number = strcmp(name, "--grace-ms") == 0      ? &options->grace_ms
                 : strcmp(name, "--environ") == 0     ? &options->environ_size
                 : strcmp(name, "--words") == 0       ? &options->words_size
                 : strcmp(name, "--linger-ms") == 0   ? &options->linger_ms
                 : strcmp(name, "--deadline-ms") == 0 ? &options->deadline_ms
                                                      : NULL;
  return number != NULL && parse_number(number, value);
}

static bool parse(struct options *options, int argc, char **argv) {
  *options = (struct options){.control = -1, .grace_ms = 2000, .linger_ms = 100, .deadline_ms = -1};
  int at = 1;
  for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
    if (!parse_option(options, argv[at], argv[at + 1])) {
      return false;
    }
  }
  options->argv = argv + at + 1;
  return (options->words_size > 0 ? at + 1 == argc : at + 1 < argc) &&
         fcntl(options->control, F_SETFD, FD_CLOEXEC) == 0;
}

// Takes the next bytes from the socket; kept to the end. NULL: the engine has died.
static char *take(int control, size_t size) {
  char *bytes = malloc(size + 1);
  if (bytes != NULL && recv(control, bytes, size, MSG_WAITALL) != (ssize_t)size) {
    free(bytes);
    return NULL;
  }
  if (bytes != NULL) {
    bytes[size] = '\0';
  }
  return bytes;
}

static bool take_environ(const struct options *options) {
  size_t size = (size_t)options->environ_size;
  char *bytes = take(options->control, size);
  for (size_t at = 0; bytes != NULL && at < size; at += strlen(bytes + at) + 1) {
    if (strchr(bytes + at, '=') == NULL || putenv(bytes + at) != 0) {
      return false;
    }
  }
  return bytes != NULL;
}

static bool take_words(struct options *options) {
  size_t size = (size_t)options->words_size;
  char *bytes = take(options->control, size);
  // No more words than bytes, and NULL.
  char **words = calloc(size + 1, sizeof *words);
  if (bytes == NULL || words == NULL) {
    free(bytes);
    free(words);
    return false;
  }
  size_t count = 0;
  for (size_t at = 0; at < size; at += strlen(bytes + at) + 1) {
    words[count++] = bytes + at;
  }
  options->argv = words;
  return true;
}

int supervisor_main(int argc, char **argv) {
  struct options options;
  if (!parse(&options, argc, argv)) {
    fputs("usage: farcall-supervisor --control FD [--level auto|pidns|cgroup|subreaper]\n"
          "         [--grace-ms N] [--linger-ms N] [--deadline-ms N] [--rlimit NAME=N]...\n"
          "         [--cwd DIR] [--environ SIZE] [--words SIZE]\n"
          "         -- [PROGRAM [ARG...]]\n",
          stderr);
    return 2;
  }
  // The script may run as the same user: it cannot attach to what is not dumpable.
  prctl(PR_SET_DUMPABLE, 0);
  if ((options.environ_size > 0 && !take_environ(&options)) ||
      (options.words_size > 0 && !take_words(&options))) {
    return 1;
  }
  bool run = false;
  if (options.level != LEVEL_AUTO) {
    run = run_level(&options, options.level);
  }
  for (int level = LEVEL_PIDNS; options.level == LEVEL_AUTO && !run && level <= LEVEL_SUBREAPER;
       level++) {
    run = run_level(&options, (enum level)level);
  }
  if (!run) {
    tell(options.control, "exec-failed level %d\n", ENOTSUP);
    tell(options.control, "gone\n");
  }
  // Not by exit: there is nothing to clean up.
  _exit(0);
}
