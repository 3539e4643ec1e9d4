// SPDX-License-Identifier: MIT
// farcall.core.loop: the poll loop, its timers, watches and signals. Each object keeps its function
// in its environment table, not in the registry, so that a function which refers to its own object
// can be collected; the object itself is pinned while the loop can still call it.

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "bind.h"
#include "err.h"
#include "modules.h"

#define LOOP_TYPE BIND_LOOP_TYPE
#define TIMER_TYPE "farcall.timer"
#define WATCH_TYPE "farcall.watch"
#define SIGNALS_TYPE "farcall.signals"

struct lua_loop {
  struct loop *loop; // first: bind_check_loop relies on it
  unsigned running;  // run and turn on the C stack
};

struct lua_timer {
  struct loop_timer timer;
  struct loop *loop; // held
  lua_State *main;
  int pin;
};

struct lua_watch {
  struct loop_fd watch;
  struct loop *loop; // held
  lua_State *main;
  int pin;
};

struct lua_signals {
  struct lua_watch base; // on the signalfd
  int fd;                // owned; -1 when closed
  sigset_t before;       // the thread's mask as it was
  sigset_t caught;
};

static const struct {
  const char *name;
  int number;
} signal_names[] = {{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"USR1", SIGUSR1},
                    {"USR2", SIGUSR2}, {"TERM", SIGTERM}, {"CHLD", SIGCHLD}, {"WINCH", SIGWINCH},
                    {"CONT", SIGCONT}, {"TSTP", SIGTSTP}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}};

// The callback's function is field 1 of the environment of the userdata at index.
static void set_function(lua_State *L, int userdata, int function) {
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, function);
  lua_rawseti(L, -2, 1);
  lua_setfenv(L, userdata);
}

// Pushes the pinned object's function and leaves nothing else.
static void push_function(lua_State *L, int pin) {
  bind_push(L, pin);
  lua_getfenv(L, -1);
  lua_rawgeti(L, -1, 1);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

// Timers

static uint64_t check_delay(lua_State *L, int index) {
  lua_Number ms = luaL_checknumber(L, index);
  luaL_argcheck(L, ms >= 0 && ms <= 9e15, index, "milliseconds from 0 to 9e15 expected");
  return (uint64_t)ms;
}

static void timer_due(struct loop_timer *timer) {
  struct lua_timer *self = timer->data;
  lua_State *L = self->main;
  push_function(L, self->pin);
  bind_unpin(L, &self->pin);
  // From here on the object may be collected.
  bind_call(L, self->loop, 0);
}

static int start_timer(lua_State *L, struct lua_timer *self, int index, uint64_t delay_ms) {
  int failed = loop_timer_start(self->loop, &self->timer, delay_ms, timer_due);
  if (failed == 0 && self->pin == LUA_NOREF) {
    self->pin = bind_pin(L, index);
  }
  return failed;
}

static int timer_again(lua_State *L) {
  struct lua_timer *self = luaL_checkudata(L, 1, TIMER_TYPE);
  uint64_t delay_ms = check_delay(L, 2);
  int failed = start_timer(L, self, 1, delay_ms);
  if (failed != 0) {
    return bind_fail(L, failed, "timer");
  }
  lua_settop(L, 1);
  return 1;
}

static int timer_close(lua_State *L) {
  struct lua_timer *self = luaL_checkudata(L, 1, TIMER_TYPE);
  loop_timer_stop(&self->timer);
  bind_unpin(L, &self->pin);
  return 0;
}

static int timer_gc(lua_State *L) {
  struct lua_timer *self = luaL_checkudata(L, 1, TIMER_TYPE);
  loop_timer_stop(&self->timer);
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

static int loop_lua_timer(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  uint64_t delay_ms = check_delay(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lua_State *main = bind_main(L);
  struct lua_timer *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_timer){.loop = loop_hold(loop), .main = main, .pin = LUA_NOREF};
  self->timer.data = self;
  luaL_setmetatable(L, TIMER_TYPE);
  int index = lua_gettop(L);
  set_function(L, index, 3);
  int failed = start_timer(L, self, index, delay_ms);
  return failed == 0 ? 1 : bind_fail(L, failed, "timer");
}

// Watches

static const char *const mode_names[] = {"", "r", "w", "rw", NULL};

// The names stand at the index of their bits.
static unsigned check_mode(lua_State *L, int index) {
  return (unsigned)luaL_checkoption(L, index, NULL, mode_names);
}

static void watch_ready(struct loop_fd *watch, unsigned ready) {
  struct lua_watch *self = watch->data;
  lua_State *L = self->main;
  push_function(L, self->pin);
  lua_pushstring(L, mode_names[ready & (LOOP_READ | LOOP_WRITE)]);
  bind_call(L, self->loop, 1);
}

static void init_watch(lua_State *L, struct lua_watch *self, struct loop *loop) {
  *self = (struct lua_watch){.loop = loop_hold(loop), .main = bind_main(L), .pin = LUA_NOREF};
  self->watch.data = self;
}

static int loop_lua_watch(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  int fd = luaL_checkint(L, 2);
  unsigned want = check_mode(L, 3);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  struct lua_watch *self = lua_newuserdata(L, sizeof *self);
  init_watch(L, self, loop);
  luaL_setmetatable(L, WATCH_TYPE);
  int index = lua_gettop(L);
  set_function(L, index, 4);
  int failed = loop_fd_start(loop, &self->watch, fd, want, watch_ready);
  if (failed != 0) {
    return bind_fail(L, failed, "watch");
  }
  self->pin = bind_pin(L, index);
  return 1;
}

static int watch_want(lua_State *L) {
  struct lua_watch *self = luaL_checkudata(L, 1, WATCH_TYPE);
  int failed = loop_fd_want(&self->watch, check_mode(L, 2));
  if (failed != 0) {
    return bind_fail(L, failed, "watch");
  }
  lua_settop(L, 1);
  return 1;
}

static int watch_close(lua_State *L) {
  struct lua_watch *self = luaL_checkudata(L, 1, WATCH_TYPE);
  loop_fd_stop(&self->watch);
  bind_unpin(L, &self->pin);
  return 0;
}

static int watch_gc(lua_State *L) {
  struct lua_watch *self = luaL_checkudata(L, 1, WATCH_TYPE);
  loop_fd_stop(&self->watch);
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

// Signals

static const char *signal_name(uint32_t number) {
  for (size_t i = 0; i < sizeof signal_names / sizeof signal_names[0]; i++) {
    if (signal_names[i].number == (int)number) {
      return signal_names[i].name;
    }
  }
  return "?";
}

static int check_signal(lua_State *L, const char *name) {
  for (size_t i = 0; name != NULL && i < sizeof signal_names / sizeof signal_names[0]; i++) {
    if (strcmp(signal_names[i].name, name) == 0) {
      return signal_names[i].number;
    }
  }
  return luaL_error(L, "there is no signal \"%s\" to wait for", name != NULL ? name : "?");
}

static void signals_ready(struct loop_fd *watch, unsigned ready) {
  (void)ready;
  struct lua_signals *self = watch->data;
  struct signalfd_siginfo info;
  // One a call: the callback may close this, and what is left makes the descriptor ready again.
  if (read(self->fd, &info, sizeof info) == (ssize_t)sizeof info) {
    lua_State *L = self->base.main;
    push_function(L, self->base.pin);
    lua_pushstring(L, signal_name(info.ssi_signo));
    bind_call(L, self->base.loop, 1);
  }
}

static void stop_signals(struct lua_signals *self) {
  loop_fd_stop(&self->base.watch);
  if (self->fd < 0) {
    return;
  }
  close(self->fd);
  self->fd = -1;
  // Only what was blocked for this object: another may have blocked its own signals since.
  for (size_t i = 0; i < sizeof signal_names / sizeof signal_names[0]; i++) {
    if (sigismember(&self->before, signal_names[i].number) == 1) {
      sigdelset(&self->caught, signal_names[i].number);
    }
  }
  pthread_sigmask(SIG_UNBLOCK, &self->caught, NULL);
}

static int signals_close(lua_State *L) {
  struct lua_signals *self = luaL_checkudata(L, 1, SIGNALS_TYPE);
  stop_signals(self);
  bind_unpin(L, &self->base.pin);
  return 0;
}

static int signals_gc(lua_State *L) {
  struct lua_signals *self = luaL_checkudata(L, 1, SIGNALS_TYPE);
  stop_signals(self);
  loop_drop(self->base.loop);
  self->base.loop = NULL;
  return 0;
}

static int start_signals(struct lua_signals *self) {
  int failed = pthread_sigmask(SIG_BLOCK, &self->caught, &self->before);
  if (failed != 0) {
    return -failed;
  }
  int fd = signalfd(-1, &self->caught, SFD_CLOEXEC | SFD_NONBLOCK);
  failed = fd < 0 ? -errno : 0;
  if (failed == 0) {
    failed = loop_fd_start(self->base.loop, &self->base.watch, fd, LOOP_READ, signals_ready);
  }
  if (failed != 0) {
    if (fd >= 0) {
      close(fd);
    }
    pthread_sigmask(SIG_SETMASK, &self->before, NULL);
    return failed;
  }
  self->fd = fd;
  return 0;
}

static int loop_lua_signals(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  sigset_t caught;
  sigemptyset(&caught);
  for (int i = 1; i <= (int)lua_objlen(L, 2); i++) {
    lua_rawgeti(L, 2, i);
    sigaddset(&caught, check_signal(L, lua_tostring(L, -1)));
    lua_pop(L, 1);
  }
  struct lua_signals *self = lua_newuserdata(L, sizeof *self);
  init_watch(L, &self->base, loop);
  self->base.watch.data = self;
  self->caught = caught;
  self->fd = -1;
  luaL_setmetatable(L, SIGNALS_TYPE);
  int index = lua_gettop(L);
  set_function(L, index, 3);
  int failed = start_signals(self);
  if (failed != 0) {
    return bind_fail(L, failed, "signals");
  }
  self->base.pin = bind_pin(L, index);
  return 1;
}

// The loop itself

static int loop_lua_new(lua_State *L) {
  struct lua_loop *self = lua_newuserdata(L, sizeof *self);
  *self = (struct lua_loop){0};
  int failed = loop_new(&self->loop);
  if (failed != 0) {
    return bind_fail(L, failed, "loop");
  }
  loop_hold(self->loop);
  luaL_setmetatable(L, LOOP_TYPE);
  bind_main(L);
  return 1;
}

// The object is at index 1, and so alive meanwhile. Nothing in between can raise.
static int do_turns(lua_State *L, bool all, int timeout_ms) {
  struct loop *loop = bind_check_loop(L, 1);
  struct lua_loop *self = lua_touserdata(L, 1);
  self->running++;
  int failed = all ? loop_run(loop) : loop_turn(loop, timeout_ms);
  self->running--;
  bind_raise_kept(L, loop);
  if (failed != 0) {
    return bind_fail(L, failed, "loop");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int loop_lua_run(lua_State *L) {
  return do_turns(L, true, -1);
}

static int loop_lua_turn(lua_State *L) {
  return do_turns(L, false, luaL_optint(L, 2, -1));
}

static int loop_lua_stop(lua_State *L) {
  loop_stop(bind_check_loop(L, 1));
  return 0;
}

static int loop_lua_pollfd(lua_State *L) {
  int fd = loop_pollfd(bind_check_loop(L, 1));
  if (fd < 0) {
    return bind_fail(L, fd, "loop");
  }
  lua_pushinteger(L, fd);
  return 1;
}

static void push_count(lua_State *L, const char *name, size_t count) {
  lua_pushinteger(L, (lua_Integer)count);
  lua_setfield(L, -2, name);
}

static int loop_lua_census(lua_State *L) {
  struct loop_census census = loop_census(bind_check_loop(L, 1));
  lua_createtable(L, 0, 4);
  push_count(L, "fds", census.fds);
  push_count(L, "timers", census.timers);
  push_count(L, "children", census.children);
  push_count(L, "wakes", census.wakes);
  return 1;
}

static int loop_lua_close(lua_State *L) {
  struct lua_loop *self = luaL_checkudata(L, 1, LOOP_TYPE);
  if (self->running > 0) {
    return luaL_error(L, "a loop cannot be closed while it runs");
  }
  loop_free(self->loop);
  return 0;
}

static int loop_lua_gc(lua_State *L) {
  struct lua_loop *self = luaL_checkudata(L, 1, LOOP_TYPE);
  loop_free(self->loop);
  loop_drop(self->loop);
  self->loop = NULL;
  return 0;
}

static int loop_lua_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)loop_now_ns() / 1e9);
  return 1;
}

int luaopen_farcall_core_loop(lua_State *L) {
  static const luaL_Reg loop_methods[] = {
      {"run", loop_lua_run},         {"turn", loop_lua_turn},
      {"stop", loop_lua_stop},       {"census", loop_lua_census},
      {"timer", loop_lua_timer},     {"watch", loop_lua_watch},
      {"signals", loop_lua_signals}, {"pollfd", loop_lua_pollfd},
      {"close", loop_lua_close},     {NULL, NULL}};
  static const luaL_Reg timer_methods[] = {
      {"again", timer_again}, {"close", timer_close}, {NULL, NULL}};
  static const luaL_Reg watch_methods[] = {
      {"want", watch_want}, {"close", watch_close}, {NULL, NULL}};
  static const luaL_Reg signals_methods[] = {{"close", signals_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"new", loop_lua_new}, {"now", loop_lua_now}, {NULL, NULL}};
  bind_type(L, LOOP_TYPE, loop_methods, loop_lua_gc);
  bind_type(L, TIMER_TYPE, timer_methods, timer_gc);
  bind_type(L, WATCH_TYPE, watch_methods, watch_gc);
  bind_type(L, SIGNALS_TYPE, signals_methods, signals_gc);
  lua_settop(L, 0);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
