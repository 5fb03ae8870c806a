// SPDX-License-Identifier: MIT
#pragma once

#include <csignal>

/// For its lifetime SIGPIPEs are counted instead of killing. What was done with them before, and
/// this thread's mask, come back.
class PipeSignals {
 public:
  PipeSignals() {
    seen() = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { seen() = seen() + 1; };
    ::sigaction(SIGPIPE, &action, &before_);
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_);
  }
  ~PipeSignals() {
    ::sigaction(SIGPIPE, &before_, nullptr);
    ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }
  PipeSignals(const PipeSignals&) = delete;
  PipeSignals& operator=(const PipeSignals&) = delete;

  static int count() { return seen(); }
  static void block(bool is_blocked) {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGPIPE);
    ::pthread_sigmask(is_blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
  }
  static bool is_blocked() {
    sigset_t set;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &set);
    return ::sigismember(&set, SIGPIPE) == 1;
  }
  static bool is_pending() {
    sigset_t set;
    ::sigpending(&set);
    return ::sigismember(&set, SIGPIPE) == 1;
  }

 private:
  static volatile std::sig_atomic_t& seen() {
    static volatile std::sig_atomic_t count = 0;
    return count;
  }

  struct sigaction before_ {};
  sigset_t mask_{};
};
