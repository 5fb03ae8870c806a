// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <system_error>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/async/turn_state.hpp"
#include "pawl/async/waiter_queue.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

class SemaphoreCore;

/// One turn of a `Semaphore` or a `Lock`: given back when it is released or destroyed, once.
///
/// Owns:    the turn. It may outlive what gave it. Moved, not copied; an empty one holds nothing.
/// Threads: the loop's.
/// Calls:   nothing; whoever is next hears of it through the loop.
class PAWL_API Permit {
 public:
  Permit() noexcept = default;
  /// For the library's own classes.
  explicit Permit(std::shared_ptr<SemaphoreCore> core) noexcept : core_(std::move(core)) {}
  Permit(Permit&&) noexcept = default;
  Permit& operator=(Permit&& other) noexcept {
    if (this != &other) {
      release();
      core_ = std::move(other.core_);
    }
    return *this;
  }
  ~Permit() { release(); }

  /// Gives it back. Again, it does nothing.
  void release() noexcept;
  /// True exactly when it holds a turn.
  explicit operator bool() const noexcept { return core_ != nullptr; }

 private:
  std::shared_ptr<SemaphoreCore> core_;
};

/// At most so many at a time; the others wait for their turn, first come, first served.
///
/// Owns:     the places in the line. Destroying it fails those with `Errc::broken_promise`;
///           permits stay valid.
/// Threads:  the loop's. The loop must outlive it.
/// Promises: a turn is never lost: one that was given to a future that nobody holds any more, or
///           that is cancelled, goes to the next.
class PAWL_API Semaphore {
 public:
  /// `value` is how many may be in at a time.
  Semaphore(EventLoop& loop, std::size_t value);
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;
  ~Semaphore();

  /// A future for a turn: `std::move(future.result())` takes it, and while the future has it, it
  /// is held. Cancelling a future that waits leaves the line.
  Future<Permit> acquire(Place place = Place::here());

  /// Calls `callback(std::error_code, Permit)` when it is its turn. The future that this gives is
  /// done when that has returned. Cancelling it leaves the line, also when the turn has come
  /// already: the callback isn't called then, and the turn is the next one's at once.
  template <typename Callable>
  Future<void> acquire(Callable callback, Place place = Place::here()) {
    auto call = [callback = std::move(callback)](FutureState<Permit>& done) mutable {
      const std::error_code error = done.error();
      callback(error, error ? Permit() : std::move(done.value()));
    };
    return call_when_done(acquire(place), std::move(call), place);
  }

  /// An empty one when it would have to wait.
  Permit try_acquire();

  /// True exactly when an `acquire` would have to wait.
  bool locked() const;

 private:
  std::shared_ptr<SemaphoreCore> core_;
};

}  // namespace pawl
