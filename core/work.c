// SPDX-License-Identifier: MIT
#include "work.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "err.h"
#include "oneshot.h"
#include "work_job.h"

enum {
  THREADS = 2,
  JOBS_MAX = 4096, // as many as the queue of completions holds: handing back never fails
  STACK_BYTES = 512 * 1024,
  KEEP_RUNNING_MS = 24 * 3600 * 1000,
};

struct fifo {
  struct work_job *first;
  struct work_job **end;
};

struct thread {
  pthread_t id;
  struct work *work;
  bool started;
  bool resolving;
};

struct work {
  // The loop's side.
  struct loop *loop;
  struct oneshot *completions;
  struct loop_timer keep_running; // a wake does not, so a far-off timer does
  struct work_job *pending;       // all that have not been handed back, cancelled ones too
  uint64_t last_id;
  size_t jobs;    // in pending
  size_t waiting; // of these, not cancelled
  struct thread threads[THREADS];

  // Under the mutex.
  pthread_mutex_t mutex;
  pthread_cond_t something;
  struct fifo files;
  struct fifo names;
  bool name_running;
  bool closing;
  int users; // the loop's side and each thread; the last one frees
};

static void fifo_init(struct fifo *fifo) {
  fifo->first = NULL;
  fifo->end = &fifo->first;
}

static void fifo_put(struct fifo *fifo, struct work_job *job) {
  job->next = NULL;
  *fifo->end = job;
  fifo->end = &job->next;
}

static struct work_job *fifo_take(struct fifo *fifo) {
  struct work_job *job = fifo->first;
  if (job != NULL && (fifo->first = job->next) == NULL) {
    fifo->end = &fifo->first;
  }
  return job;
}

static bool fifo_remove(struct fifo *fifo, const struct work_job *job) {
  for (struct work_job **at = &fifo->first; *at != NULL; at = &(*at)->next) {
    if (*at == job) {
      *at = job->next;
      if (*at == NULL) {
        fifo->end = at;
      }
      return true;
    }
  }
  return false;
}

// The oldest job that may run now.
static struct work_job *take_job(struct work *work) {
  const struct work_job *file = work->files.first;
  const struct work_job *name = work->name_running ? NULL : work->names.first;
  if (name != NULL && (file == NULL || name->result.id < file->result.id)) {
    return fifo_take(&work->names);
  }
  return fifo_take(&work->files);
}

// Releases the mutex.
static void drop(struct work *work) {
  bool last = --work->users == 0;
  pthread_mutex_unlock(&work->mutex);
  if (last) {
    pthread_cond_destroy(&work->something);
    pthread_mutex_destroy(&work->mutex);
    free(work);
  }
}

static void *serve(void *argument) {
  struct thread *self = argument;
  struct work *work = self->work;
  pthread_mutex_lock(&work->mutex);
  while (!work->closing) {
    struct work_job *job = take_job(work);
    if (job == NULL) {
      pthread_cond_wait(&work->something, &work->mutex);
      continue;
    }
    bool is_name = job->request.kind == WORK_RESOLVE;
    work->name_running = work->name_running || is_name;
    self->resolving = is_name;
    pthread_mutex_unlock(&work->mutex);
    job->result.code = work_job_run(job);
    pthread_mutex_lock(&work->mutex);
    self->resolving = false;
    work->name_running = work->name_running && !is_name;
    // Under the mutex, so that the queue cannot be freed in between. It has room for every job.
    if (work->closing || oneshot_push(work->completions, job) != 0) {
      work_job_free(job);
    }
  }
  drop(work);
  return NULL;
}

// The loop's side.

static void keep_running(struct loop_timer *timer) {
  const struct work *work = timer->data;
  loop_timer_start(work->loop, timer, KEEP_RUNNING_MS, keep_running);
}

static void no_longer_waited_for(struct work *work) {
  if (--work->waiting == 0) {
    loop_timer_stop(&work->keep_running);
  }
}

static void remove_pending(struct work *work, struct work_job *job) {
  if (job->before != NULL) {
    job->before->after = job->after;
  } else {
    work->pending = job->after;
  }
  if (job->after != NULL) {
    job->after->before = job->before;
  }
  work->jobs--;
}

static void completed(void *item, void *data) {
  struct work_job *job = item;
  struct work *work = data;
  remove_pending(work, job);
  if (!job->cancelled) {
    no_longer_waited_for(work);
    job->request.done(&job->result, job->request.data); // work may be gone after this
  }
  work_job_free(job);
}

int work_new(struct loop *loop, struct work **out) {
  struct work *work = calloc(1, sizeof *work);
  if (work == NULL) {
    return -ENOMEM;
  }
  work->loop = loop_hold(loop); // it may be freed before us
  work->keep_running.data = work;
  work->users = 1;
  fifo_init(&work->files);
  fifo_init(&work->names);
  pthread_mutex_init(&work->mutex, NULL);
  pthread_cond_init(&work->something, NULL);
  *out = work;
  return 0;
}

// Signals are for the thread that runs the loop.
static int start_thread(struct work *work, struct thread *thread) {
  sigset_t all;
  sigset_t before;
  pthread_attr_t attr;
  int failure = pthread_attr_init(&attr);
  if (failure != 0) {
    return -failure;
  }
  pthread_attr_setstacksize(&attr, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread->work = work;
  failure = pthread_create(&thread->id, &attr, serve, thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attr);
  thread->started = failure == 0;
  return -failure;
}

// With one thread of two it goes on, more slowly.
static int start(struct work *work) {
  if (work->threads[0].started) {
    return 0;
  }
  int code = 0;
  if (work->completions == NULL) {
    code = oneshot_new(work->loop, JOBS_MAX, completed, work, &work->completions);
  }
  for (int i = 0; i < THREADS && code == 0; i++) {
    pthread_mutex_lock(&work->mutex);
    work->users++;
    pthread_mutex_unlock(&work->mutex);
    code = start_thread(work, &work->threads[i]);
    if (code != 0) {
      pthread_mutex_lock(&work->mutex);
      work->users--;
      pthread_mutex_unlock(&work->mutex);
    }
  }
  return work->threads[0].started ? 0 : code;
}

// A job that only needs to be queued, or NULL and why not in *code.
static struct work_job *prepare(struct work *work, const struct work_request *request, int *code) {
  if (loop_is_closed(work->loop)) {
    *code = ERR_CLOSED;
    return NULL;
  }
  *code = work->jobs < JOBS_MAX ? start(work) : -EAGAIN;
  if (*code != 0) {
    return NULL;
  }
  struct work_job *job = NULL;
  *code = work_job_new(request, &job);
  return job;
}

int work_submit(struct work *work, const struct work_request *request, uint64_t *id) {
  int code = 0;
  struct work_job *job = prepare(work, request, &code);
  if (job == NULL) {
    return code;
  }
  if (work->waiting == 0) {
    code = loop_timer_start(work->loop, &work->keep_running, KEEP_RUNNING_MS, keep_running);
    if (code != 0) {
      work_job_free(job);
      return code;
    }
  }
  job->result.id = ++work->last_id;
  job->after = work->pending;
  if (work->pending != NULL) {
    work->pending->before = job;
  }
  work->pending = job;
  work->jobs++;
  work->waiting++;
  if (id != NULL) {
    *id = job->result.id;
  }
  pthread_mutex_lock(&work->mutex);
  fifo_put(request->kind == WORK_RESOLVE ? &work->names : &work->files, job);
  pthread_cond_signal(&work->something);
  pthread_mutex_unlock(&work->mutex);
  return 0;
}

bool work_cancel(struct work *work, uint64_t id) {
  struct work_job *job = work->pending;
  while (job != NULL && job->result.id != id) {
    job = job->after;
  }
  if (job == NULL || job->cancelled) {
    return false;
  }
  job->cancelled = true;
  no_longer_waited_for(work);
  pthread_mutex_lock(&work->mutex);
  bool queued = fifo_remove(&work->files, job) || fifo_remove(&work->names, job);
  pthread_mutex_unlock(&work->mutex);
  if (queued) {
    remove_pending(work, job);
    work_job_free(job);
  }
  return true;
}

size_t work_pending(const struct work *work) {
  return work->waiting;
}

static void free_all(struct work_job *job) {
  while (job != NULL) {
    struct work_job *next = job->next;
    work_job_free(job);
    job = next;
  }
}

void work_free(struct work *work) {
  if (work == NULL) {
    return;
  }
  bool join[THREADS];
  pthread_mutex_lock(&work->mutex);
  work->closing = true;
  struct work_job *files = work->files.first;
  struct work_job *names = work->names.first;
  fifo_init(&work->files);
  fifo_init(&work->names);
  for (int i = 0; i < THREADS; i++) {
    join[i] = work->threads[i].started && !work->threads[i].resolving;
    if (work->threads[i].resolving) {
      pthread_detach(work->threads[i].id);
    }
  }
  pthread_cond_broadcast(&work->something);
  pthread_mutex_unlock(&work->mutex);
  for (int i = 0; i < THREADS; i++) {
    if (join[i]) {
      pthread_join(work->threads[i].id, NULL);
    }
  }
  free_all(files);
  free_all(names);
  // Nobody pushes any more: the threads have ended or see `closing` first.
  struct work_job *job;
  while (work->completions != NULL && (job = oneshot_pop(work->completions)) != NULL) {
    work_job_free(job);
  }
  oneshot_free(work->completions);
  loop_timer_stop(&work->keep_running);
  loop_drop(work->loop);
  pthread_mutex_lock(&work->mutex);
  drop(work);
}
