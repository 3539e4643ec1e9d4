// SPDX-License-Identifier: MIT
#ifndef FARCALL_FDBUF_H
#define FARCALL_FDBUF_H

// One descriptor on a loop with buffered, non-blocking reads and writes: a socket, a pipe, a
// terminal or a file. Reading is pull: the reader asks, gets -EAGAIN when nothing is there, and is
// told when to ask again; a reader that stops asking stops the writer. Not for datagrams. It
// belongs to the loop's thread. Every function may be called from its own callbacks, fdbuf_free
// included.
//
// A broken pipe is -EPIPE and never a signal: sockets are written with MSG_NOSIGNAL; for other
// descriptors the program ignores SIGPIPE, and where it does not (a host program) SIGPIPE is held
// back around each write, which costs system calls. Which of the two is decided by fdbuf_new.

#include <stdbool.h>
#include <stddef.h>

#include "loop.h"

struct fdbuf;
typedef void (*fdbuf_fn)(struct fdbuf *f, void *data);

struct fdbuf_options {
  size_t max_in;  // bytes kept for the reader, and so the longest line; 0: 64 MiB
  size_t max_out; // bytes accepted and not yet in the kernel; 0: 256 MiB
};

// Takes fd over and makes it non-blocking (sockets are left as they are: their calls do not block).
// options may be NULL. On failure (-errno) fd is still the caller's.
int fdbuf_new(struct loop *loop, int fd, const struct fdbuf_options *options, struct fdbuf **out);
// Closes and frees. Accepts NULL.
void fdbuf_free(struct fdbuf *f);
// Closes the descriptor; what was not written yet is lost, no callback comes any more, and reads
// and writes fail with ERR_CLOSED. Idempotent.
void fdbuf_close(struct fdbuf *f);

// The descriptor, borrowed; -1 when closed.
int fdbuf_fileno(const struct fdbuf *f);

// Up to max bytes (at least 1), borrowed until the next call on f. 0; -EAGAIN: nothing is there
// now; ERR_EOF, or another -errno for good. Bytes that came before the end are delivered before it.
int fdbuf_read(struct fdbuf *f, size_t max, const char **bytes, size_t *size);

// A line without its newline, borrowed until the next call on f. Errors as fdbuf_read, and
// ERR_LIMIT when the next line is longer than max bytes (or max_in): nothing is consumed then, and
// the peer should be given up. Bytes after the last newline are no line: they give ERR_EOF, and
// fdbuf_read still returns them. The search never looks at a byte twice.
int fdbuf_readline(struct fdbuf *f, size_t max, const char **line, size_t *size);

// Sends bytes, at once if nothing is pending; what the kernel does not take is kept. 0, ERR_LIMIT
// when more than max_out would be pending (nothing is taken), ERR_CLOSED after finish or close, or
// -errno (-EPIPE, -ECONNRESET...), which stays.
int fdbuf_write(struct fdbuf *f, const void *bytes, size_t size);

// Bytes accepted and not yet in the kernel. 0 after a write has failed.
size_t fdbuf_pending(const struct fdbuf *f);

// Half-closes when nothing is pending any more: a socket is shut down for writing, anything else is
// closed. Idempotent.
void fdbuf_finish(struct fdbuf *f);

// fn (NULL: nothing) is called in every turn for as long as a read could return something other
// than -EAGAIN: the kernel has bytes; or bytes are buffered here and the last read did not answer
// -EAGAIN; or the end or an error has come and no read has returned it since fn was set. So lines
// that are left in the buffer are never stuck, whether fn reads one or all, and whoever reads until
// -EAGAIN is not called in vain. Within fn a read may answer -EAGAIN without asking the kernel, if
// an earlier one emptied it.
void fdbuf_on_readable(struct fdbuf *f, fdbuf_fn fn, void *data);

// fn is called once, from the loop, when nothing is pending: all is in the kernel, or writing has
// failed and the rest is lost. Also when that is so already.
void fdbuf_on_drained(struct fdbuf *f, fdbuf_fn fn, void *data);

// True while the loop can call back, or has something to write, so that f must be kept alive.
bool fdbuf_is_live(const struct fdbuf *f);

#endif
