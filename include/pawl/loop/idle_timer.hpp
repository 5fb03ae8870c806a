// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

/// Runs its callback when nothing was touched for a while.
///
/// Touching only stores the time of the pass, so it may be done for each byte: the timer looks at
/// that when it fires, and goes on for the rest of the time.
///
/// Owns:     its callback and its timer; destroying it, from its own callback too, ends both.
/// Threads:  the loop's.
/// Promises: fires once, `timeout` after the beginning of the pass of the last `touch` or `start`
///           (`EventLoop::pass_time`), and then stands still until `start`.
class PAWL_API IdleTimer {
 public:
  /// Stands still until `start`. The loop must outlive it.
  IdleTimer(EventLoop& loop, Duration timeout, Function<void()> callback,
            Place place = Place::here());
  IdleTimer(const IdleTimer&) = delete;
  IdleTimer& operator=(const IdleTimer&) = delete;
  ~IdleTimer();

  /// Counts from now. Does nothing more than `touch` while it is running.
  void start();
  void stop();
  /// Something happened: counts from the beginning of this pass.
  void touch() { last_touch_ = *pass_time_; }
  bool is_running() const { return is_running_; }

 private:
  void on_timer();

  EventLoop& loop_;
  const TimePoint* pass_time_;
  Duration timeout_;
  std::shared_ptr<Function<void()>> callback_;  // shared with the call that may destroy this
  Place place_;
  TimePoint last_touch_{};
  TimerHandle timer_;
  bool is_running_ = false;  // true exactly while the callback is to come
};

}  // namespace pawl
