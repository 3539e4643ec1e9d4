// SPDX-License-Identifier: MIT
#include "ssh.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"
#include "ssh_private.h"

enum {
  OUT_MAX = 16 * 1024 * 1024, // never reached: reading stops at OUT_STOP
  OUT_STOP = 1024 * 1024,     // the far side makes us answer and does not read: stop listening
  READ_BUDGET = 512 * 1024,   // a turn; then others of the loop come
  MISSED_MAX = 3,
  TICK_MIN_MS = 1000,
  KEY_MAX = 64 * 1024,
};
static const size_t MEMORY_MAX = (size_t)256 * 1024 * 1024;
static const uint32_t WINDOW = 512 * 1024;

enum step_kind { STEP_HANDSHAKE, STEP_METHODS, STEP_KEY, STEP_SIGNER };

// What getting ready waits for.
struct ssh_step {
  enum step_kind kind;
  ssh_fn fn;
  ssh_sign_fn sign;
  void *data;
  char *user;
  unsigned char *key;
  size_t key_size;
  unsigned char *to_sign; // asked for, and not yet handed to sign
  size_t to_sign_size;
  enum { SIGN_NOT_YET, SIGN_ASKED, SIGN_GIVEN, SIGN_REFUSED } signing;
  unsigned char *signature;
  size_t signature_size;
  bool over;
};

// Memory of libssh2: counted, bounded, and found again when a session is torn down in the middle of
// a key exchange, where libssh2 itself forgets it.

struct ssh_block {
  struct ssh_block *next, *before;
  size_t size;
  max_align_t bytes[];
};

static struct ssh_block *block_of(void *bytes) {
  return (struct ssh_block *)((char *)bytes - offsetof(struct ssh_block, bytes));
}

static void link_block(struct ssh *ssh, struct ssh_block *block) {
  block->before = NULL;
  block->next = ssh->blocks;
  if (ssh->blocks != NULL) {
    ssh->blocks->before = block;
  }
  ssh->blocks = block;
  ssh->memory += block->size;
}

static void unlink_block(struct ssh *ssh, struct ssh_block *block) {
  if (block->before != NULL) {
    block->before->next = block->next;
  } else {
    ssh->blocks = block->next;
  }
  if (block->next != NULL) {
    block->next->before = block->before;
  }
  ssh->memory -= block->size;
}

static bool has_room(struct ssh *ssh, size_t size) {
  if (size > ssh->max_memory || ssh->memory > ssh->max_memory - size) {
    ssh->out_of_memory = true;
    return false;
  }
  return true;
}

static void *take(size_t size, void **abstract) {
  struct ssh *ssh = *abstract;
  struct ssh_block *block = has_room(ssh, size) ? malloc(sizeof *block + size) : NULL;
  if (block == NULL) {
    return NULL;
  }
  block->size = size;
  link_block(ssh, block);
  return block->bytes;
}

static void give_back(void *bytes, void **abstract) {
  if (bytes != NULL) {
    struct ssh_block *block = block_of(bytes);
    unlink_block(*abstract, block);
    free(block);
  }
}

static void *resize(void *bytes, size_t size, void **abstract) {
  if (bytes == NULL) {
    return take(size, abstract);
  }
  struct ssh *ssh = *abstract;
  struct ssh_block *block = block_of(bytes);
  if (size > block->size && !has_room(ssh, size - block->size)) {
    return NULL;
  }
  unlink_block(ssh, block);
  struct ssh_block *resized = realloc(block, sizeof *block + size);
  if (resized == NULL) {
    link_block(ssh, block);
    return NULL;
  }
  resized->size = size;
  link_block(ssh, resized);
  return resized->bytes;
}

// The socket as libssh2 sees it

static ssize_t send_to_queue(libssh2_socket_t fd, const void *bytes, size_t size, int flags,
                             void **abstract) {
  (void)fd;
  (void)flags;
  struct ssh *ssh = *abstract;
  if (ssh->fd >= 0 && buf_append(&ssh->out, bytes, size) != 0) {
    ssh->out_of_memory = true;
  }
  return (ssize_t)size;
}

// The end and errors are kept for the turn: libssh2 would refuse to hand out what it has already.
static ssize_t receive(libssh2_socket_t fd, void *bytes, size_t size, int flags, void **abstract) {
  (void)fd;
  (void)flags;
  struct ssh *ssh = *abstract;
  if (ssh->fd < 0) {
    return -ECONNRESET;
  }
  if (ssh->dry || ssh->budget == 0 || ssh->socket_error != 0) {
    return -EAGAIN;
  }
  ssize_t got = recv(ssh->fd, bytes, size < ssh->budget ? size : ssh->budget, 0);
  if (got > 0) {
    ssh->budget -= (size_t)got;
    ssh->heard = true;
    if (!ssh->pumping) {
      // It may be for somebody else.
      ssh_kick(ssh);
    }
    return got;
  }
  if (got < 0 && errno == EINTR) {
    return -EAGAIN;
  }
  ssh->dry = true;
  if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
    ssh->socket_error = got == 0 ? 1 : -errno;
    ssh_kick(ssh);
  }
  return -EAGAIN;
}

void ssh_flush(struct ssh *ssh) {
  while (ssh->fd >= 0 && buf_size(&ssh->out) > 0) {
    ssize_t sent = send(ssh->fd, buf_peek(&ssh->out), buf_size(&ssh->out), MSG_NOSIGNAL);
    if (sent >= 0) {
      buf_consume(&ssh->out, (size_t)sent);
    } else if (errno != EINTR) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        // Reading will tell, after what the other side said before it went.
        buf_fini(&ssh->out);
      }
      break;
    }
  }
  unsigned want = buf_size(&ssh->out) > 0 ? LOOP_WRITE : 0;
  loop_fd_want(&ssh->watch, buf_size(&ssh->out) > OUT_STOP ? want : want | LOOP_READ);
}

// Failures

void ssh_set_failure(struct ssh_failure *failure, const char *code, const char *text) {
  failure->code = code;
  snprintf(failure->text, sizeof failure->text, "%s", text);
}

void ssh_fail(struct ssh *ssh, const char *code, const char *text) {
  if (ssh->death.code == NULL) {
    ssh_set_failure(&ssh->death, code, text);
    ssh_kick(ssh);
  }
}

static const char *code_of(int rc) {
  switch (rc) {
  case LIBSSH2_ERROR_KEX_FAILURE:
  case LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE:
  case LIBSSH2_ERROR_METHOD_NONE:
  case LIBSSH2_ERROR_HOSTKEY_INIT:
  case LIBSSH2_ERROR_HOSTKEY_SIGN:
    return "KEX";
  case LIBSSH2_ERROR_AUTHENTICATION_FAILED:
  case LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED:
    return "AUTH";
  case LIBSSH2_ERROR_FILE:
  case LIBSSH2_ERROR_KEYFILE_AUTH_FAILED:
  case LIBSSH2_ERROR_METHOD_NOT_SUPPORTED:
    return "KEYFILE";
  case LIBSSH2_ERROR_CHANNEL_FAILURE:
    return "REFUSED";
  case LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED:
    return "DENIED";
  case LIBSSH2_ERROR_TIMEOUT:
    return "TIMEOUT";
  case LIBSSH2_ERROR_SOCKET_RECV:
  case LIBSSH2_ERROR_SOCKET_SEND:
  case LIBSSH2_ERROR_SOCKET_DISCONNECT:
    return "LOST";
  default:
    return "PROTOCOL";
  }
}

static void describe(struct ssh *ssh, int rc, struct ssh_failure *failure) {
  char *text = NULL;
  libssh2_session_last_error(ssh->raw, &text, NULL, 0);
  if (ssh->out_of_memory) {
    ssh_set_failure(failure, "LIMIT", "the server made the connection hold too much");
  } else {
    ssh_set_failure(failure, code_of(rc), text != NULL && text[0] != '\0' ? text : "failed");
  }
}

bool ssh_fail_raw(struct ssh *ssh, int rc) {
  if (rc >= 0 || rc == LIBSSH2_ERROR_EAGAIN) {
    return false;
  }
  struct ssh_failure failure;
  describe(ssh, rc, &failure);
  ssh_fail(ssh, failure.code, failure.text);
  return true;
}

// Steps

static LIBSSH2_USERAUTH_PUBLICKEY_SIGN_FUNC(on_sign) {
  struct ssh *ssh = *abstract;
  (void)session;
  struct ssh_step *step = ssh->step;
  if (step->signing == SIGN_NOT_YET) {
    step->to_sign = malloc(data_len);
    if (step->to_sign == NULL) {
      return LIBSSH2_ERROR_ALLOC;
    }
    memcpy(step->to_sign, data, data_len);
    step->to_sign_size = data_len;
    step->signing = SIGN_ASKED;
  }
  if (step->signing == SIGN_ASKED) {
    return LIBSSH2_ERROR_EAGAIN;
  }
  *sig = step->signing == SIGN_GIVEN ? take(step->signature_size, abstract) : NULL;
  if (*sig == NULL) {
    return LIBSSH2_ERROR_AUTHENTICATION_FAILED;
  }
  memcpy(*sig, step->signature, step->signature_size);
  *sig_len = step->signature_size;
  return 0;
}

static int ask_methods(struct ssh *ssh, const struct ssh_step *step) {
  const char *list = libssh2_userauth_list(ssh->raw, step->user, (unsigned)strlen(step->user));
  if (list != NULL) {
    snprintf(ssh->methods, sizeof ssh->methods, "%s", list);
    return 0;
  }
  ssh->methods[0] = '\0';
  if (libssh2_userauth_authenticated(ssh->raw)) {
    return 0;
  }
  int rc = libssh2_session_last_errno(ssh->raw);
  return rc != 0 ? rc : LIBSSH2_ERROR_PROTO;
}

static int run_step(struct ssh *ssh, struct ssh_step *step) {
  switch (step->kind) {
  case STEP_HANDSHAKE:
    return libssh2_session_handshake(ssh->raw, ssh->fd);
  case STEP_METHODS:
    return ask_methods(ssh, step);
  case STEP_KEY:
    return libssh2_userauth_publickey_frommemory(ssh->raw, step->user, strlen(step->user), NULL, 0,
                                                 (const char *)step->key, step->key_size, NULL);
  case STEP_SIGNER:
  default: {
    void *abstract = ssh;
    return libssh2_userauth_publickey(ssh->raw, step->user, step->key, step->key_size, on_sign,
                                      &abstract);
  }
  }
}

static void free_step(struct ssh_step *step) {
  if (step != NULL) {
    if (step->key != NULL) {
      explicit_bzero(step->key, step->key_size);
    }
    free(step->key);
    free(step->user);
    free(step->to_sign);
    free(step->signature);
    free(step);
  }
}

static void step_turn(struct ssh *ssh) {
  struct ssh_step *step = ssh->step;
  if (step == NULL || step->over) {
    return;
  }
  int rc = run_step(ssh, step);
  if (rc == LIBSSH2_ERROR_EAGAIN) {
    return;
  }
  step->over = true;
  ssh->step_failure = (struct ssh_failure){0};
  if (rc != 0) {
    describe(ssh, rc, &ssh->step_failure);
  }
}

static void deliver_step(struct ssh *ssh) {
  struct ssh_step *step = ssh->step;
  if (step == NULL) {
    return;
  }
  if (step->over) {
    ssh->step = NULL;
    ssh_fn fn = step->fn;
    void *data = step->data;
    free_step(step);
    fn(ssh, data);
  } else if (step->to_sign != NULL) {
    unsigned char *bytes = step->to_sign;
    step->to_sign = NULL;
    step->sign(ssh, bytes, step->to_sign_size, step->data);
    free(bytes);
  }
}

// A turn

static void die(struct ssh *ssh) {
  ssh->dry = true;
  ssh_channels_end(ssh);
  if (ssh->step != NULL && !ssh->step->over) {
    ssh->step->over = true;
    ssh->step_failure = ssh->death;
  }
  loop_fd_stop(&ssh->watch);
  loop_timer_stop(&ssh->keepalive);
  loop_timer_stop(&ssh->again);
  close(ssh->fd);
  // From here on libssh2 talks to nobody.
  ssh->fd = -1;
  libssh2_session_free(ssh->raw);
  ssh->raw = NULL;
  struct ssh_block *next;
  for (struct ssh_block *block = ssh->blocks; block != NULL; block = next) {
    next = block->next;
    free(block);
  }
  ssh->blocks = NULL;
  ssh->memory = 0;
  buf_fini(&ssh->out);
}

static void pump(struct ssh *ssh) {
  if (ssh->fd < 0) {
    return;
  }
  ssh->pumping = true;
  ssh->budget = READ_BUDGET;
  if (ssh->death.code == NULL) {
    step_turn(ssh);
  }
  if (ssh->serving && ssh->death.code == NULL) {
    ssh_channels_turn(ssh);
  }
  ssh_flush(ssh);
  ssh->pumping = false;
  // A step that has just come to its end did so before the other side went.
  bool waiting = ssh->step == NULL || !ssh->step->over;
  if (ssh->out_of_memory) {
    ssh_fail(ssh, "LIMIT", "the server made the connection hold too much");
  } else if (ssh->socket_error != 0 && waiting) {
    ssh_fail(ssh, "LOST",
             ssh->socket_error > 0 ? "the server closed the connection"
                                   : err_text(ssh->socket_error));
  }
  if (ssh->death.code != NULL) {
    die(ssh);
    return;
  }
  if (ssh->serving && ssh->budget < READ_BUDGET) {
    // Each step reads for all of them: one that came later may have taken in what an earlier one
    // waits for, and the socket will not tell again.
    ssh_kick(ssh);
  }
  int one = 1;
  if (!ssh->serving || ssh->opening != NULL) {
    // Short questions and answers: the server's next packet would wait for our delayed ACK.
    setsockopt(ssh->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
  }
}

static void release(struct ssh *ssh) {
  free_step(ssh->step);
  loop_timer_stop(&ssh->kick);
  loop_drop(ssh->loop);
  free(ssh);
}

static void turn(struct ssh *ssh) {
  ssh->calls++;
  pump(ssh);
  deliver_step(ssh);
  if (!ssh->freed) {
    ssh_channels_deliver(ssh);
  }
  if (!ssh->freed && ssh->fd < 0 && ssh->on_death != NULL) {
    ssh_fn fn = ssh->on_death;
    ssh->on_death = NULL;
    fn(ssh, ssh->on_death_data);
  }
  ssh->calls--;
  if (ssh->freed && ssh->calls == 0) {
    release(ssh);
  }
}

static void on_ready(struct loop_fd *watch, unsigned ready) {
  struct ssh *ssh = watch->data;
  if ((ready & (LOOP_READ | LOOP_HANGUP)) != 0) {
    ssh->dry = false;
  }
  turn(ssh);
}

static void on_kick(struct loop_timer *timer) {
  turn(timer->data);
}

void ssh_kick(struct ssh *ssh) {
  if (ssh->kick.loop == NULL) {
    loop_timer_start(ssh->loop, &ssh->kick, 0, on_kick);
  }
}

static void on_again(struct loop_timer *timer) {
  struct ssh *ssh = timer->data;
  ssh->held = false;
  turn(ssh);
}

void ssh_again(struct ssh *ssh, uint64_t ms) {
  loop_timer_start(ssh->loop, &ssh->again, ms, on_again);
}

static void on_tick(struct loop_timer *timer) {
  struct ssh *ssh = timer->data;
  if (ssh->heard) {
    ssh->missed = 0;
  } else if (++ssh->missed >= MISSED_MAX) {
    ssh_fail(ssh, "TIMEOUT", "the server does not answer any more");
  } else {
    int next;
    ssh->pumping = true;
    ssh_fail_raw(ssh, libssh2_keepalive_send(ssh->raw, &next));
    ssh->pumping = false;
  }
  ssh->heard = false;
  if (ssh->death.code == NULL) {
    loop_timer_start(ssh->loop, &ssh->keepalive, ssh->tick_ms, on_tick);
  }
  turn(ssh);
}

// Life

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_failure;

static void start_library(void) {
  library_failure = libssh2_init(0);
}

int ssh_new(struct loop *loop, int fd, const struct ssh_options *options, struct ssh **out) {
  pthread_once(&library_once, start_library);
  struct ssh *ssh = library_failure == 0 ? calloc(1, sizeof *ssh) : NULL;
  if (ssh == NULL) {
    return -ENOMEM;
  }
  ssh->loop = loop_hold(loop);
  ssh->fd = fd;
  ssh->window = options->window != 0 ? options->window : WINDOW;
  ssh->max_memory = options->max_memory != 0 ? options->max_memory : MEMORY_MAX;
  ssh->watch.data = ssh;
  ssh->kick.data = ssh;
  ssh->keepalive.data = ssh;
  ssh->again.data = ssh;
  buf_init(&ssh->out, OUT_MAX);
  ssh->raw = libssh2_session_init_ex(take, give_back, resize, ssh);
  int failed = ssh->raw == NULL ? -ENOMEM : loop_fd_start(loop, &ssh->watch, fd, 0, on_ready);
  if (failed != 0) {
    ssh->fd = -1;
    if (ssh->raw != NULL) {
      libssh2_session_free(ssh->raw);
    }
    release(ssh);
    return failed;
  }
  libssh2_session_set_blocking(ssh->raw, 0);
  libssh2_session_callback_set(ssh->raw, LIBSSH2_CALLBACK_SEND, (void *)send_to_queue);
  libssh2_session_callback_set(ssh->raw, LIBSSH2_CALLBACK_RECV, (void *)receive);
  *out = ssh;
  return 0;
}

void ssh_close(struct ssh *ssh) {
  if (ssh->fd < 0) {
    return;
  }
  if (ssh->serving && ssh->death.code == NULL) {
    libssh2_session_disconnect(ssh->raw, "done");
    ssh_flush(ssh);
  }
  ssh_fail(ssh, "CLOSED", "the connection was closed");
  die(ssh);
}

void ssh_free(struct ssh *ssh) {
  if (ssh == NULL) {
    return;
  }
  ssh_close(ssh);
  ssh_channels_forget(ssh);
  ssh->freed = true;
  if (ssh->calls == 0) {
    release(ssh);
  }
}

const struct ssh_failure *ssh_death(const struct ssh *ssh) {
  return &ssh->death;
}

void ssh_on_death(struct ssh *ssh, ssh_fn fn, void *data) {
  ssh->on_death = fn;
  ssh->on_death_data = data;
}

static int start_step(struct ssh *ssh, const struct ssh_step *wanted, const char *user,
                      const void *key, size_t size) {
  if (ssh->fd < 0 || ssh->death.code != NULL) {
    return ERR_CLOSED;
  }
  if (ssh->step != NULL) {
    return -EBUSY;
  }
  if (size > KEY_MAX) {
    return ERR_LIMIT;
  }
  struct ssh_step *step = malloc(sizeof *step);
  if (step == NULL) {
    return -ENOMEM;
  }
  *step = *wanted;
  step->user = strdup(user);
  step->key = malloc(size + 1);
  if (step->user == NULL || step->key == NULL) {
    free_step(step);
    return -ENOMEM;
  }
  if (size > 0) {
    memcpy(step->key, key, size);
  }
  step->key[size] = '\0';
  step->key_size = size;
  ssh->step = step;
  ssh_kick(ssh);
  return 0;
}

int ssh_handshake(struct ssh *ssh, const char *host_keys, ssh_fn fn, void *data) {
  struct ssh_step step = {.kind = STEP_HANDSHAKE, .fn = fn, .data = data};
  int failed = start_step(ssh, &step, "", NULL, 0);
  if (failed == 0 && host_keys != NULL) {
    // Types that this libssh2 does not know are left out by it; if none is left, all are asked for.
    libssh2_session_method_pref(ssh->raw, LIBSSH2_METHOD_HOSTKEY, host_keys);
  }
  return failed;
}

int ssh_auth_methods(struct ssh *ssh, const char *user, ssh_fn fn, void *data) {
  struct ssh_step step = {.kind = STEP_METHODS, .fn = fn, .data = data};
  return start_step(ssh, &step, user, NULL, 0);
}

int ssh_auth_key(struct ssh *ssh, const char *user, const void *key, size_t size, ssh_fn fn,
                 void *data) {
  struct ssh_step step = {.kind = STEP_KEY, .fn = fn, .data = data};
  return start_step(ssh, &step, user, key, size);
}

int ssh_auth_signer(struct ssh *ssh, const char *user, const void *blob, size_t size,
                    ssh_sign_fn sign, ssh_fn fn, void *data) {
  struct ssh_step step = {.kind = STEP_SIGNER, .fn = fn, .sign = sign, .data = data};
  return start_step(ssh, &step, user, blob, size);
}

int ssh_signed(struct ssh *ssh, const void *signature, size_t size) {
  struct ssh_step *step = ssh->step;
  if (step == NULL || step->signing != SIGN_ASKED) {
    return ERR_CLOSED;
  }
  step->signing = SIGN_REFUSED;
  if (signature != NULL && size > 0 && size <= KEY_MAX) {
    step->signature = malloc(size);
    if (step->signature != NULL) {
      memcpy(step->signature, signature, size);
      step->signature_size = size;
      step->signing = SIGN_GIVEN;
    }
  }
  ssh_kick(ssh);
  return 0;
}

const struct ssh_failure *ssh_step_failure(const struct ssh *ssh) {
  return &ssh->step_failure;
}

const char *ssh_host_key(const struct ssh *ssh, size_t *size) {
  int type;
  return ssh->raw == NULL ? NULL : libssh2_session_hostkey(ssh->raw, size, &type);
}

const char *ssh_methods(const struct ssh *ssh) {
  return ssh->methods;
}

bool ssh_is_authenticated(const struct ssh *ssh) {
  return ssh->raw != NULL && libssh2_userauth_authenticated(ssh->raw) != 0;
}

int ssh_serve(struct ssh *ssh, uint64_t keepalive_ms) {
  if (ssh->fd < 0 || !ssh_is_authenticated(ssh)) {
    return ERR_CLOSED;
  }
  ssh->serving = true;
  // libssh2 asks every two seconds at most: more ticks than that would count answers that were
  // never asked for.
  ssh->tick_ms = keepalive_ms < TICK_MIN_MS ? TICK_MIN_MS : keepalive_ms;
  if (keepalive_ms == 0) {
    return 0;
  }
  libssh2_keepalive_config(ssh->raw, 1, 1);
  return loop_timer_start(ssh->loop, &ssh->keepalive, ssh->tick_ms, on_tick);
}
