// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <csignal>

/// Interrupts this process 1,000 times a second until the end of the scope: a SIGALRM whose handler
/// was set without SA_RESTART, so that every system call that can fail with EINTR does.
class Interrupter {
 public:
  Interrupter() : Interrupter(std::chrono::milliseconds(1), std::chrono::milliseconds(1)) {}
  /// Strikes after `first`, then each `interval`; 0: never again.
  Interrupter(std::chrono::microseconds first, std::chrono::microseconds interval);
  ~Interrupter();
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;

  /// How often it has struck, in all scopes together.
  static long count();

 private:
  struct sigaction old_action_ {};
};
