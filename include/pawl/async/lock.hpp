// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "pawl/async/semaphore.hpp"

namespace pawl {

/// One at a time, first come, first served. A `Semaphore` of one: see there.
///
///     lock.acquire([&](std::error_code, pawl::Permit permit) { … });  // held as long as `permit`
class Lock {
 public:
  explicit Lock(EventLoop& loop) : semaphore_(loop, 1) {}

  Future<Permit> acquire(Place place = Place::here()) { return semaphore_.acquire(place); }
  template <typename Callable>
  Future<void> acquire(Callable callback, Place place = Place::here()) {
    return semaphore_.acquire(std::move(callback), place);
  }
  Permit try_acquire() { return semaphore_.try_acquire(); }
  bool locked() const { return semaphore_.locked(); }

 private:
  Semaphore semaphore_;
};

}  // namespace pawl
