// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"

/// The kernel, with a clock that stands still until a test moves it. For passes that don't wait
/// (`run_once` with zero): waiting itself is done by the kernel's own clock.
class VirtualClock : public pawl::System {
 public:
  pawl::TimePoint now() override { return now_; }
  void advance(pawl::Duration span) { now_ += span; }
  void set(pawl::TimePoint moment) { now_ = moment; }

 private:
  pawl::TimePoint now_{pawl::Duration(std::chrono::hours(1))};
};

/// The options of a loop that stands on another system than the kernel.
inline pawl::LoopOptions options_on(pawl::System& system) {
  pawl::LoopOptions options;
  options.system = &system;
  return options;
}
