// SPDX-License-Identifier: MIT
// Line framing: bytes arrive over a socket in pieces of any size and are read by one line or by all
// lines a call, with pauses. The lines must be those of a plain split of all the bytes; a line
// beyond the maximum ends it; what comes after the last newline is the rest; no line is ever stuck.

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "err.h"
#include "fdbuf.h"

struct reader {
  const uint8_t *expected;
  size_t size;
  size_t at; // bytes of expected that have been seen
  size_t max;
  int greedy;
  int pause; // after each line: stop listening for a turn
  int ended; // 0, ERR_EOF or ERR_LIMIT
  struct loop *loop;
  struct loop_timer timer;
  struct fdbuf *f;
};

static void require(int truth) {
  if (!truth) {
    abort();
  }
}

static void see_line(struct reader *r, const char *line, size_t size) {
  require(size <= r->max && size < r->size - r->at);
  require(memchr(line, '\n', size) == NULL);
  require(memcmp(r->expected + r->at, line, size) == 0);
  r->at += size;
  require(r->expected[r->at] == '\n');
  r->at++;
}

static void see_end(struct reader *r, int code) {
  const uint8_t *rest = r->expected + r->at;
  size_t left = r->size - r->at;
  const uint8_t *newline = left > 0 ? memchr(rest, '\n', left) : NULL;
  size_t line = newline != NULL ? (size_t)(newline - rest) : left;
  const char *bytes;
  size_t size;
  if (code == ERR_LIMIT) {
    require(line > r->max);
  } else {
    require(code == ERR_EOF && newline == NULL && left <= r->max);
    for (; left > 0; left -= size, rest += size) {
      require(fdbuf_read(r->f, 7, &bytes, &size) == 0);
      require(size > 0 && size <= left && memcmp(rest, bytes, size) == 0);
    }
    require(fdbuf_read(r->f, 7, &bytes, &size) == ERR_EOF);
  }
  require(fdbuf_readline(r->f, r->max, &bytes, &size) == code);
  r->ended = code;
  fdbuf_on_readable(r->f, NULL, NULL);
}

static void on_readable(struct fdbuf *f, void *data);

static void on_timer(struct loop_timer *timer) {
  struct reader *r = timer->data;
  fdbuf_on_readable(r->f, on_readable, r);
}

static void on_readable(struct fdbuf *f, void *data) {
  struct reader *r = data;
  do {
    const char *line;
    size_t size;
    int code = fdbuf_readline(f, r->max, &line, &size);
    if (code == -EAGAIN) {
      return;
    }
    if (code != 0) {
      see_end(r, code);
      return;
    }
    see_line(r, line, size);
  } while (r->greedy);
  if (r->pause) {
    fdbuf_on_readable(f, NULL, NULL);
    require(loop_timer_start(r->loop, &r->timer, 0, on_timer) == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 4 || size > 65536) {
    return 0;
  }
  // Header: the maximum, how to read, and a seed for the sizes of the pieces.
  struct reader r = {.max = data[0], .greedy = data[1] & 1, .pause = data[1] & 2};
  uint32_t seed = (uint32_t)data[2] << 8 | data[3];
  uint32_t piece_mask = (data[1] & 4) != 0 ? 7 : 1023;
  r.expected = data + 4;
  r.size = size - 4;
  int ends[2];
  require(loop_new(&r.loop) == 0);
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  require(fdbuf_new(r.loop, ends[0], NULL, &r.f) == 0);
  r.timer.data = &r;
  fdbuf_on_readable(r.f, on_readable, &r);
  size_t sent = 0;
  while (sent < r.size && r.ended == 0) {
    seed = seed * 1664525 + 1013904223;
    size_t piece = 1 + (seed >> 16 & piece_mask);
    piece = piece < r.size - sent ? piece : r.size - sent;
    ssize_t taken = send(ends[1], r.expected + sent, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
    // A reader that takes one line a turn is slower than this writer.
    require(taken > 0 || (taken < 0 && errno == EAGAIN));
    sent += taken > 0 ? (size_t)taken : 0;
    if (taken < 0 || (seed & 0x1000) != 0 || piece_mask > 7) {
      require(loop_turn(r.loop, 0) == 0);
    }
  }
  close(ends[1]);
  // Ends by itself, unless something is stuck; then libFuzzer's timeout says so.
  while (r.ended == 0) {
    require(loop_turn(r.loop, -1) == 0);
  }
  require(loop_run(r.loop) == 0);
  fdbuf_free(r.f);
  struct loop_census census = loop_census(r.loop);
  require(census.fds == 0 && census.timers == 0);
  loop_free(r.loop);
  return 0;
}
