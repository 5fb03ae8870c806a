// SPDX-License-Identifier: MIT
#include "support/later.hpp"

#include <poll.h>

#include <csignal>

#include "support/sockets.hpp"

Later::Later(std::function<void()> action) {
  sigset_t all;
  sigset_t old;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &old);  // inherited by the thread: signals are not for it
  thread_ = std::thread([action = std::move(action)] {
    const pawl::UniqueFd timer = timer_fd(10'000'000);
    pollfd entry{timer.get(), POLLIN, 0};
    ::poll(&entry, 1, -1);
    action();
  });
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}
