// SPDX-License-Identifier: MIT
#ifndef FARCALL_WORK_JOB_H
#define FARCALL_WORK_JOB_H

// One job of work from its copying to its end, without threads and queues: the inside of work.c,
// for nobody else.

#include <stdbool.h>

#include "fs.h"
#include "work.h"

// Passed from the loop to a thread by the mutex and back by the completion queue; one side at a
// time has it. The links below the line are the loop's own.
struct work_job {
  struct work_request request;
  struct work_result result;
  struct fs_bytes read;
  struct addrinfo *addresses;
  struct work_job *next;
  // -----
  struct work_job *before, *after; // in work.pending
  bool cancelled;
  char storage[]; // strings and bytes of the request
};

// A copy of the request in *out, to be freed by work_job_free. 0, -ENOMEM or -EBADF.
int work_job_new(const struct work_request *request, struct work_job **out);
void work_job_free(struct work_job *job);

// Does it, for as long as that takes, and fills in the result; returns the result's code. Any
// thread.
int work_job_run(struct work_job *job);

#endif
