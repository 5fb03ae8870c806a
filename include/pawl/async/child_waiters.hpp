// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "pawl/async/future_core.hpp"

namespace pawl {

/// The waiters of something that waits for many futures, in one allocation.
///
/// Calls: `Owner::on_child(FutureCore& child)` for each child that is done, and
///        `Owner::on_child_dropped()` for each that never will be.
template <typename Owner>
class ChildWaiters {
 public:
  explicit ChildWaiters(Owner& owner) : owner_(owner) {}

  void reserve(std::size_t count) { waiters_.reset(count == 0 ? nullptr : new Waiter[count]); }
  /// At most as many as were reserved.
  void wait(FutureCore& child) {
    Waiter& waiter = waiters_[count_++];
    waiter.owner = &owner_;
    waiter.wait(child);
  }
  void stop() noexcept {
    for (std::size_t i = 0; i < count_; ++i) waiters_[i].stop_waiting();
  }
  /// Stops waiting, and cancels each child that was waited for.
  void cancel() noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      const FutureRef<FutureCore> child(waiters_[i].source());
      waiters_[i].stop_waiting();
      if (child) child->cancel();
    }
  }
  /// The first child that isn't done; null when all are.
  const FutureCore* first() const noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      if (waiters_[i].source() != nullptr) return waiters_[i].source();
    }
    return nullptr;
  }

 private:
  struct Waiter final : FutureWaiter {
    Owner* owner = nullptr;

    void on_done(FutureCore& child) override { owner->on_child(child); }
    void on_dropped() noexcept override { owner->on_child_dropped(); }
  };

  Owner& owner_;
  std::unique_ptr<Waiter[]> waiters_;
  std::size_t count_ = 0;
};

/// The value of a future that is fulfilled, for a new owner: moved when nobody else may look at it,
/// or when it can't be copied.
template <typename State>
typename State::Stored take_value(State& state) {
  state.look();
  if constexpr (std::is_copy_constructible_v<typename State::Stored>) {
    if (!state.is_held_by(1)) return std::as_const(state.value());
  }
  return std::move(state.value());
}

/// The same; but one that is returnable isn't looked at yet.
template <typename State>
typename State::Stored borrow_value(State& state) {
  if (!state.is_returnable()) return take_value(state);
  if constexpr (std::is_copy_constructible_v<typename State::Stored>) {
    if (!state.is_held_by(1)) return std::as_const(state.value());
  }
  return std::move(state.value());
}
/// Nobody has looked at what `borrow_value` gave.
template <typename State>
void give_value_back(State& state, typename State::Stored&& value) noexcept {
  if (state.is_returnable() && !state.is_looked_at()) state.take_back(std::move(value));
}

}  // namespace pawl
