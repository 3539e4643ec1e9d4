// SPDX-License-Identifier: MIT
#include "farcall.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "embed.h"
#include "err.h"
#include "lua_tree.h"

enum { REQUESTS = 1024, RUNNING = 64 };

struct embed_result {
  struct farcall_result result; // first: it is what the caller has
  char *texts;                  // one block, or NULL
};

// Forks

static atomic_uint generation;

// Two engines that start at once would take the same signal for their watchdogs.
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forked(void) {
  atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
  // Whoever held it is not in the child.
  opening = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void prepare(void) {
  pthread_atfork(NULL, NULL, forked);
}

static bool is_ours(const struct farcall *handle) {
  return handle->generation == atomic_load_explicit(&generation, memory_order_relaxed);
}

// Codes

const char *farcall_strerror(int code) {
  static const char *const TEXTS[] = {
      "no error",
      "too many requests under way, or no result yet",
      "the arguments make no sense",
      "not enough memory, descriptors or threads",
      "the engine is stopped",
      "there is no such request under way",
      "the configuration or the installation is not in order",
      "the engine is the parent process'",
  };
  int count = sizeof TEXTS / sizeof *TEXTS;
  return code <= 0 && -code < count ? TEXTS[-code] : "unknown code";
}

const char *farcall_version(void) {
  return FARCALL_VERSION;
}

static int code_of(int failure) {
  switch (failure) {
  case 0:
    return FARCALL_OK;
  case -EAGAIN:
    return FARCALL_EAGAIN;
  case -ENOENT:
    return FARCALL_ENOENT;
  case -EINVAL:
    return FARCALL_EINVAL;
  case ERR_CLOSED:
    return FARCALL_ECLOSED;
  default:
    return FARCALL_ENOMEM;
  }
}

// Opening

static int give_error(int code, const char *text, char *error, size_t size) {
  if (error != NULL && size > 0) {
    snprintf(error, size, "%s", text);
    for (char *at = error; *at != '\0'; at++) {
      if (*at == '\n') {
        *at = ' ';
      }
    }
  }
  return code;
}

// Where this library lies, or the program that it is linked into.
static bool find_tree(const struct farcall_options *options, char *tree) {
  if (options->lua_tree != NULL) {
    return (size_t)snprintf(tree, PATH_MAX, "%s", options->lua_tree) < PATH_MAX &&
           lua_tree_is(tree);
  }
  Dl_info info;
  char here[PATH_MAX];
  // A program knows itself by the name it was called by, which need not lead anywhere.
  if ((dladdr(&generation, &info) == 0 || info.dli_fname == NULL ||
       realpath(info.dli_fname, here) == NULL) &&
      realpath("/proc/self/exe", here) == NULL) {
    return false;
  }
  *strrchr(here, '/') = '\0';
  return lua_tree_find(here, tree, PATH_MAX);
}

// All signals are the program's own business.
static int start_thread(struct farcall *handle) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failure = pthread_create(&handle->thread, NULL, embed_serve, handle);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return -failure;
}

static void free_handle(struct farcall *handle) {
  sem_destroy(&handle->opened);
  handoff_free(handle->handoff);
  free(handle);
}

// Starts the thread and waits until it has read the configuration.
static int start(struct farcall *handle) {
  pthread_mutex_lock(&opening);
  int code = start_thread(handle);
  while (code == 0 && sem_wait(&handle->opened) != 0) {
  }
  pthread_mutex_unlock(&opening);
  if (code != 0) {
    return FARCALL_ENOMEM;
  }
  if (handle->code != FARCALL_OK) {
    pthread_join(handle->thread, NULL);
  }
  return handle->code;
}

int farcall_open(const struct farcall_options *options, struct farcall **out, char *error,
                 size_t error_size) {
  static const struct farcall_options NONE;
  options = options != NULL ? options : &NONE;
  if (out == NULL || options->max_requests > HANDOFF_SLOTS_MAX) {
    return give_error(FARCALL_EINVAL, farcall_strerror(FARCALL_EINVAL), error, error_size);
  }
  pthread_once(&once, prepare);
  struct farcall *handle = calloc(1, sizeof *handle);
  if (handle == NULL) {
    return give_error(FARCALL_ENOMEM, farcall_strerror(FARCALL_ENOMEM), error, error_size);
  }
  sem_init(&handle->opened, 0, 0);
  handle->options = *options;
  handle->options.max_running = options->max_running > 0 ? options->max_running : RUNNING;
  handle->generation = atomic_load_explicit(&generation, memory_order_relaxed);
  if (!find_tree(options, handle->tree)) {
    free_handle(handle);
    return give_error(FARCALL_EOPEN,
                      "farcall's Lua files are not beside the library: set lua_tree to the "
                      "directory that holds farcall/engine.lua",
                      error, error_size);
  }
  size_t slots = options->max_requests > 0 ? options->max_requests : REQUESTS;
  int code = code_of(handoff_new(slots, &handle->handoff));
  if (code == FARCALL_OK) {
    snprintf(handle->error, sizeof handle->error, "%s", farcall_strerror(FARCALL_ENOMEM));
    code = start(handle);
  }
  if (code != FARCALL_OK) {
    give_error(code, handle->error, error, error_size);
    free_handle(handle);
    return code;
  }
  *out = handle;
  return FARCALL_OK;
}

void embed_opened(struct farcall *handle, int code, const char *error) {
  handle->has_opened = true;
  handle->code = code;
  snprintf(handle->error, sizeof handle->error, "%s", error);
  handle->options.config = NULL;
  handle->options.environment = NULL;
  handle->options.lua_tree = NULL;
  sem_post(&handle->opened);
}

// Requests

static void free_result(struct embed_result *result) {
  if (result != NULL) {
    free(result->texts);
    free(result);
  }
}

static void free_parcel(struct embed_parcel *parcel) {
  if (parcel != NULL) {
    free(parcel->request);
    free_result(parcel->result);
    free(parcel);
  }
}

// Takes the request.
static int submit(struct farcall *handle, struct request *request, void *user, uint64_t *id) {
  struct embed_parcel *parcel = malloc(sizeof *parcel);
  struct embed_result *result = calloc(1, sizeof *result);
  if (parcel == NULL || result == NULL) {
    free(parcel);
    free(result);
    free(request);
    return FARCALL_ENOMEM;
  }
  result->result.user = user;
  *parcel = (struct embed_parcel){.request = request, .result = result};
  int code = handoff_submit(handle->handoff, parcel, id);
  if (code != 0) {
    free_parcel(parcel);
  }
  return code_of(code);
}

int farcall_oneshot(struct farcall *handle, const struct farcall_command *command, uint64_t *id) {
  if (!is_ours(handle)) {
    return FARCALL_EFORK;
  }
  struct request *request = NULL;
  int code = request_of_oneshot(command, &request);
  return code == FARCALL_OK ? submit(handle, request, command->user, id) : code;
}

int farcall_shell(struct farcall *handle, const struct farcall_command *command, uint64_t *id) {
  if (!is_ours(handle)) {
    return FARCALL_EFORK;
  }
  struct request *request = NULL;
  int code = request_of_shell(command, &request);
  return code == FARCALL_OK ? submit(handle, request, command->user, id) : code;
}

int farcall_run(struct farcall *handle, const struct farcall_job *job, uint64_t *id) {
  if (!is_ours(handle)) {
    return FARCALL_EFORK;
  }
  struct request *request = NULL;
  int code = request_of_job(job, &request);
  return code == FARCALL_OK ? submit(handle, request, job->user, id) : code;
}

int farcall_cancel(struct farcall *handle, uint64_t id) {
  return is_ours(handle) ? code_of(handoff_cancel(handle->handoff, id)) : FARCALL_EFORK;
}

// Results

static void set_texts(struct embed_result *result, const struct embed_text *texts) {
  size_t size = 0;
  for (int i = 0; i < EMBED_TEXTS; i++) {
    size += texts[i].bytes != NULL ? texts[i].size + 1 : 0;
  }
  const char *copies[EMBED_TEXTS] = {NULL};
  result->texts = malloc(size > 0 ? size : 1);
  char *at = result->texts;
  for (int i = 0; at != NULL && i < EMBED_TEXTS; i++) {
    if (texts[i].bytes != NULL) {
      memcpy(at, texts[i].bytes, texts[i].size);
      at[texts[i].size] = '\0';
      copies[i] = at;
      at += texts[i].size + 1;
    }
  }
  struct farcall_result *public = &result->result;
  public->out = copies[EMBED_OUT] != NULL ? copies[EMBED_OUT] : "";
  public->out_size = copies[EMBED_OUT] != NULL ? texts[EMBED_OUT].size : 0;
  public->err = copies[EMBED_ERR] != NULL ? copies[EMBED_ERR] : "";
  public->err_size = copies[EMBED_ERR] != NULL ? texts[EMBED_ERR].size : 0;
  public->json = copies[EMBED_JSON];
  public->json_size = copies[EMBED_JSON] != NULL ? texts[EMBED_JSON].size : 0;
  public->signal_name = copies[EMBED_SIGNAL_NAME];
  public->error_kind = copies[EMBED_ERROR_KIND];
  public->error_op = copies[EMBED_ERROR_OP];
  public->error_text = copies[EMBED_ERROR_TEXT];
  public->error_hint = copies[EMBED_ERROR_HINT];
  public->error_code = copies[EMBED_ERROR_CODE];
  if (result->texts == NULL) {
    public->error_kind = "limit";
    public->error_op = "";
    public->error_text = "not enough memory for the output of what was run";
  }
}

void embed_finish(struct farcall *handle, uint64_t id, const struct embed_outcome *outcome) {
  struct embed_parcel *parcel = handoff_request(handle->handoff, id);
  struct embed_result *result = parcel->result;
  result->result.id = id;
  result->result.exit_code = outcome->exit_code;
  result->result.signal = outcome->signal;
  result->result.timed_out = outcome->timed_out;
  result->result.truncated = outcome->truncated;
  result->result.restarted = outcome->restarted;
  set_texts(result, outcome->texts);
  parcel->result = NULL;
  free_parcel(parcel);
  handoff_finish(handle->handoff, id, result);
}

int farcall_poll(struct farcall *handle, struct farcall_result **out) {
  return farcall_wait(handle, 0, out);
}

int farcall_wait(struct farcall *handle, int timeout_ms, struct farcall_result **out) {
  if (!is_ours(handle)) {
    return FARCALL_EFORK;
  }
  void *result = NULL;
  int code = handoff_wait(handle->handoff, timeout_ms, &result);
  if (code == 0) {
    *out = &((struct embed_result *)result)->result;
  }
  return code_of(code);
}

int farcall_fd(struct farcall *handle) {
  return is_ours(handle) ? handoff_fd(handle->handoff) : FARCALL_EFORK;
}

void farcall_result_free(struct farcall_result *result) {
  free_result((struct embed_result *)result);
}

// The end

void farcall_stop(struct farcall *handle) {
  if (is_ours(handle)) {
    handoff_stop(handle->handoff);
  }
}

void farcall_close(struct farcall *handle) {
  if (handle == NULL || !is_ours(handle)) {
    return;
  }
  handoff_stop(handle->handoff);
  handoff_close(handle->handoff);
  pthread_join(handle->thread, NULL);
  struct farcall_result *result;
  while (farcall_poll(handle, &result) == FARCALL_OK) {
    farcall_result_free(result);
  }
  free_handle(handle);
}
