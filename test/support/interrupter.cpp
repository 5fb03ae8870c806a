// SPDX-License-Identifier: MIT
#include "support/interrupter.hpp"

#include <sys/time.h>

#include <atomic>

namespace {

std::atomic<long> strikes{0};
static_assert(std::atomic<long>::is_always_lock_free, "a signal handler may touch it");

void on_alarm(int) { strikes.fetch_add(1, std::memory_order_relaxed); }

void set_timer(std::chrono::microseconds first, std::chrono::microseconds interval) {
  itimerval timer{};  // each below a second
  timer.it_interval.tv_usec = static_cast<suseconds_t>(interval.count());
  timer.it_value.tv_usec = static_cast<suseconds_t>(first.count());
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

Interrupter::Interrupter(std::chrono::microseconds first, std::chrono::microseconds interval) {
  struct sigaction action {};
  action.sa_handler = on_alarm;
  ::sigaction(SIGALRM, &action, &old_action_);
  set_timer(first, interval);
}

Interrupter::~Interrupter() {
  set_timer({}, {});
  ::sigaction(SIGALRM, &old_action_, nullptr);
}

long Interrupter::count() { return strikes.load(std::memory_order_relaxed); }
