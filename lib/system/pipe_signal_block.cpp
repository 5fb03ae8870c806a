// SPDX-License-Identifier: MIT
// Traps: a signal that is ignored is pending nevertheless while it is blocked; one that is raised
// while it is pending is one with that.
#include "system/pipe_signal_block.hpp"

#include <cerrno>
#include <ctime>

namespace pawl {
namespace {

sigset_t pipe_signal() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGPIPE);
  return set;
}

}  // namespace

PipeSignalBlock::PipeSignalBlock() {
  const sigset_t set = pipe_signal();
  ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  was_blocked_ = ::sigismember(&before_, SIGPIPE) == 1;
  if (!was_blocked_) return;  // nor can one wait
  sigset_t pending;
  ::sigpending(&pending);
  was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
}

PipeSignalBlock::~PipeSignalBlock() {
  if (!was_blocked_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void PipeSignalBlock::take() {
  if (was_pending_) return;
  const sigset_t set = pipe_signal();
  const timespec at_once{};
  while (::sigtimedwait(&set, nullptr, &at_once) < 0 && errno == EINTR) {
  }
}

}  // namespace pawl
