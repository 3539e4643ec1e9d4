// SPDX-License-Identifier: MIT
// mux: the first byte chooses. Either two sides talk over a link that is cut where the input says,
// and every stream arrives whole and in order; or one side gets the input itself, from a peer that
// keeps no rule, while its user does all that he may.

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "mux.h"

#define IDS 64
#define LARGEST 80000
#define PERIOD 262144
// From here on lines are short; before, there is none.
#define LINES 200000
#define WINDOW 100000
#define LONGEST_LINE 150000

static void check(bool holds) {
  if (!holds) {
    abort();
  }
}

struct input {
  const uint8_t *at;
  size_t left;
};

static unsigned take(struct input *in) {
  if (in->left == 0) {
    return 0;
  }
  in->left--;
  return *in->at++;
}

static unsigned take_u16(struct input *in) {
  unsigned high = take(in);
  return high << 8 | take(in);
}

// One end of a channel.
struct end {
  struct mux_channel *c;
  struct world *world;
  uint64_t sent, got;
  bool finished, ended;
  bool cut; // what comes may be less than was sent
};

struct world {
  struct mux *sides[2];
  struct end ends[2][IDS];
  bool eager; // whoever is told reads, and closes something
  struct input *in;
};

static size_t number_of(const struct end *e) {
  return (size_t)(e - &e->world->ends[0][0]);
}

static struct end *other_of(const struct end *e) {
  size_t number = number_of(e);
  return &e->world->ends[number < IDS][number % IDS];
}

// What each end sends: the same for all, from another place on.
static const char *text(void) {
  static char bytes[PERIOD];
  if (bytes[1] == 0) {
    for (size_t i = 0; i < PERIOD; i++) {
      bytes[i] = (char)(i + i / 251);
      if (bytes[i] == '\n' && i < LINES) {
        bytes[i] = ' ';
      }
    }
  }
  return bytes;
}

// The next part of what stands at the offset of the stream that this end sends: at most size bytes.
static const char *part(const struct end *e, uint64_t offset, size_t *size) {
  size_t at = (size_t)(offset + number_of(e) * 4099) % PERIOD;
  *size = *size < PERIOD - at ? *size : PERIOD - at;
  return text() + at;
}

static void check_stream(const struct end *e, uint64_t offset, const char *bytes, size_t size) {
  while (size > 0) {
    size_t some = size;
    const char *expected = part(e, offset, &some);
    check(memcmp(bytes, expected, some) == 0);
    bytes += some;
    offset += some;
    size -= some;
  }
}

static struct end *take_end(struct world *w) {
  unsigned which = take(w->in);
  struct end *e = &w->ends[which >> 7][which % IDS];
  return e->c != NULL ? e : NULL;
}

static void drop(struct end *e) {
  mux_close(e->c);
  e->c = NULL;
  other_of(e)->cut = other_of(e)->cut || !e->finished;
}

// -1: more is to come. 0: something has come. 1: the end.
static int receive(struct end *e, size_t max, bool line) {
  struct end *other = other_of(e);
  const char *bytes;
  size_t size = 0;
  int result;
  if (line) {
    result = mux_readline(e->c, max, &bytes, &size);
  } else if (max % 2 == 0) {
    result = mux_read(e->c, max, &bytes, &size);
  } else {
    result = mux_peek(e->c, &bytes, &size);
    size = size < max ? size : max;
  }
  if (result == 0) {
    check(size <= max);
    check_stream(other, e->got, bytes, size);
    if (!line && max % 2 != 0) {
      mux_consume(e->c, size);
    }
    e->got += size;
    if (line) {
      check(memchr(bytes, '\n', size) == NULL);
      check_stream(other, e->got, "\n", 1);
      e->got++;
    }
    check(e->got <= other->sent);
    return 0;
  }
  if (result == -EAGAIN) {
    return -1;
  }
  check(result == ERR_EOF || result == -ECONNRESET || (line && result == ERR_LIMIT));
  if (result == ERR_EOF && !line) {
    check(other->finished && e->got == other->sent);
  }
  e->ended = e->ended || (!line && result != ERR_LIMIT);
  check(result != -ECONNRESET || e->cut || other->c == NULL);
  return 1;
}

static void send(struct end *e, size_t size) {
  static char bytes[LARGEST];
  for (size_t done = 0, some; done < size; done += some) {
    some = size - done;
    const char *from = part(e, e->sent + done, &some);
    memcpy(bytes + done, from, some);
  }
  // Before the call: whoever is told in it may send more.
  e->sent += size;
  int result = mux_write(e->c, bytes, size);
  check(result == 0 || (e->finished ? result == ERR_CLOSED : result == -EPIPE));
  if (result != 0) {
    e->sent -= size;
  }
}

static void opened(struct mux *m, struct mux_channel *c, const char *request, size_t size,
                   void *data) {
  struct world *w = data;
  uint32_t id = mux_channel_id(c);
  check(mux_find(m, id) == c && mux_of(c) == m && mux_channel_get(c) == NULL && id < IDS);
  for (size_t i = 0; i < size; i++) {
    check(request[i] == (char)(id + i));
  }
  struct end *e = &w->ends[m == w->sides[1]][id];
  check(e->c == NULL && e->got == 0);
  e->c = c;
  mux_channel_set(c, e);
  if (w->eager) {
    send(e, 10);
  }
}

static void readable(struct mux_channel *c, void *user) {
  struct end *e = user;
  check(e->c == c);
  struct world *w = e->world;
  if (!w->eager) {
    return;
  }
  while (receive(e, 1000, false) == 0) {
  }
  if (take(w->in) % 8 == 0) {
    struct end *victim = take_end(w);
    if (victim != NULL) {
      drop(victim);
    }
  }
}

static void drained(struct mux_channel *c, void *user) {
  struct end *e = user;
  check(e->c == c && mux_pending(c) == 0);
  if (e->world->eager && !e->finished && e->sent < LARGEST / 4) {
    send(e, 5000);
  }
}

static void output(struct mux *m, void *data) {
  const char *bytes;
  size_t size;
  (void)data;
  check(mux_output(m, &bytes, &size) && size > 0);
}

static const struct mux_events events = {opened, readable, drained, output};

// Carries pieces from one side to the other. True when the link has been cut after so many bytes.
static bool carry(struct mux *from, struct mux *to, size_t piece, size_t until_cut) {
  const char *bytes;
  size_t size;
  while (mux_output(from, &bytes, &size)) {
    size = size < piece ? size : piece;
    // Of its own, and of the exact size, so that a byte too far is seen.
    char *copy = malloc(size);
    memcpy(copy, bytes, size);
    mux_written(from, size);
    size_t arrives = size < until_cut ? size : until_cut;
    check(mux_feed(to, copy, arrives) == 0);
    free(copy);
    if (arrives < size) {
      return true;
    }
    until_cut -= arrives;
  }
  return false;
}

static void cut(struct world *w) {
  mux_suspend(w->sides[0]);
  mux_suspend(w->sides[1]);
  check(mux_resume(w->sides[0], mux_received(w->sides[1])) == 0);
  check(mux_resume(w->sides[1], mux_received(w->sides[0])) == 0);
}

static void carry_all(struct world *w) {
  const char *bytes;
  size_t size;
  do {
    carry(w->sides[0], w->sides[1], SIZE_MAX, SIZE_MAX);
    carry(w->sides[1], w->sides[0], SIZE_MAX, SIZE_MAX);
  } while (mux_output(w->sides[0], &bytes, &size));
}

static void act(struct world *w, uint32_t *next) {
  unsigned what = take(w->in);
  int side = what >> 7;
  struct end *e;
  switch (what % 16) {
  case 0:
  case 1:
    if (next[side] < IDS) {
      e = &w->ends[side][next[side]];
      char request[256];
      size_t size = take(w->in);
      for (size_t i = 0; i < size; i++) {
        request[i] = (char)(next[side] + i);
      }
      check(mux_open(w->sides[side], request, size, &e->c) == 0);
      check(mux_channel_id(e->c) == next[side]);
      mux_channel_set(e->c, e);
      next[side] += 2;
    }
    break;
  case 2:
  case 3:
  case 4:
    e = take_end(w);
    if (e != NULL) {
      send(e, (size_t)take(w->in) * (take(w->in) + 1));
    }
    break;
  case 5:
    e = take_end(w);
    if (e != NULL) {
      receive(e, 1 + take_u16(w->in), false);
    }
    break;
  case 6:
    e = take_end(w);
    if (e != NULL) {
      receive(e, take(w->in) % 2 == 0 ? take(w->in) : LONGEST_LINE, true);
    }
    break;
  case 7:
    e = take_end(w);
    if (e != NULL) {
      mux_finish(e->c);
      e->finished = true;
    }
    break;
  case 8:
    e = take_end(w);
    if (e != NULL) {
      drop(e);
    }
    break;
  case 9:
    mux_ping(w->sides[side]);
    break;
  case 10:
    w->eager = !w->eager;
    break;
  case 11:
  case 12:
    carry(w->sides[side], w->sides[!side], 1 + take_u16(w->in), SIZE_MAX);
    break;
  default: {
    size_t piece = 1 + take_u16(w->in);
    if (carry(w->sides[side], w->sides[!side], piece, take_u16(w->in))) {
      cut(w);
    }
  }
  }
}

// Reads of everybody until nothing comes any more; who has finished must have been heard whole.
static void finish(struct world *w) {
  bool any = true;
  w->eager = false;
  while (any) {
    any = false;
    carry_all(w);
    for (size_t i = 0; i < (size_t)2 * IDS; i++) {
      struct end *e = &w->ends[0][0] + i;
      while (e->c != NULL && receive(e, LARGEST, false) == 0) {
        any = true;
      }
    }
  }
  for (size_t i = 0; i < (size_t)2 * IDS; i++) {
    struct end *e = &w->ends[0][0] + i;
    struct end *other = other_of(e);
    if (e->c != NULL && other->finished) {
      check(e->ended);
    }
    if (e->c != NULL && other->c != NULL) {
      check(e->got == other->sent && mux_pending(other->c) == 0);
    }
  }
  check(mux_pongs(w->sides[0]) <= mux_received(w->sides[0]));
}

static void talk(struct input *in, size_t max_kept) {
  struct world *w = calloc(1, sizeof *w);
  w->in = in;
  for (int side = 0; side < 2; side++) {
    struct mux_options options = {
        .side = side == 0 ? MUX_ENGINE : MUX_RUNNER, .window = WINDOW, .max_kept = max_kept};
    check(mux_new(&options, &events, w, &w->sides[side]) == 0);
    for (int i = 0; i < IDS; i++) {
      w->ends[side][i].world = w;
    }
  }
  uint32_t next[2] = {2, 1};
  while (in->left > 0) {
    act(w, next);
  }
  finish(w);
  mux_free(w->sides[0]);
  mux_free(w->sides[1]);
  free(w);
}

// The user of the side whose peer keeps no rule. Channels are kept by their numbers.

struct victim {
  struct mux *m;
  struct input in; // what to do, from the end of the input
  struct mux_channel *channels[IDS];
};

static void do_something(struct victim *v) {
  unsigned which = take(&v->in);
  struct mux_channel **c = &v->channels[which % IDS];
  if (*c == NULL) {
    if (which % IDS % 2 == 0) {
      return;
    }
    struct mux_channel *own;
    if (mux_open(v->m, "own", 3, &own) == 0) {
      if (mux_channel_id(own) >= IDS) {
        mux_close(own);
      } else {
        v->channels[mux_channel_id(own)] = own;
        mux_channel_set(own, v);
      }
    }
    return;
  }
  const char *bytes;
  size_t size;
  switch (take(&v->in) % 8) {
  case 0:
    mux_close(*c);
    *c = NULL;
    break;
  case 1:
    mux_finish(*c);
    break;
  case 2:
    mux_write(*c, v->channels, sizeof v->channels);
    break;
  case 3:
    mux_readline(*c, take(&v->in), &bytes, &size);
    break;
  case 4:
    if (mux_peek(*c, &bytes, &size) == 0) {
      // The window bounds what is there.
      check(size <= WINDOW + 256);
      mux_consume(*c, size / 2 + 1);
    }
    break;
  case 5:
    if (mux_output(v->m, &bytes, &size)) {
      mux_written(v->m, size < 1000 ? size : 1000);
    }
    break;
  case 6:
    mux_ping(v->m);
    break;
  default:
    while (mux_read(*c, 100, &bytes, &size) == 0) {
    }
    break;
  }
}

static void victim_opened(struct mux *m, struct mux_channel *c, const char *request, size_t size,
                          void *data) {
  struct victim *v = data;
  (void)m;
  char *copy = malloc(size > 0 ? size : 1);
  memcpy(copy, request, size);
  free(copy);
  if (mux_channel_id(c) < IDS) {
    v->channels[mux_channel_id(c)] = c;
    mux_channel_set(c, v);
  }
  do_something(v);
}

static void victim_told(struct mux_channel *c, void *user) {
  struct victim *v = user;
  check(mux_of(c) == v->m && v->channels[mux_channel_id(c)] == c);
  do_something(v);
}

static void victim_output(struct mux *m, void *data) {
  struct victim *v = data;
  const char *bytes;
  size_t size;
  if (take(&v->in) % 2 == 0 && mux_output(m, &bytes, &size)) {
    mux_written(m, size);
  }
}

// The next bytes of the peer: as they stand in the input, or frames of which it tells the heads, so
// that more of them are right. Of the exact size, so that a byte too far is seen.
static char *take_bytes(struct input *in, bool framed, size_t *size) {
  size_t some = take(in) * 3 + 1;
  if (!framed) {
    *size = some < in->left ? some : in->left;
    char *bytes = malloc(*size > 0 ? *size : 1);
    memcpy(bytes, in->at, *size);
    in->at += *size;
    in->left -= *size;
    return bytes;
  }
  unsigned type = take(in) % 10;
  unsigned id = type >= 6 && type <= 8 ? 0 : take(in) % IDS;
  size_t length = type == 4 ? 4 : type == 6 ? 8 : type == 1 || type == 2 ? some * 50 : 0;
  *size = 8 + length;
  char *bytes = calloc(1, *size);
  bytes[3] = (char)id;
  bytes[4] = (char)type;
  bytes[5] = (char)(length >> 16);
  bytes[6] = (char)(length >> 8);
  bytes[7] = (char)length;
  if (type == 4) {
    bytes[8] = (char)take(in);
    bytes[9] = (char)take(in);
  } else if (type == 6) {
    bytes[15] = (char)take(in);
  }
  return bytes;
}

static void suffer(struct input *in, bool engine, bool framed) {
  static const struct mux_events told = {victim_opened, victim_told, victim_told, victim_output};
  struct mux_options options = {
      .side = engine ? MUX_ENGINE : MUX_RUNNER, .window = WINDOW, .max_channels = 8};
  struct victim *v = calloc(1, sizeof *v);
  size_t deeds = in->left / 4;
  v->in = (struct input){in->at + in->left - deeds, deeds};
  in->left -= deeds;
  check(mux_new(&options, &told, v, &v->m) == 0);
  int failed = 0;
  while (in->left > 0) {
    size_t size;
    char *bytes = take_bytes(in, framed, &size);
    int result = mux_feed(v->m, bytes, size);
    free(bytes);
    check(result == 0 || result == ERR_SYNTAX || result == ERR_LIMIT);
    check(failed == 0 || result == failed);
    failed = result;
    do_something(v);
  }
  mux_abort(v->m);
  check(mux_feed(v->m, "", 0) == (failed != 0 ? failed : ERR_CLOSED));
  mux_free(v->m);
  free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input in = {data, size};
  unsigned mode = take(&in);
  if (mode % 2 == 0) {
    talk(&in, (mode >> 1) % 4 * 100000);
  } else {
    suffer(&in, mode & 2, mode & 4);
  }
  return 0;
}
