// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// The future of what calls back: of `Queue::get`, `Semaphore::acquire` and `Event::wait` with a
/// callback. It waits for `Value` and is done when the callback has returned; so cancelling it is
/// final until that begins, and what had come already goes back.
template <typename Value, typename Callable>
class TurnState : public FutureState<void>, public FutureWaiter {
 public:
  TurnState(FutureHub& hub, Place place, Callable&& callable)
      : FutureState<void>(hub, place), callable_(std::move(callable)) {}

  const FutureCore* waits_for() const override { return source(); }

 protected:
  void on_cancel() noexcept override {
    const FutureRef<FutureCore> waited_for(source());
    stop_waiting();
    callable_.reset();
    if (waited_for) waited_for->cancel();
  }
  void on_dispose() noexcept override {
    callable_.reset();
    FutureState<void>::on_dispose();
  }

 private:
  /// The end comes when the callback has returned or thrown.
  struct End {
    TurnState& turn;
    FutureCore& source;
    ~End() {
      if (!turn.is_pending()) return;
      turn.look();
      if (source.status() == FutureStatus::fulfilled) {
        turn.set_value();
      } else {
        turn.fail_as(source);
      }
    }
  };

  void on_done(FutureCore& done) override {
    const FutureRef<FutureCore> keep(this);  // it may be cancelled and dropped from inside
    Callable callable = std::move(*callable_);
    callable_.reset();
    done.look();
    const End at_the_end{*this, done};
    callable(static_cast<FutureState<Value>&>(done));
  }
  void on_dropped() noexcept override {
    callable_.reset();
    if (is_pending()) fail(Errc::loop_closed);
  }

  std::optional<Callable> callable_;
};

/// Calls `callable(FutureState<Value>&)` when `future` is done.
template <typename Value, typename Callable>
Future<void> call_when_done(const Future<Value>& future, Callable callable, Place place) {
  FutureState<Value>& source = future.core();
  auto* state = make_state<TurnState<Value, Callable>>(source.hub(), place, std::move(callable));
  Future<void> turn(state);
  state->wait(source);
  return turn;
}

}  // namespace pawl
