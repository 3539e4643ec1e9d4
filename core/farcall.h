// SPDX-License-Identifier: MIT
#ifndef FARCALL_H
#define FARCALL_H

// farcall for programs: run commands and scripts in the environments that a configuration names,
// from any thread.
//
//   farcall_open     reads the configuration and starts the engine in a thread of its own
//   farcall_oneshot, farcall_shell, farcall_run
//                    hand a request to it from any thread, and return at once
//   farcall_wait, farcall_poll, farcall_fd
//                    bring what became of it
//   farcall_stop, farcall_close
//                    end it
//
// Threads. Every function may be called by any thread at any time, with one exception: while
// farcall_close runs, and after it, no other thread may use that handle. Handing in a request takes
// no mutex and waits for nobody: it copies the request into memory from malloc, draws a slot and
// pushes it on a lock-free queue; cancelling and picking up a result are lock-free in the same way.
// Only farcall_wait, farcall_open and farcall_close wait.
//
// What is handed in is copied: nothing that a caller passes needs to outlive the call. A result
// belongs to whoever picked it up, until farcall_result_free.
//
// Each request that was accepted has exactly one result: also when it was cancelled, when the
// engine is stopped before it began, and when the engine itself fails.
//
// Bounds. At most max_requests may be between acceptance and being picked up; one more is refused
// with FARCALL_EAGAIN. A program that never picks up its results is thus stopped by that, not by
// the end of memory. Results come in the order in which the requests ended.
//
// Signals. The engine's thread blocks all signals but one real-time signal that it takes for itself
// (the highest that has no handler). It reaps its own children by their pids; a program that
// ignores SIGCHLD or reaps with wait() or waitpid(-1) takes their exit codes away, and they are
// then reported as error_kind "lost" or as a signal.
//
// Fork. A forked child has no engine: there every function on a handle of the parent returns
// FARCALL_EFORK, and farcall_close and farcall_stop do nothing. The parent's handle is not harmed.
// The child may exec, or open a handle of its own. What bypasses fork() (vfork, clone) is not
// noticed.
//
// Loading. The library stays when it is closed by dlclose. When it was opened as a plugin, the
// names of LuaJIT become visible to the rest of the program, because Lua's own modules look for
// them there; a program that has another Lua among its visible names cannot use this library.
//
// Errors are negative numbers of this list; farcall_strerror tells them in words.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FARCALL_API __attribute__((visibility("default")))
#else
#define FARCALL_API
#endif

enum {
  FARCALL_OK = 0,
  FARCALL_EAGAIN = -1,  // submit: max_requests are under way; poll, wait: no result yet
  FARCALL_EINVAL = -2,  // the arguments make no sense: nothing was done
  FARCALL_ENOMEM = -3,  // not enough memory, descriptors or threads: nothing was done
  FARCALL_ECLOSED = -4, // submit: the engine is stopped; poll, wait: and there is nothing more
  FARCALL_ENOENT = -5,  // cancel: there is no such request, or it has ended
  FARCALL_EOPEN = -6,   // open: the configuration or the installation is not in order
  FARCALL_EFORK = -7,   // the handle was opened before a fork, by the parent
};

// A sentence about a code of the list, static.
FARCALL_API const char *farcall_strerror(int code);

struct farcall;

// NAME and VALUE; lists of pairs end with one whose name is NULL.
struct farcall_pair {
  const char *name;
  const char *value;
};

// What is zero or NULL is as said here; zero the struct first.
struct farcall_options {
  // The configuration file, in the place of ./farcall.lua; NULL: the usual order (system, user,
  // ./farcall.lua when it is trusted, FARCALL_* variables).
  const char *config;
  // The environment variables that count for configuration and commands, as "NAME=value" up to a
  // NULL. NULL: those of this process, read once during farcall_open.
  const char *const *environment;
  // Do not look for ./farcall.lua.
  bool ignore_here;
  // The directory that holds farcall's Lua files, as farcall/. NULL: found from where this library
  // is (or the program, when it is linked statically): ./lua, ../share/lua/5.1,
  // ../../share/lua/5.1.
  const char *lua_tree;
  // Requests between acceptance and being picked up; 0: 1024. At most 65536.
  size_t max_requests;
  // Oneshots that run at the same time, and apart from them scripts; 0: 64. More wait in the order
  // in which they came.
  size_t max_running;
  // Told what the engine has to say (level: "debug", "info", "warning", "error"), on the engine's
  // thread: it must not wait, and not call farcall_wait or farcall_close. NULL: nothing is told.
  void (*log)(void *data, const char *level, const char *text);
  void *log_data;
};

// Opens a configuration and starts the engine. options may be NULL. FARCALL_OK and *out, or a code
// and why, as one line of text, in error (of error_size bytes, cut to fit; may be NULL and 0).
// Environments are opened when they are first used, so a host that is away is no error here.
FARCALL_API int farcall_open(const struct farcall_options *options, struct farcall **out,
                             char *error, size_t error_size);

// Takes no further requests and cancels what is under way. Returns at once. The results keep
// coming; after the last, farcall_wait says FARCALL_ECLOSED. Idempotent.
FARCALL_API void farcall_stop(struct farcall *handle);

// Stops, waits until everything has ended (a command that does not heed TERM gets its backend's
// grace and then KILL), removes the environments that were this engine's own, ends the thread and
// gives everything back. Results that nobody picked up are freed: who wants them calls farcall_stop
// first and waits for FARCALL_ECLOSED. Accepts NULL.
FARCALL_API void farcall_close(struct farcall *handle);

// One command. Either command or argv is set.
struct farcall_command {
  const char *backend; // of the configuration, or a backend's name; NULL: the configured default
  const struct farcall_pair *options; // of the backend, over the configuration's; NULL: none
  const char *command;                // one line for the environment's sh
  const char *const *argv;            // a program with its arguments, up to a NULL
  const void *stdin_bytes;            // its standard input; NULL: empty
  size_t stdin_size;                  // bytes
  const struct farcall_pair *env;     // variables to add; NULL: none
  const char *cwd;                    // NULL: the environment's
  double timeout;    // seconds from its start until its process tree is killed; 0: none
  size_t max_output; // bytes kept of each stream, the rest is dropped; 0: 16 MiB
  void *user;        // comes back in the result
};

// Runs a command in the environment beside whatever else runs there. Requests with the same backend
// and options share one environment. *id, when id is not NULL, names the request for
// farcall_cancel. FARCALL_OK, EAGAIN, EINVAL, ENOMEM, ECLOSED or EFORK.
FARCALL_API int farcall_oneshot(struct farcall *handle, const struct farcall_command *command,
                                uint64_t *id);

// Runs a command line in the environment's persistent shell, which keeps its directory, variables
// and functions; one at a time, in the order in which they came. command is set; argv, stdin, env
// and cwd are not (FARCALL_EINVAL): the shell has its own. Oneshots never wait for it. Cancelling
// the command that runs, and a timeout, end the shell with what it knew; the next command starts a
// new one.
FARCALL_API int farcall_shell(struct farcall *handle, const struct farcall_command *command,
                              uint64_t *id);

// A script job, as for `farcall run`.
struct farcall_job {
  const char *script;   // its text
  const char *filename; // what to call it in tracebacks; its extension tells the language
  const char *language; // NULL: by filename or first line
  const char *const *args;
  const char *backend;
  const struct farcall_pair *options;
  const struct farcall_pair *env; // variables for the script
  const char *const *allow;       // only these tools, up to a NULL; NULL: all that are listed
  const char *transport;          // how calls travel; NULL: chosen
  double timeout;                 // seconds; 0: the configuration's
  unsigned max_calls;             // 0: the configuration's
  void *user;
};

// Runs a script and serves its calls. Its result has the whole of `farcall run --json` as json.
FARCALL_API int farcall_run(struct farcall *handle, const struct farcall_job *job, uint64_t *id);

// Asks for the end of a request: its process tree is killed, and its result comes with error_kind
// "cancelled". One that ends at the same moment may come as if nothing had been asked. FARCALL_OK
// (also when it was asked before), ENOENT or EFORK. An id is not used again for 2^32 requests.
FARCALL_API int farcall_cancel(struct farcall *handle, uint64_t id);

// What became of a request. Texts end with a NUL that is not counted, and may hold others; a size
// is in bytes. Either error_kind is NULL, and the command or script ran to an end of some kind; or
// it could not be started, was lost or cancelled, and the error_ fields tell.
struct farcall_result {
  uint64_t id;
  void *user;
  int exit_code;           // -1 when a signal ended it or there is no exit code
  int signal;              // number on this machine, or 0
  const char *signal_name; // "KILL", or NULL
  const char *out;         // standard output, never NULL
  size_t out_size;
  const char *err; // standard error, never NULL
  size_t err_size;
  bool timed_out;   // the deadline passed and it was killed
  bool truncated;   // one of the streams was longer than what is here
  bool restarted;   // farcall_shell: the shell ended, what it knew is gone
  const char *json; // farcall_run: the result as one JSON object; else NULL
  size_t json_size;
  // One of usage, config, not_found, denied, timeout, limit, protocol, lost, exec, unavailable,
  // unsupported, cancelled, internal; NULL: no error.
  const char *error_kind;
  const char *error_op;   // what was being done
  const char *error_text; // one sentence
  const char *error_hint; // what to do about it, or NULL
  const char *error_code; // symbolic ("ENOENT"), or NULL
};

// The next result, if there is one: FARCALL_OK and *out, EAGAIN, ECLOSED when the engine is stopped
// and every result has been picked up, or EFORK. Does not wait.
FARCALL_API int farcall_poll(struct farcall *handle, struct farcall_result **out);

// As farcall_poll, but waits for at most timeout_ms milliseconds (-1: for ever) for one. Any number
// of threads may wait; each result goes to one of them.
FARCALL_API int farcall_wait(struct farcall *handle, int timeout_ms, struct farcall_result **out);

// A descriptor that is readable while farcall_poll has something to say, for a program with a loop
// of its own. It belongs to the handle: watch it, do not read or close it. Negative on failure.
FARCALL_API int farcall_fd(struct farcall *handle);

// Accepts NULL.
FARCALL_API void farcall_result_free(struct farcall_result *result);

// The library's version, "0.1.0", static.
FARCALL_API const char *farcall_version(void);

#ifdef __cplusplus
}
#endif

#endif
