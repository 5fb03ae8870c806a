// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/core/api.hpp"

namespace pawl {

class FutureCore;

/// An element of a ring; alone it is a ring of its own.
struct FutureLink {
  FutureLink* next = this;
  FutureLink* previous = this;

  FutureLink() = default;
  FutureLink(const FutureLink&) = delete;
  FutureLink& operator=(const FutureLink&) = delete;

  bool is_alone() const noexcept { return next == this; }
  void unlink() noexcept {
    previous->next = next;
    next->previous = previous;
    next = previous = this;
  }
  /// Before `place`, which for a ring's anchor means at its end.
  void link_before(FutureLink& place) noexcept {
    next = &place;
    previous = place.previous;
    previous->next = this;
    place.previous = this;
  }
  /// Takes everything that is in the ring of `anchor`; this one must be alone.
  void take_ring(FutureLink& anchor) noexcept {
    if (anchor.is_alone()) return;
    next = anchor.next;
    previous = anchor.previous;
    next->previous = previous->next = this;
    anchor.next = anchor.previous = &anchor;
  }
};

/// Something of the library that waits for one future, without an allocation.
///
/// Owns:     nothing; what it waits for doesn't own it either. Destroying it ends the waiting.
/// Promises: after `wait`, exactly one of `on_done` and `on_dropped` comes, unless `stop_waiting`
///           comes first. `on_done` comes from the loop, in the order of the `wait`s.
class PAWL_API FutureWaiter : private FutureLink {
 public:
  FutureWaiter(const FutureWaiter&) = delete;
  FutureWaiter& operator=(const FutureWaiter&) = delete;

  void wait(FutureCore& source) noexcept;
  void stop_waiting() noexcept;
  /// Null when it doesn't wait.
  FutureCore* source() const noexcept { return source_; }

 protected:
  FutureWaiter() = default;
  virtual ~FutureWaiter();

 private:
  friend class FutureCore;
  virtual void on_done(FutureCore& source) = 0;
  /// The loop is gone, and the future will never be looked at.
  virtual void on_dropped() noexcept = 0;

  FutureCore* source_ = nullptr;
};

}  // namespace pawl
