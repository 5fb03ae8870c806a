// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

/// The future of `wait_for`.
template <typename Value>
class WaitForState : public FutureState<Value>, public FutureWaiter {
 public:
  using FutureState<Value>::FutureState;

  void start(FutureState<Value>& source, Duration duration) {
    timer_ = this->loop().call_later(
        duration, [this] { on_time(); }, this->place());
    wait(source);
  }
  const FutureCore* waits_for() const override { return source(); }

 protected:
  void on_cancel() noexcept override { cancel_source(); }

 private:
  void on_done(FutureCore& source) override {
    timer_.cancel();
    this->set_from(static_cast<FutureState<Value>&>(source));
  }
  void on_dropped() noexcept override {
    timer_.cancel();
    if (this->is_pending()) this->fail(Errc::loop_closed);
  }
  void on_time() {
    if (!source()->is_pending()) return;  // in this very pass: its result is on the way
    cancel_source();
    if (this->is_pending()) this->fail(Errc::timed_out);
  }
  void cancel_source() {
    timer_.cancel();
    const FutureRef<FutureCore> waited_for(source());
    stop_waiting();
    if (waited_for) waited_for->cancel();
  }

  TimerHandle timer_;
};

/// What becomes of `future`, unless `duration` passes first: then `future` is cancelled, and this
/// one fails with `Errc::timed_out`. A result that comes in the same pass as the end of the time
/// wins. Cancelling this one cancels `future`.
template <typename Value>
Future<Value> wait_for(const Future<Value>& future, Duration duration,
                       Place place = Place::here()) {
  FutureState<Value>& source = future.core();
  source.loop();  // throws when it is gone
  auto* state = make_state<WaitForState<Value>>(source.hub(), place);
  return start_future<Value>(state, [&] { state->start(source, duration); });
}

}  // namespace pawl
