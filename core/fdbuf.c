// SPDX-License-Identifier: MIT
#include "fdbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "err.h"

// One read asks for this much; a reader that gets it full asks for more the next time.
#define CHUNK_MIN ((size_t)4096)
#define CHUNK_MAX ((size_t)262144)
// Reads in one callback: a writer who never pauses must not keep the others waiting.
#define FILLS_MAX 16
#define DEFAULT_MAX_IN ((size_t)64 << 20)
#define DEFAULT_MAX_OUT ((size_t)256 << 20)

struct fdbuf {
  struct loop_fd watch;
  struct loop_timer again; // for callbacks that no descriptor will cause
  struct loop *loop;       // held
  int fd;                  // owned; -1 when closed
  int read_end;            // 0, ERR_EOF or an error: why nothing more will be read
  int write_end;           // 0 or the error that ended writing
  unsigned calls;          // callbacks of this object on the C stack
  bool is_socket;
  bool is_plain;  // a regular file: always ready, unknown to epoll
  bool guard;     // SIGPIPE must be held back
  bool dry;       // the last read answered -EAGAIN, and nothing has come since
  bool quiet;     // within a callback: the kernel was emptied by this one
  bool told;      // the end has been returned
  bool finishing; // nothing more may be written
  bool closed;    // by fdbuf_close
  bool doomed;    // to be freed when calls is 0 again
  unsigned fills; // reads of the running callback
  struct buf in, out;
  size_t taken;    // bytes at the front of in that the caller still looks at
  size_t searched; // bytes of in, from the front, that hold no newline
  size_t chunk;
  fdbuf_fn readable, drained;
  void *readable_data, *drained_data;
};

static void on_event(struct loop_fd *watch, unsigned ready);
static void on_again(struct loop_timer *timer);

static bool sigpipe_kills(void) {
  struct sigaction action;
  return sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
}

int fdbuf_new(struct loop *loop, int fd, const struct fdbuf_options *options, struct fdbuf **out) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    return -errno;
  }
  bool is_socket = S_ISSOCK(info.st_mode);
  if (!is_socket) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)) {
      return -errno;
    }
  }
  struct fdbuf *f = calloc(1, sizeof *f);
  if (f == NULL) {
    return -ENOMEM;
  }
  f->is_socket = is_socket;
  int failed = loop_fd_start(loop, &f->watch, fd, 0, on_event);
  if (failed != 0) {
    free(f);
    return failed;
  }
  f->is_plain = S_ISREG(info.st_mode) || S_ISDIR(info.st_mode);
  f->guard = !is_socket && sigpipe_kills();
  f->loop = loop_hold(loop);
  f->fd = fd;
  f->chunk = CHUNK_MIN;
  f->watch.data = f;
  f->again.data = f;
  size_t max_in = options != NULL && options->max_in > 0 ? options->max_in : DEFAULT_MAX_IN;
  // One more, for the newline of the longest line.
  buf_init(&f->in, max_in < SIZE_MAX ? max_in + 1 : max_in);
  buf_init(&f->out, options != NULL && options->max_out > 0 ? options->max_out : DEFAULT_MAX_OUT);
  *out = f;
  return 0;
}

static void close_descriptor(struct fdbuf *f) {
  if (f->fd >= 0) {
    loop_fd_stop(&f->watch);
    close(f->fd);
    f->fd = -1;
    f->finishing = true;
    f->read_end = f->read_end != 0 ? f->read_end : ERR_CLOSED;
    f->write_end = f->write_end != 0 ? f->write_end : ERR_CLOSED;
  }
}

void fdbuf_close(struct fdbuf *f) {
  f->closed = true;
  close_descriptor(f);
  loop_timer_stop(&f->again);
  f->readable = f->drained = NULL;
  f->read_end = f->write_end = ERR_CLOSED;
  f->taken = f->searched = 0;
  buf_fini(&f->in);
  buf_fini(&f->out);
}

void fdbuf_free(struct fdbuf *f) {
  if (f == NULL) {
    return;
  }
  fdbuf_close(f);
  if (f->calls > 0) {
    f->doomed = true;
    return;
  }
  loop_drop(f->loop);
  free(f);
}

int fdbuf_fileno(const struct fdbuf *f) {
  return f->fd;
}

size_t fdbuf_pending(const struct fdbuf *f) {
  return buf_size(&f->out);
}

bool fdbuf_is_live(const struct fdbuf *f) {
  return f->readable != NULL || f->drained != NULL || buf_size(&f->out) > 0;
}

// True when the reader should be called although the kernel may have nothing to report.
static bool has_news(const struct fdbuf *f) {
  if (f->read_end != 0) {
    return !f->told;
  }
  return !f->dry && (f->is_plain || buf_size(&f->in) > f->taken);
}

// Asks the loop for what can come next. Within a callback it is put off to its end, when many small
// changes have become one or none.
static void follow(struct fdbuf *f) {
  if (f->calls > 0) {
    return;
  }
  if (f->fd >= 0 && !f->is_plain) {
    unsigned want = 0;
    if (f->readable != NULL && f->read_end == 0) {
      want |= LOOP_READ;
    }
    if (buf_size(&f->out) > 0) {
      want |= LOOP_WRITE;
    }
    int failed = loop_fd_want(&f->watch, want);
    if (failed != 0 && f->read_end == 0) {
      // The reader could wait for ever: let it see the reason.
      f->read_end = failed;
    }
  }
  bool due = (f->readable != NULL && has_news(f)) || (f->drained != NULL && buf_size(&f->out) == 0);
  if (!due) {
    loop_timer_stop(&f->again);
  } else if (f->again.loop == NULL) {
    loop_timer_start(f->loop, &f->again, 0, on_again);
  }
}

// Reading

// Drops what the caller was given by the last call.
static void settle(struct fdbuf *f) {
  if (f->taken > 0) {
    buf_consume(&f->in, f->taken);
    f->searched -= f->searched < f->taken ? f->searched : f->taken;
    f->taken = 0;
  }
}

static void adapt_chunk(struct fdbuf *f, size_t got) {
  if (got == f->chunk && f->chunk < CHUNK_MAX) {
    f->chunk *= 2;
  } else if (got < f->chunk / 8 && f->chunk > CHUNK_MIN) {
    f->chunk /= 2;
  }
}

// One read into the buffer. 0, -EAGAIN, or the end, which is kept.
static int fill(struct fdbuf *f) {
  if (f->quiet) {
    return -EAGAIN;
  }
  size_t free_bytes = f->in.max - buf_size(&f->in);
  size_t size = f->chunk < free_bytes ? f->chunk : free_bytes;
  char *room;
  int failed = buf_reserve(&f->in, size, &room);
  if (failed != 0) {
    return failed;
  }
  ssize_t got;
  do {
    got = f->is_socket ? recv(f->fd, room, size, MSG_DONTWAIT) : read(f->fd, room, size);
  } while (got < 0 && errno == EINTR);
  if (got > 0) {
    buf_commit(&f->in, (size_t)got);
    // A short read has emptied the kernel's buffer. Should that be wrong, epoll says so in the next
    // turn, because it is level-triggered; outside a callback nobody would ask it.
    f->fills++;
    f->quiet = f->calls > 0 && !f->is_plain && ((size_t)got < size || f->fills >= FILLS_MAX);
    adapt_chunk(f, (size_t)got);
    return 0;
  }
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return -EAGAIN;
  }
  f->read_end = got == 0 ? ERR_EOF : -errno;
  return f->read_end;
}

// Records what a read answers, and gives back the memory of a reader that is to wait.
static int answer(struct fdbuf *f, int code) {
  f->dry = code == -EAGAIN;
  if (f->read_end != 0 && code == f->read_end) {
    f->told = true;
  }
  if (code != 0 && buf_size(&f->in) == 0) {
    buf_fini(&f->in);
  }
  follow(f);
  return code;
}

int fdbuf_read(struct fdbuf *f, size_t max, const char **bytes, size_t *size) {
  settle(f);
  if (buf_size(&f->in) == 0) {
    int failed = f->read_end != 0 ? f->read_end : fill(f);
    if (failed != 0) {
      return answer(f, failed);
    }
  }
  *bytes = buf_peek(&f->in);
  *size = buf_size(&f->in) < max ? buf_size(&f->in) : max;
  f->taken = *size;
  return answer(f, 0);
}

int fdbuf_readline(struct fdbuf *f, size_t max, const char **line, size_t *size) {
  settle(f);
  if (max >= f->in.max) {
    max = f->in.max - 1;
  }
  for (;;) {
    const char *bytes = buf_peek(&f->in);
    size_t there = buf_size(&f->in);
    // A newline that ends a line of max bytes is byte number max, counted from 0.
    size_t until = there <= max ? there : max + 1;
    if (f->searched < until) {
      const char *newline = memchr(bytes + f->searched, '\n', until - f->searched);
      if (newline != NULL) {
        *line = bytes;
        *size = (size_t)(newline - bytes);
        f->taken = *size + 1;
        return answer(f, 0);
      }
      f->searched = until;
    }
    if (there > max) {
      return answer(f, ERR_LIMIT);
    }
    int failed = f->read_end != 0 ? f->read_end : fill(f);
    if (failed != 0) {
      return answer(f, failed);
    }
  }
}

// Writing

static ssize_t put_guarded(int fd, const void *bytes, size_t size) {
  sigset_t pipe_only, pending, before;
  sigemptyset(&pipe_only);
  sigaddset(&pipe_only, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  ssize_t put = write(fd, bytes, size);
  int saved = errno;
  if (put < 0 && saved == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    // Ours: take it back before it can be delivered.
    static const struct timespec at_once = {0};
    sigtimedwait(&pipe_only, NULL, &at_once);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = saved;
  return put;
}

// One write to the kernel: bytes taken (0: it is full), or -errno.
static ssize_t put(const struct fdbuf *f, const void *bytes, size_t size) {
  ssize_t taken;
  do {
    if (f->is_socket) {
      taken = send(f->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (f->guard) {
      taken = put_guarded(f->fd, bytes, size);
    } else {
      taken = write(f->fd, bytes, size);
    }
  } while (taken < 0 && errno == EINTR);
  if (taken >= 0) {
    return taken;
  }
  return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}

static void half_close(struct fdbuf *f) {
  if (!f->is_socket) {
    close_descriptor(f);
  } else if (f->fd >= 0) {
    shutdown(f->fd, SHUT_WR);
  }
}

static void end_writing(struct fdbuf *f, int code) {
  f->write_end = code;
  buf_fini(&f->out);
  if (f->finishing) {
    half_close(f);
  }
}

static void flush(struct fdbuf *f) {
  ssize_t taken = put(f, buf_peek(&f->out), buf_size(&f->out));
  if (taken < 0) {
    end_writing(f, (int)taken);
    return;
  }
  buf_consume(&f->out, (size_t)taken);
  if (buf_size(&f->out) == 0) {
    buf_fini(&f->out);
    if (f->finishing) {
      half_close(f);
    }
  }
}

int fdbuf_write(struct fdbuf *f, const void *bytes, size_t size) {
  if (f->finishing || f->fd < 0) {
    return ERR_CLOSED;
  }
  if (f->write_end != 0) {
    return f->write_end;
  }
  if (size > f->out.max - buf_size(&f->out)) {
    return ERR_LIMIT;
  }
  const char *rest = bytes;
  while (size > 0 && buf_size(&f->out) == 0) {
    ssize_t taken = put(f, rest, size);
    if (taken < 0) {
      end_writing(f, (int)taken);
      follow(f);
      return (int)taken;
    }
    rest += taken;
    size -= (size_t)taken;
    if (size > 0 && !f->is_plain) {
      // The kernel is full: it says when it is not.
      break;
    }
  }
  int failed = buf_append(&f->out, rest, size);
  if (failed != 0) {
    // A part is gone already: the stream has a hole and cannot go on.
    end_writing(f, failed);
  }
  follow(f);
  return failed;
}

void fdbuf_finish(struct fdbuf *f) {
  if (f->finishing) {
    return;
  }
  f->finishing = true;
  if (buf_size(&f->out) == 0) {
    half_close(f);
    follow(f);
  }
}

// Callbacks

void fdbuf_on_readable(struct fdbuf *f, fdbuf_fn fn, void *data) {
  if (f->closed) {
    return;
  }
  f->readable = fn;
  f->readable_data = data;
  f->told = false;
  follow(f);
}

void fdbuf_on_drained(struct fdbuf *f, fdbuf_fn fn, void *data) {
  if (f->closed) {
    return;
  }
  f->drained = fn;
  f->drained_data = data;
  follow(f);
}

static void call_drained(struct fdbuf *f) {
  if (f->drained != NULL && buf_size(&f->out) == 0) {
    fdbuf_fn fn = f->drained;
    f->drained = NULL;
    fn(f, f->drained_data);
  }
}

static void call_readable(struct fdbuf *f) {
  if (f->readable != NULL) {
    f->readable(f, f->readable_data);
  }
}

// After the last callback: f may have been freed by it.
static void end_calls(struct fdbuf *f) {
  f->quiet = false;
  if (--f->calls > 0) {
    return;
  }
  if (f->doomed) {
    fdbuf_free(f);
  } else {
    follow(f);
  }
}

static void on_event(struct loop_fd *watch, unsigned ready) {
  struct fdbuf *f = watch->data;
  f->calls++;
  f->quiet = false;
  f->fills = 0;
  if ((ready & LOOP_WRITE) != 0) {
    flush(f);
    call_drained(f);
  }
  if ((ready & LOOP_READ) != 0 && f->fd >= 0) {
    f->dry = false;
    call_readable(f);
  }
  end_calls(f);
}

static void on_again(struct loop_timer *timer) {
  struct fdbuf *f = timer->data;
  f->calls++;
  f->fills = 0;
  call_drained(f);
  if (has_news(f)) {
    call_readable(f);
  }
  end_calls(f);
}
