// SPDX-License-Identifier: MIT
// farcall.core.proc: child processes.

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bind.h"
#include "err.h"
#include "lua_fdbuf.h"
#include "lua_proc_spec.h"
#include "modules.h"
#include "proc.h"

#define TYPE "farcall.proc"

// Lives until the child has been reaped and the userdata is gone, whichever comes last: a child
// whose userdata was collected is still reaped.
struct child {
  struct loop_child watch;
  struct loop *loop; // held
  lua_State *L;      // bind_main's
  int on_exit;       // pinned callback
  int self;          // pins the userdata while the callback may come
  int exited, status;
  bool running;
  bool owned; // the userdata is there
};

struct handle {
  struct child *child;
  int streams[3]; // pinned fdbufs
};

static struct handle *check_handle(lua_State *L) {
  return luaL_checkudata(L, 1, TYPE);
}

static struct child *check_open(lua_State *L) {
  struct handle *handle = check_handle(L);
  if (handle->child == NULL) {
    luaL_error(L, "the process object is closed");
  }
  return handle->child;
}

static void free_child(struct child *child) {
  loop_child_stop(&child->watch); // of a loop that was closed before: its descriptor
  loop_drop(child->loop);
  free(child);
}

static void on_child_exit(struct loop_child *watch, int exited, int status) {
  struct child *child = watch->data;
  child->running = false;
  child->exited = exited;
  child->status = status;
  if (!child->owned) {
    free_child(child);
    return;
  }
  if (child->on_exit == LUA_NOREF) {
    return;
  }
  lua_State *L = child->L;
  bind_push(L, child->on_exit);
  bind_unpin(L, &child->on_exit);
  // The callback may close and so free the object.
  int self = child->self;
  child->self = LUA_NOREF;
  lua_pushstring(L, exited ? "exit" : "signal");
  lua_pushinteger(L, status);
  bind_call(L, child->loop, 2);
  bind_unpin(L, &self);
}

struct streams {
  struct loop *loop;
  struct handle *handle;
  struct proc_child *made; // a descriptor that has been taken over becomes -1
  struct fdbuf_options options;
};

// Runs protected, because it may raise when memory runs out.
static int make_streams(lua_State *L) {
  struct streams *streams = lua_touserdata(L, 1);
  for (int i = 0; i < 3; i++) {
    int fd = streams->made->stdio[i];
    if (fd < 0) {
      continue;
    }
    streams->made->stdio[i] = -1;
    int code = bind_push_fdbuf(L, streams->loop, fd, &streams->options);
    if (code != 0) {
      return luaL_error(L, "%s: %s", lua_proc_streams[i], err_text(code));
    }
    streams->handle->streams[i] = bind_pin(L, -1);
    lua_pop(L, 1);
  }
  return 0;
}

// Ends a child that was started but cannot be looked after, and what was made for it.
static void undo_spawn(struct proc_child *made) {
  kill(made->pid, SIGKILL);
  siginfo_t info;
  while (waitid(P_PID, (id_t)made->pid, &info, WEXITED) != 0 && errno == EINTR) {
  }
  for (int i = 0; i < 3; i++) {
    if (made->stdio[i] >= 0) {
      close(made->stdio[i]);
    }
  }
}

static void close_streams(lua_State *L, struct handle *handle) {
  for (int i = 0; i < 3; i++) {
    if (handle->streams[i] != LUA_NOREF) {
      bind_push(L, handle->streams[i]);
      bind_unpin(L, &handle->streams[i]);
      lua_getfield(L, -1, "close");
      lua_insert(L, -2);
      lua_call(L, 1, 0);
    }
  }
}

static int l_spawn(lua_State *L) {
  struct loop *loop = bind_check_loop(L, 1);
  struct lua_proc_spec read;
  lua_proc_read_spec(L, &read);
  struct streams streams = {.loop = loop, .options = read.options};
  lua_State *main = bind_main(L);
  struct handle *handle = lua_newuserdata(L, sizeof *handle);
  int index = lua_gettop(L);
  *handle = (struct handle){NULL, {LUA_NOREF, LUA_NOREF, LUA_NOREF}};
  luaL_getmetatable(L, TYPE);
  lua_setmetatable(L, -2);
  lua_pushcfunction(L, make_streams);
  struct child *child = calloc(1, sizeof *child);
  if (child == NULL) {
    return bind_fail(L, -ENOMEM, NULL);
  }
  struct proc_child made;
  struct proc_failure failure;
  int code = proc_spawn(&read.spec, &made, &failure);
  if (code != 0) {
    free(child);
    return bind_fail(L, code, failure.what);
  }
  child->watch.data = child;
  code = loop_child_start(loop, &child->watch, made.pid, on_child_exit);
  if (code != 0) {
    free(child);
    undo_spawn(&made);
    return bind_fail(L, code, "watch the process");
  }
  child->L = main;
  child->loop = loop_hold(loop);
  child->on_exit = child->self = LUA_NOREF;
  child->running = child->owned = true;
  handle->child = child;
  streams.handle = handle;
  streams.made = &made;
  lua_pushlightuserdata(L, &streams);
  if (lua_pcall(L, 1, 0, 0) != 0) {
    loop_child_stop(&child->watch);
    child->running = false;
    undo_spawn(&made);
    close_streams(L, handle);
    return lua_error(L);
  }
  lua_pushvalue(L, index);
  return 1;
}

static int l_pid(lua_State *L) {
  struct child *child = check_open(L);
  lua_pushinteger(L, child->watch.pid);
  return 1;
}

static int push_stream(lua_State *L, int number) {
  bind_push(L, check_handle(L)->streams[number]);
  return 1;
}

static int l_stdin(lua_State *L) {
  return push_stream(L, 0);
}

static int l_stdout(lua_State *L) {
  return push_stream(L, 1);
}

static int l_stderr(lua_State *L) {
  return push_stream(L, 2);
}

static int push_status(lua_State *L, const struct child *child) {
  lua_pushstring(L, child->exited ? "exit" : "signal");
  lua_pushinteger(L, child->status);
  return 2;
}

// nil while it runs, then "exit"|"signal" and a number.
static int l_status(lua_State *L) {
  struct child *child = check_open(L);
  if (child->running) {
    lua_pushnil(L);
    return 1;
  }
  return push_status(L, child);
}

// The callback comes once. One for a child that has ended already is called at once.
static int l_on_exit(lua_State *L) {
  struct child *child = check_open(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  if (!child->running) {
    lua_settop(L, 2);
    push_status(L, child);
    lua_call(L, 2, 0);
    return 0;
  }
  bind_unpin(L, &child->on_exit);
  child->on_exit = bind_pin(L, 2);
  if (child->self == LUA_NOREF) {
    child->self = bind_pin(L, 1);
  }
  return 0;
}

static int check_signal(lua_State *L, int index) {
  if (lua_type(L, index) == LUA_TNUMBER) {
    return (int)lua_tointeger(L, index);
  }
  const char *name = luaL_checkstring(L, index);
  for (int number = 1; number < NSIG; number++) {
    const char *known = sigabbrev_np(number);
    if (known != NULL && strcmp(known, name) == 0) {
      return number;
    }
  }
  return luaL_error(L, "no signal is called %s", name);
}

static int finish_kill(lua_State *L, int failed) {
  if (failed) {
    return bind_fail(L, -errno, "kill");
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int l_kill(lua_State *L) {
  struct child *child = check_open(L);
  int number = check_signal(L, 2);
  if (!child->running || loop_is_closed(child->loop)) {
    return bind_fail(L, -ESRCH, "kill");
  }
  return finish_kill(L, syscall(SYS_pidfd_send_signal, child->watch.pidfd, number, NULL, 0) != 0);
}

// The group bears the pid of its leader, which is not free for another as long as the child has
// not been reaped.
static int l_kill_group(lua_State *L) {
  struct child *child = check_open(L);
  int number = check_signal(L, 2);
  if (!child->running || loop_is_closed(child->loop) ||
      getpgid(child->watch.pid) != child->watch.pid) {
    return bind_fail(L, -ESRCH, "kill the process group");
  }
  return finish_kill(L, kill(-child->watch.pid, number) != 0);
}

// Closes this side's ends and forgets the callback. A child that runs goes on, and is reaped.
static int l_close(lua_State *L) {
  struct handle *handle = check_handle(L);
  struct child *child = handle->child;
  handle->child = NULL;
  close_streams(L, handle);
  if (child == NULL) {
    return 0;
  }
  bind_unpin(L, &child->on_exit);
  bind_unpin(L, &child->self);
  child->owned = false;
  // A closed loop reaps nobody any more.
  if (!child->running || loop_is_closed(child->loop)) {
    free_child(child);
  }
  return 0;
}

static int l_which(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  char buffer[PATH_MAX];
  int code = proc_which(name, luaL_optstring(L, 2, NULL), buffer, sizeof buffer);
  if (code != 0) {
    return bind_fail(L, code, name);
  }
  lua_pushstring(L, buffer);
  return 1;
}

static int l_signal_name(lua_State *L) {
  const char *name = sigabbrev_np((int)luaL_checkinteger(L, 1));
  if (name != NULL) {
    lua_pushstring(L, name);
  } else {
    lua_pushfstring(L, "%d", (int)lua_tointeger(L, 1));
  }
  return 1;
}

static int l_signal_number(lua_State *L) {
  lua_pushinteger(L, check_signal(L, 1));
  return 1;
}

// error_text(errno): what a number that the supervisor told means, and its name.
static int l_error_text(lua_State *L) {
  int number = (int)luaL_checkinteger(L, 1);
  lua_pushstring(L, err_text(-number));
  lua_pushstring(L, err_name(-number));
  return 2;
}

// close_fd(n): closes a descriptor that is known by number only, such as one that a child has now.
static int l_close_fd(lua_State *L) {
  lua_Integer fd = luaL_checkinteger(L, 1);
  luaL_argcheck(L, fd > STDERR_FILENO && fd <= INT_MAX, 1, "not a descriptor to close");
  close((int)fd);
  return 0;
}

int luaopen_farcall_core_proc(lua_State *L) {
  static const luaL_Reg METHODS[] = {
      {"pid", l_pid},       {"stdin", l_stdin},           {"stdout", l_stdout},
      {"stderr", l_stderr}, {"status", l_status},         {"on_exit", l_on_exit},
      {"kill", l_kill},     {"kill_group", l_kill_group}, {"close", l_close},
      {NULL, NULL},
  };
  static const luaL_Reg FUNCTIONS[] = {{"spawn", l_spawn},
                                       {"which", l_which},
                                       {"signal_name", l_signal_name},
                                       {"signal_number", l_signal_number},
                                       {"error_text", l_error_text},
                                       {"close_fd", l_close_fd},
                                       {NULL, NULL}};
  // The type of the streams comes with its module.
  lua_getglobal(L, "require");
  lua_pushliteral(L, "farcall.core.fdbuf");
  lua_call(L, 1, 0);
  bind_type(L, TYPE, METHODS, l_close);
  lua_pop(L, 1);
  lua_newtable(L);
  luaL_setfuncs(L, FUNCTIONS, 0);
  return 1;
}
