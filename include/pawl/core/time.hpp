// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>

namespace pawl {

/// A span of time: integer nanoseconds.
using Duration = std::chrono::nanoseconds;

/// A moment on the monotonic clock, in integer nanoseconds. Never wall-clock time.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

/// The sum, held at the end of the clock instead of overflowing. A negative span counts as zero.
constexpr TimePoint add_saturated(TimePoint start, Duration span) {
  if (span <= Duration::zero()) return start;
  return start > TimePoint::max() - span ? TimePoint::max() : start + span;
}

}  // namespace pawl
