// SPDX-License-Identifier: MIT
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "directory.h"
#include "door.h"
#include "exec.h"
#include "files.h"
#include "link.h"
#include "listen.h"
#include "port.h"
#include "program.h"
#include "spawn.h"
#include "words.h"

#define WIRE_VERSION 1
// How long trees may take to end. Their supervisors give up before.
#define END_PATIENCE_MS 15000

enum phase { PHASE_LINKED, PHASE_WAITING, PHASE_ENDING };

// An exec that stays for this time only: see door.h.
struct turn {
  bool on;
  bool ignored;  // it begins where we are not
  bool said;     // something has been written
  uint64_t left; // bytes that are still to come
  int64_t until; // monotonic milliseconds
};

struct serve {
  struct runner runner;
  const struct serve_options *options;
  struct link link;
  struct watch peer; // ends with the exec that has given us the link
  struct watch signals;
  struct door door;
  struct turn turn; // what the link is, if it is none that stays
  enum phase phase;
  int64_t deadline; // of the phase, monotonic milliseconds
  char token[DOOR_TOKEN];
  size_t token_size;
  bool has_token;
  char input[131072];
};

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void quit(struct runner *runner, struct mux_channel *channel, const struct words *words) {
  (void)channel;
  (void)words;
  runner->quit = true;
}

static void park(struct runner *runner, struct mux_channel *channel, const struct words *words) {
  (void)words;
  exec_pipe(runner, channel);
}

static const struct {
  const char *name;
  void (*start)(struct runner *runner, struct mux_channel *channel, const struct words *words);
} REQUESTS[] = {
    {"pipe", park},     {"exec", exec_start}, {"listen", listen_start}, {"mkdir", directory_start},
    {"put", files_put}, {"get", files_get},   {"quit", quit},
};

static void opened(struct mux *m, struct mux_channel *channel, const char *request, size_t size,
                   void *data) {
  struct runner *runner = data;
  struct words words;
  (void)m;
  if (!words_split(&words, request, size)) {
    port_error(channel, "request", -EINVAL);
    return;
  }
  for (size_t i = 0; i < sizeof REQUESTS / sizeof *REQUESTS; i++) {
    if (strcmp(words.at[0], REQUESTS[i].name) == 0) {
      REQUESTS[i].start(runner, channel, &words);
      return;
    }
  }
  port_error(channel, "request", -ENOSYS);
}

static void readable(struct mux_channel *channel, void *user) {
  struct port *port = user;
  (void)channel;
  port->kind->readable(port);
}

static void drained(struct mux_channel *channel, void *user) {
  struct port *port = user;
  (void)channel;
  if (port->kind->drained != NULL) {
    port->kind->drained(port);
  }
}

static void drop_link(struct serve *serve) {
  link_close(&serve->runner.watches, &serve->link);
  watch_close(&serve->runner.watches, &serve->peer);
  serve->turn.on = false;
  mux_suspend(serve->runner.mux);
  dup2(STDIN_FILENO, STDERR_FILENO); // as the input before it, the null device
}

// Everything has to go. The supervisors see it from the ends of their sockets.
static void begin_end(struct serve *serve) {
  if (serve->phase == PHASE_ENDING) {
    return;
  }
  serve->phase = PHASE_ENDING;
  serve->deadline = now_ms() + END_PATIENCE_MS;
  if (serve->door.dir != NULL) {
    door_close(&serve->door);
  }
  drop_link(serve);
  for (struct port *port = serve->runner.ports, *next; port != NULL; port = next) {
    next = port->next;
    port->kind->stop(port);
  }
}

static void lose_link(struct serve *serve) {
  drop_link(serve);
  if (serve->door.dir == NULL || !serve->has_token) {
    begin_end(serve);
  } else if (serve->phase == PHASE_LINKED) {
    serve->phase = PHASE_WAITING;
    serve->deadline = now_ms() + (int64_t)serve->options->grace_ms;
  }
}

// The engine has been heard of. It lets nobody wait for that longer than a part of the lease.
static void renew_lease(struct serve *serve) {
  if (serve->phase == PHASE_LINKED) {
    serve->deadline = now_ms() + (int64_t)serve->options->lease_ms;
  }
}

// Writes as much as the link takes.
static void flush(struct serve *serve) {
  const char *bytes;
  size_t size;
  while (link_is_open(&serve->link) && serve->link.out.events == 0 &&
         mux_output(serve->runner.mux, &bytes, &size)) {
    ssize_t written = link_write(&serve->link, bytes, size);
    if (written >= 0) {
      mux_written(serve->runner.mux, (size_t)written);
      serve->turn.said = true;
    } else if (written != -EAGAIN ||
               watch_set(&serve->runner.watches, &serve->link.out, EPOLLOUT) != 0) {
      lose_link(serve);
    }
  }
}

// Whether all of a turn has come and gone that is there by now.
static bool is_turn_done(const struct serve *serve) {
  return serve->turn.on && serve->turn.left == 0 && serve->link.out.events == 0;
}

// A turn ends when it has brought something, or when it has waited long enough.
static void look_at_turn(struct serve *serve) {
  const struct turn *turn = &serve->turn;
  if (is_turn_done(serve) && (turn->said || turn->ignored || now_ms() >= turn->until)) {
    lose_link(serve);
  }
}

static void on_out(void *data, uint32_t events) {
  struct serve *serve = data;
  (void)events;
  watch_set(&serve->runner.watches, &serve->link.out, 0);
}

static bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

// The first line is the token. How many of the bytes belong to it, or -1 when it is none.
static ssize_t feed_token(struct serve *serve, const char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (serve->token_size == DOOR_TOKEN) {
      serve->has_token = bytes[i] == '\n';
      return serve->has_token ? (ssize_t)i + 1 : -1;
    }
    if (!is_hex(bytes[i])) {
      return -1;
    }
    serve->token[serve->token_size++] = bytes[i];
  }
  return (ssize_t)size;
}

static void on_in(void *data, uint32_t events) {
  struct serve *serve = data;
  (void)events;
  struct turn *turn = &serve->turn;
  size_t most = sizeof serve->input;
  if (turn->on && turn->left < most) {
    most = (size_t)turn->left;
  }
  ssize_t size = link_read(&serve->link, serve->input, most);
  if (size == -EAGAIN) {
    return;
  }
  if (size <= 0) {
    lose_link(serve);
    return;
  }
  renew_lease(serve);
  if (turn->on) {
    turn->left -= (uint64_t)size;
    if (turn->left == 0) {
      watch_set(&serve->runner.watches, &serve->link.in, 0);
    }
    if (turn->ignored) {
      return;
    }
  }
  ssize_t at = serve->has_token ? 0 : feed_token(serve, serve->input, (size_t)size);
  if (at < 0 ||
      (at < size && mux_feed(serve->runner.mux, serve->input + at, (size_t)(size - at)) != 0)) {
    begin_end(serve);
  }
}

static void on_peer(void *data, uint32_t events) {
  (void)events;
  lose_link(data);
}

static int use_link(struct serve *serve, int in, int out) {
  watch_init(&serve->link.in, -1, on_in, serve);
  watch_init(&serve->link.out, -1, on_out, serve);
  link_init(&serve->link, in, out);
  return watch_set(&serve->runner.watches, &serve->link.in,
                   serve->turn.on && serve->turn.left == 0 ? 0 : EPOLLIN);
}

static void on_attach(void *data, const struct door_knock *knock, int in, int out, int peer) {
  struct serve *serve = data;
  drop_link(serve);
  serve->turn = (struct turn){.on = knock->turn != 0,
                              .ignored = knock->from != mux_received(serve->runner.mux),
                              .left = knock->size,
                              .until = now_ms() + (int64_t)knock->hold_ms};
  watch_init(&serve->peer, peer, on_peer, serve);
  int code = use_link(serve, in, out);
  if (code == 0 && mux_resume(serve->runner.mux, knock->received) != 0) {
    code = -EINVAL;
  }
  if (code != 0) {
    char answer[64];
    int size = snprintf(answer, sizeof answer, "error resume %d %s", -code, strerror(-code));
    send(peer, answer, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    lose_link(serve);
    return;
  }
  char line[128];
  snprintf(line, sizeof line, "\n%.*s resumed %llu\n", DOOR_MARK, knock->mark,
           (unsigned long long)mux_received(serve->runner.mux));
  serve->phase = PHASE_LINKED;
  renew_lease(serve);
  if (send(peer, "ok", 2, MSG_DONTWAIT | MSG_NOSIGNAL) != 2 || link_say(&serve->link, line) != 0 ||
      watch_set(&serve->runner.watches, &serve->peer, EPOLLIN) != 0) {
    lose_link(serve);
  }
}

static void on_signal(void *data, uint32_t events) {
  struct serve *serve = data;
  struct signalfd_siginfo info;
  (void)events;
  if (read(serve->signals.fd, &info, sizeof info) == (ssize_t)sizeof info &&
      (info.ssi_signo != SIGHUP || serve->door.dir == NULL)) {
    begin_end(serve);
  }
}

static int open_signals(struct serve *serve) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigprocmask(SIG_SETMASK, &set, NULL);
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) {
    return -errno;
  }
  watch_init(&serve->signals, fd, on_signal, serve);
  return watch_set(&serve->runner.watches, &serve->signals, EPOLLIN);
}

// Standard input and output become the link; the null device takes their places.
static int open_link(struct serve *serve) {
  int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) {
    null = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  if (in < 0 || out < 0 || null < 0) {
    return -errno;
  }
  dup2(null, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);
  if (fcntl(STDERR_FILENO, F_GETFD) < 0) {
    dup2(null, STDERR_FILENO);
  }
  if (null > STDERR_FILENO) {
    close(null);
  }
  return use_link(serve, in, out);
}

static int open_door(struct serve *serve) {
  if (serve->options->dir == NULL || serve->options->grace_ms == 0) {
    return 0;
  }
  // Whoever ends the exec in which we started must not end us.
  setsid();
  serve->door = (struct door){.watches = &serve->runner.watches,
                              .dir = serve->options->dir,
                              .token = serve->token,
                              .fn = on_attach,
                              .data = serve};
  int code = door_open(&serve->door);
  if (code != 0) {
    serve->door.dir = NULL;
  }
  return code;
}

// Each turn looks by itself.
static void output(struct mux *m, void *data) {
  (void)m;
  (void)data;
}

static int open_mux(struct serve *serve) {
  static const struct mux_options options = {.side = MUX_RUNNER};
  static const struct mux_events events = {
      .opened = opened, .readable = readable, .drained = drained, .output = output};
  return mux_new(&options, &events, &serve->runner, &serve->runner.mux);
}

static int say_hello(const struct serve *serve) {
  struct utsname name;
  char hash[SHA256_HEX_SIZE + 1];
  char line[256];
  uname(&name);
  program_hash(hash);
  snprintf(line, sizeof line, "\n%s hello %d %ld %lu ? %s %s\n", serve->options->mark, WIRE_VERSION,
           (long)getpid(), (unsigned long)geteuid(), name.machine, hash);
  return link_say(&serve->link, line);
}

static int64_t next_deadline(const struct serve *serve) {
  return is_turn_done(serve) && serve->turn.until < serve->deadline ? serve->turn.until
                                                                    : serve->deadline;
}

// Until nothing is left to do.
static void run(struct serve *serve) {
  int64_t touched = now_ms();
  while (serve->phase != PHASE_ENDING || serve->runner.trees > 0) {
    flush(serve);
    look_at_turn(serve);
    int64_t left = next_deadline(serve) - now_ms();
    if (left <= 0 && serve->phase == PHASE_ENDING) {
      return;
    }
    if (left <= 0) {
      (serve->phase == PHASE_LINKED ? lose_link : begin_end)(serve);
      continue;
    }
    if (now_ms() - touched >= DIRECTORY_TOUCH_MS) {
      touched = now_ms();
      directory_touch_all(&serve->runner);
    }
    int timeout = left < DIRECTORY_TOUCH_MS ? (int)left : DIRECTORY_TOUCH_MS;
    if (watches_wait(&serve->runner.watches, timeout) != 0 || serve->runner.quit) {
      begin_end(serve);
    }
  }
}

static void clean_up(struct serve *serve) {
  while (serve->runner.ports != NULL) {
    struct port *port = serve->runner.ports;
    (port->kind->last != NULL ? port->kind->last : port->kind->stop)(port);
  }
  watch_close(&serve->runner.watches, &serve->signals);
  close(serve->runner.watches.epoll);
  mux_free(serve->runner.mux);
}

int serve_main(const struct serve_options *options) {
  static struct serve serve;
  static const struct {
    const char *stage;
    int (*open)(struct serve *serve);
  } STAGES[] = {
      {"mux", open_mux}, {"signals", open_signals}, {"link", open_link}, {"directory", open_door}};
  serve.options = options;
  renew_lease(&serve);
  watch_init(&serve.peer, -1, on_peer, &serve);
  spawn_prepare();
  program_announce();
  int output = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3); // to tell of failures
  int code = watches_open(&serve.runner.watches);
  const char *stage = "poll";
  for (size_t i = 0; code == 0 && i < sizeof STAGES / sizeof *STAGES; i++) {
    stage = STAGES[i].stage;
    code = STAGES[i].open(&serve);
  }
  if (code != 0) {
    dprintf(output, "\n%s error %s %d %s\n", options->mark, stage, -code, strerror(-code));
    return 1;
  }
  close(output);
  if (say_hello(&serve) != 0) {
    begin_end(&serve);
  }
  run(&serve);
  clean_up(&serve);
  return 0;
}
