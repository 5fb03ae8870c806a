// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <climits>
#include <ctime>

#include "pawl/core/time.hpp"

namespace pawl {

inline timespec to_timespec(Duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  timespec time{};
  time.tv_sec = seconds.count();
  time.tv_nsec = (duration - seconds).count();
  return time;
}

/// Milliseconds for a call that knows no finer unit: rounded up, so that it is never early.
inline int to_milliseconds(Duration duration) {
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(duration);
  const auto rounded = whole < duration ? whole.count() + 1 : whole.count();
  return rounded > INT_MAX ? INT_MAX : static_cast<int>(rounded);
}

}  // namespace pawl
