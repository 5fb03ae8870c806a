// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// The future of `shield`.
template <typename Value>
class ShieldState : public FutureState<Value>, public FutureWaiter {
 public:
  using FutureState<Value>::FutureState;
  const FutureCore* waits_for() const override { return source(); }

 protected:
  void on_cancel() noexcept override { stop_waiting(); }

 private:
  void on_done(FutureCore& source) override {
    this->set_from(static_cast<FutureState<Value>&>(source));
  }
  void on_dropped() noexcept override {
    if (this->is_pending()) this->fail(Errc::loop_closed);
  }
};

/// What becomes of `future`; cancelling this one leaves `future` alone.
template <typename Value>
Future<Value> shield(const Future<Value>& future, Place place = Place::here()) {
  FutureState<Value>& source = future.core();
  auto* state = make_state<ShieldState<Value>>(source.hub(), place);
  Future<Value> shielded(state);
  state->wait(source);
  return shielded;
}

}  // namespace pawl
