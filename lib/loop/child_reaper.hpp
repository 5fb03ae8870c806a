// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/loop/io_handler.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

/// Waits for the end of one child process and reaps it.
///
/// Threads: the loop's.
class ChildReaper final : public IoHandler {
 public:
  /// `on_end` may destroy this.
  ChildReaper(EventLoop& loop, int pid, Function<void(const ChildStatus&)> on_end, Place place);
  ChildReaper(const ChildReaper&) = delete;
  ChildReaper& operator=(const ChildReaper&) = delete;
  ~ChildReaper();

  /// Nobody wants to know any more: reaps it in the background, without keeping the loop alive.
  void orphan(Function<void(const ChildStatus&)> on_end);
  /// Reaps it if it has ended, and tells.
  void look();

 private:
  void on_ready(Interest events) override;
  std::string describe() const override;
  void look_later();

  EventLoop& loop_;
  const int pid_;
  Function<void(const ChildStatus&)> on_end_;
  Place place_;
  int pidfd_ = -1;  // -1: there is none, the timer looks again and again
  Duration pause_ = std::chrono::milliseconds(1);
  ScopedHandle timer_;
};

}  // namespace pawl
