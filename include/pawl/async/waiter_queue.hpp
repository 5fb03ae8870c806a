// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/future_state.hpp"
#include "pawl/core/error.hpp"

namespace pawl {

/// A future's state that stands in a `WaiterQueue` while it is pending. Cancelling takes it out.
template <typename Value>
class QueuedState : public FutureState<Value> {
 public:
  using FutureState<Value>::FutureState;

  /// For the queue that it stands in.
  struct Spot : FutureLink {
    explicit Spot(QueuedState& of) : state(of) {}
    QueuedState& state;
  };
  Spot& enter_queue() {
    this->tell_of_closing();
    return spot_;
  }

 protected:
  void on_cancel() noexcept override { spot_.unlink(); }
  void on_loop_closed() noexcept override {
    spot_.unlink();
    this->fail(Errc::loop_closed);
  }

 private:
  Spot spot_{*this};
};

/// Futures that wait for their turn, first in, first out.
template <typename State>
class WaiterQueue {
 public:
  WaiterQueue() = default;
  WaiterQueue(const WaiterQueue&) = delete;
  WaiterQueue& operator=(const WaiterQueue&) = delete;
  ~WaiterQueue() { fail_all(Errc::broken_promise); }

  bool empty() const noexcept { return ring_.is_alone(); }
  void push(State& state) { state.enter_queue().link_before(ring_); }
  /// The first one, taken out; null when there is none.
  State* pop() noexcept {
    if (ring_.is_alone()) return nullptr;
    auto& spot = static_cast<typename State::Spot&>(*ring_.next);
    spot.unlink();
    return static_cast<State*>(&spot.state);
  }
  /// The first one that somebody still waits for; the others are cancelled.
  State* pop_wanted() noexcept {
    while (State* state = pop()) {
      if (!state->is_unwanted()) return state;
      state->cancel();
    }
    return nullptr;
  }
  void fail_all(std::error_code error) noexcept {
    FutureLink all;
    all.take_ring(ring_);
    while (!all.is_alone()) {
      auto& spot = static_cast<typename State::Spot&>(*all.next);
      spot.unlink();
      if (spot.state.is_unwanted()) spot.state.look();
      spot.state.fail(error);
    }
  }

 private:
  FutureLink ring_;
};

}  // namespace pawl
