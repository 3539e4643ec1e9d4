// SPDX-License-Identifier: MIT
#ifndef FARCALL_WORK_H
#define FARCALL_WORK_H

// Two threads for what can only block: files, fsync, name look-up. Jobs are given and their results
// come back on the loop's thread. They run side by side and in any order: what must come after
// something is started from that one's callback. At most one look-up runs at a time, so that a dead
// name server never holds up the files. Not for descriptors that poll can wait for.

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atomicfile.h"
#include "loop.h"

struct work;

enum work_kind { WORK_WRITE, WORK_READ, WORK_SYNC, WORK_RESOLVE };

// What a job came to; borrowed until the callback returns.
struct work_result {
  uint64_t id;
  int code;                         // 0, -errno or ERR_*
  const char *what;                 // the path or host, NULL for WORK_SYNC
  const char *detail;               // static; for ERR_RESOLVE what the resolver says, else NULL
  const char *bytes;                // WORK_READ
  size_t size;                      // WORK_READ
  uint64_t file_size;               // WORK_READ: as in fs.h
  const struct addrinfo *addresses; // WORK_RESOLVE
};
typedef void (*work_done_fn)(const struct work_result *result, void *data);

// A job as it is given; all of it is copied.
struct work_request {
  enum work_kind kind;
  const char *path;                // WORK_WRITE, WORK_READ
  const void *bytes;               // WORK_WRITE: goes through atomicfile_write
  size_t size;                     // WORK_WRITE
  struct atomicfile_options write; // WORK_WRITE
  bool parents;                    // WORK_WRITE: first makes missing directories (0777 and umask)
  uint64_t offset;                 // WORK_READ: as fs_read
  size_t max;                      // WORK_READ
  int fd;                          // WORK_SYNC: duplicated, may be closed at once
  bool data_only;                  // WORK_SYNC: fdatasync, which leaves out times
  const char *host, *port;         // WORK_RESOLVE: names or numbers; port may be NULL
  work_done_fn done;               // called once, on the loop's thread; may call anything here
  void *data;
};

// A new, idle one; threads start with the first job. 0 or -ENOMEM.
int work_new(struct loop *loop, struct work **out);

// Forgets all jobs: no callback comes any more. A file job that is running is waited for, so that
// no descriptor or file of it is left; a look-up that is running ends by itself and in silence.
// Accepts NULL.
void work_free(struct work *work);

// Starts a job; *id (may be NULL) names it. While one is pending, loop_run does not end. 0,
// -ENOMEM, -EBADF, ERR_CLOSED
// when the loop is, or -EAGAIN: thousands are pending, or no thread could be started.
int work_submit(struct work *work, const struct work_request *request, uint64_t *id);

// The job's callback will not come. If it is running, it runs to its end, and it may have had its
// effect. False if there is no such job pending.
bool work_cancel(struct work *work, uint64_t id);

// Jobs whose callback is still to come.
size_t work_pending(const struct work *work);

#endif
