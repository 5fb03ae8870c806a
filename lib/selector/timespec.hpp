// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>
#include <limits>

#include "pawl/core/time.hpp"

namespace pawl {

// The C library's timespec is as wide as the program's time_t, which on a 32-bit machine may be 32
// or 64 bits; a bare system call wants the one that it was made with.

/// What older calls take, pselect6 among them.
struct LongTimespec {
  long tv_sec;
  long tv_nsec;
};

/// What calls take that are younger than Linux 5.1, epoll_pwait2 among them.
struct WideTimespec {
  std::int64_t tv_sec;
  std::int64_t tv_nsec;
};

/// What is longer than `Time` can tell becomes the longest that it can: a wait may end early.
template <typename Time>
Time to_time(Duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  Time time{};
  using Seconds = decltype(time.tv_sec);
  if (seconds.count() > std::numeric_limits<Seconds>::max()) {
    time.tv_sec = std::numeric_limits<Seconds>::max();
    return time;
  }
  time.tv_sec = static_cast<Seconds>(seconds.count());
  time.tv_nsec = static_cast<decltype(time.tv_nsec)>((duration - seconds).count());
  return time;
}

inline timespec to_timespec(Duration duration) { return to_time<timespec>(duration); }

/// Milliseconds for a call that knows no finer unit: rounded up, so that it is never early.
inline int to_milliseconds(Duration duration) {
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(duration);
  const auto rounded = whole < duration ? whole.count() + 1 : whole.count();
  return rounded > INT_MAX ? INT_MAX : static_cast<int>(rounded);
}

}  // namespace pawl
