// SPDX-License-Identifier: MIT
#include "watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define NS_PER_MS UINT64_C(1000000)

enum { IN_TIME, WARNED, STOPPED };

// The handler runs on the loop's thread, between two instructions of it; so the fields that both
// sides use are atomic only to keep the compiler honest.
struct watchdog {
  struct loop_observer observer;
  struct loop *loop; // held
  struct watchdog_options options;
  timer_t timer;
  int signal;
  struct timespec period;
  _Atomic uint64_t entered_ns;
  _Atomic uint64_t last_turn; // at the last signal that found the loop idle
  atomic_bool armed;
  atomic_int stage;
};

// Good to some milliseconds, and a third of the price of the exact clock.
static uint64_t coarse_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec;
}

static void set_timer(struct watchdog *w, bool on) {
  struct itimerspec spec = {0};
  if (on) {
    spec.it_value = spec.it_interval = w->period;
  }
  atomic_store_explicit(&w->armed, on, memory_order_relaxed);
  timer_settime(w->timer, 0, &spec, NULL);
}

static void look(struct watchdog *w) {
  if (!loop_is_busy(w->loop)) {
    // A whole period without a callback: the next one starts the timer again.
    uint64_t turn = loop_turn_number(w->loop);
    if (turn == atomic_load_explicit(&w->last_turn, memory_order_relaxed)) {
      set_timer(w, false);
    }
    atomic_store_explicit(&w->last_turn, turn, memory_order_relaxed);
    return;
  }
  uint64_t held_ms =
      (coarse_now_ns() - atomic_load_explicit(&w->entered_ns, memory_order_relaxed)) / NS_PER_MS;
  int stage = atomic_load_explicit(&w->stage, memory_order_relaxed);
  if (stage < STOPPED && w->options.stop_ms > 0 && held_ms >= w->options.stop_ms) {
    atomic_store_explicit(&w->stage, STOPPED, memory_order_relaxed);
    w->options.late(w->options.data, true);
  } else if (stage < WARNED && held_ms >= w->options.warn_ms) {
    atomic_store_explicit(&w->stage, WARNED, memory_order_relaxed);
    w->options.late(w->options.data, false);
  }
}

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  if (info->si_code == SI_TIMER) {
    int saved = errno;
    look(info->si_value.sival_ptr);
    errno = saved;
  }
}

static void enter(struct loop_observer *observer) {
  struct watchdog *w = (struct watchdog *)observer;
  atomic_store_explicit(&w->entered_ns, coarse_now_ns(), memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
  // The turn has gone up already, so the handler does not stop the timer after this look.
  if (!atomic_load_explicit(&w->armed, memory_order_relaxed)) {
    set_timer(w, true);
  }
}

static void leave(struct loop_observer *observer) {
  struct watchdog *w = (struct watchdog *)observer;
  if (atomic_load_explicit(&w->stage, memory_order_relaxed) == IN_TIME) {
    return;
  }
  atomic_store_explicit(&w->stage, IN_TIME, memory_order_relaxed);
  uint64_t entered_ns = atomic_load_explicit(&w->entered_ns, memory_order_relaxed);
  w->options.over(w->options.data, (coarse_now_ns() - entered_ns) / NS_PER_MS);
}

// Takes a signal that nobody has a use for. 0 or -errno.
static int take_signal(struct watchdog *w) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  action.sa_sigaction = on_signal;
  sigfillset(&action.sa_mask);
  for (int number = SIGRTMAX; number >= SIGRTMIN; number--) {
    struct sigaction now;
    if (sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
        now.sa_handler == SIG_DFL) {
      if (sigaction(number, &action, NULL) != 0) {
        return -errno;
      }
      w->signal = number;
      sigset_t only;
      sigemptyset(&only);
      sigaddset(&only, number);
      return -pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    }
  }
  return -EBUSY;
}

static void give_signal_back(const struct watchdog *w) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  sigaction(w->signal, &action, NULL);
}

int watchdog_new(struct loop *loop, const struct watchdog_options *options, struct watchdog **out) {
  struct watchdog *w = calloc(1, sizeof *w);
  if (w == NULL) {
    return -ENOMEM;
  }
  w->options = *options;
  w->observer = (struct loop_observer){.enter = enter, .leave = leave};
  unsigned least_ms = options->warn_ms;
  if (options->stop_ms > 0 && options->stop_ms < least_ms) {
    least_ms = options->stop_ms;
  }
  uint64_t period_ns = (least_ms >= 20 ? least_ms / 4 : 5) * NS_PER_MS;
  w->period.tv_sec = (time_t)(period_ns / (1000 * NS_PER_MS));
  w->period.tv_nsec = (long)(period_ns % (1000 * NS_PER_MS));
  int failed = take_signal(w);
  if (failed != 0) {
    free(w);
    return failed;
  }
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = w->signal};
  event.sigev_value.sival_ptr = w;
  event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
  if (timer_create(CLOCK_MONOTONIC, &event, &w->timer) != 0) {
    failed = -errno;
    give_signal_back(w);
    free(w);
    return failed;
  }
  w->loop = loop_hold(loop);
  loop_observe(loop, &w->observer);
  *out = w;
  return 0;
}

void watchdog_free(struct watchdog *w) {
  if (w == NULL) {
    return;
  }
  loop_observe(w->loop, NULL);
  // A signal that is on its way reaches this thread when the call returns, and not later.
  timer_delete(w->timer);
  give_signal_back(w);
  loop_drop(w->loop);
  free(w);
}

bool watchdog_is_armed(const struct watchdog *w) {
  return atomic_load_explicit(&w->armed, memory_order_relaxed);
}
