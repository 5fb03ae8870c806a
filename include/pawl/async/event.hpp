// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/future.hpp"
#include "pawl/async/turn_state.hpp"
#include "pawl/async/waiter_queue.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// A flag that many may wait for.
///
/// Owns:    the waiting. Destroying it fails that with `Errc::broken_promise`.
/// Threads: the loop's. The loop must outlive it.
class PAWL_API Event {
 public:
  explicit Event(EventLoop& loop) : hub_(FutureCore::hub_of(loop)) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  /// Lets all go that wait, in the order in which they came, and all that will come.
  void set();
  /// Those who come from now on wait.
  void clear() { is_set_ = false; }
  bool is_set() const { return is_set_; }
  /// A future that is done when the flag is set; at once when it is.
  Future<void> wait(Place place = Place::here());
  /// Calls `callback(std::error_code)` then. The future that this gives is done when that has
  /// returned. Cancelling it keeps it from being called, also when the flag was set meanwhile.
  template <typename Callable>
  Future<void> wait(Callable callback, Place place = Place::here()) {
    auto call = [callback = std::move(callback)](FutureState<void>& done) mutable {
      callback(done.error());
    };
    return call_when_done(wait(place), std::move(call), place);
  }

 private:
  FutureHub& hub_;
  WaiterQueue<QueuedState<void>> waiting_;
  bool is_set_ = false;
};

}  // namespace pawl
