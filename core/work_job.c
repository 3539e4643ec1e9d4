// SPDX-License-Identifier: MIT
#include "work_job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "err.h"

enum { PARENT_MODE = 0777 };

static size_t string_size(const char *s) {
  return s != NULL ? strlen(s) + 1 : 0;
}

static const void *keep(char **storage, const void *bytes, size_t size) {
  if (bytes == NULL) {
    return NULL;
  }
  char *copy = *storage;
  if (size > 0) {
    memcpy(copy, bytes, size);
  }
  *storage += size;
  return copy;
}

int work_job_new(const struct work_request *r, struct work_job **out) {
  size_t path = string_size(r->path);
  size_t host = string_size(r->host);
  size_t port = string_size(r->port);
  size_t bytes = r->kind == WORK_WRITE ? r->size : 0;
  struct work_job *job = malloc(sizeof *job + path + host + port + bytes);
  if (job == NULL) {
    return -ENOMEM;
  }
  *job = (struct work_job){.request = *r};
  if (r->kind == WORK_SYNC) {
    job->request.fd = fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
    if (job->request.fd < 0) {
      int code = -errno;
      free(job);
      return code;
    }
  }
  char *storage = job->storage;
  job->request.path = keep(&storage, r->path, path);
  job->request.host = keep(&storage, r->host, host);
  job->request.port = keep(&storage, r->port, port);
  job->request.bytes = keep(&storage, r->bytes, bytes);
  job->result.what = job->request.path != NULL ? job->request.path : job->request.host;
  *out = job;
  return 0;
}

void work_job_free(struct work_job *job) {
  if (job->request.kind == WORK_SYNC) {
    close(job->request.fd);
  }
  if (job->addresses != NULL) {
    freeaddrinfo(job->addresses);
  }
  free(job->read.bytes);
  free(job);
}

static int run_write(const struct work_request *r) {
  if (r->parents) {
    const char *slash = strrchr(r->path, '/');
    char *parent =
        slash == NULL || slash == r->path ? NULL : strndup(r->path, (size_t)(slash - r->path));
    int code = parent == NULL ? 0 : fs_mkdir(parent, PARENT_MODE, true);
    free(parent);
    if (code != 0) {
      return code;
    }
  }
  return atomicfile_write(r->path, r->bytes, r->size, &r->write);
}

static int run_resolve(struct work_job *job) {
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  int failure = getaddrinfo(job->request.host, job->request.port, &hints, &job->addresses);
  if (failure == 0) {
    job->result.addresses = job->addresses;
    return 0;
  }
  job->addresses = NULL;
  if (failure == EAI_SYSTEM) {
    return -errno;
  }
  job->result.detail = gai_strerror(failure);
  return failure == EAI_MEMORY ? -ENOMEM : ERR_RESOLVE;
}

int work_job_run(struct work_job *job) {
  const struct work_request *r = &job->request;
  switch (r->kind) {
  case WORK_WRITE:
    return run_write(r);
  case WORK_READ: {
    int code = fs_read(r->path, r->offset, r->max, &job->read);
    job->result.bytes = job->read.bytes;
    job->result.size = job->read.size;
    job->result.file_size = job->read.file_size;
    return code;
  }
  case WORK_SYNC:
    return (r->data_only ? fdatasync(r->fd) : fsync(r->fd)) == 0 ? 0 : -errno;
  case WORK_RESOLVE:
    return run_resolve(job);
  default:
    return -EINVAL;
  }
}
