// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pawl/async/future_core.hpp"
#include "pawl/async/future_state.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

template <typename Value, typename Callable>
class FutureCallback;
template <typename Value, typename Callable>
class ThenState;
template <typename Callable, typename Value>
struct ThenResult;

/// A result that will be there later: a value, an error, or its cancellation.
///
/// Owns:     a share of the result; a copy is the same future. Dropping all copies cancels nothing.
/// Threads:  the loop's. In debug mode another one is refused, as by `EventLoop`; but what ends
///           there (a promise, a permit, a task) is only reported, and ends.
/// Calls:    callbacks through the loop, never from inside a call, in the order of their adding.
/// Promises: it is done once and stays so. It may outlive the loop; callbacks that are left then
///           are freed, uncalled. A pending future doesn't keep `run()` from returning.
/// Fails:    an empty one (default-constructed, moved from) is a `std::logic_error`.
template <typename Value>
class Future {
 public:
  using ValueType = Value;
  using State = FutureState<Value>;

  Future() noexcept = default;
  /// For the library's own classes.
  explicit Future(State* state) noexcept : state_(state) {}

  /// True exactly when this isn't empty.
  bool valid() const noexcept { return static_cast<bool>(state_); }
  /// True exactly when it has a value, an error, or was cancelled.
  bool done() const { return !core().is_pending(); }
  bool cancelled() const { return core().status() == FutureStatus::cancelled; }

  /// The value; `std::move` it out when it is yours alone. Throws what was set instead,
  /// `CancelledError` when it was cancelled, and `std::logic_error` when it isn't done.
  std::add_lvalue_reference_t<Value> result() const {
    State& state = core();
    if (state.is_pending()) FutureCore::throw_pending("result", state.place());
    if (state.status() != FutureStatus::fulfilled) state.throw_failure();
    state.look();
    if constexpr (!std::is_void_v<Value>) return state.value();
  }
  /// What `result` throws; null when it has a value. Throws `std::logic_error` when it isn't done.
  std::exception_ptr exception() const { return core().exception(); }
  /// The same as an error code: none when it has a value, `std::errc::operation_canceled` when it
  /// was cancelled, the code of a `std::system_error`, `Errc::other_exception` for any other.
  std::error_code error() const { return core().error(); }

  /// Ends it, and what it was made of, unless it is done: a `then` its source (if nobody else waits
  /// for that), a gather its children, a task whatever it waits for. Captures are freed at once;
  /// callbacks come. False when it was done already.
  bool cancel() const {
    State& state = core();
    FutureCore::refuse_wrong_thread(state.hub(), "Future::cancel");
    return state.cancel();
  }

  /// Calls `callback(Future<Value>)`, or `callback()`, when it is done; in the next pass when it is
  /// already. What leaves the callback leaves `run()`, and those behind it still come.
  template <typename Callable>
  void add_done_callback(Callable callback) const {
    State& state = core();
    using Callback = FutureCallback<Value, Callable>;
    make_in_pool<Callback>(state.hub(), std::move(callback))->wait(state);
  }

  /// A future for what `callable` makes of the value: gets it as `Value&` (or moved, when it takes
  /// nothing else, or not at all), through the loop. What it returns is the new future's value; a
  /// future that it returns is waited for; what it throws is the new future's error. An error or a
  /// cancellation goes past `callable` into the new future.
  template <typename Callable>
  auto then(Callable callable, Place place = Place::here()) const {
    using Result = typename ThenResult<Callable, Value>::Value;
    State& state = core();
    auto* next = make_state<ThenState<Value, Callable>>(state.hub(), place, std::move(callable));
    Future<Result> future(next);
    next->wait(state);
    return future;
  }

  /// For the library's own classes.
  State& core() const {
    if (!state_) FutureCore::throw_empty_future();
    return *state_;
  }

 private:
  FutureRef<State> state_;
};

/// For the library's own classes: the future of a state that was just made and that `start()` sets
/// going. What that throws leaves nothing behind.
template <typename Value, typename State, typename Start>
Future<Value> start_future(State* state, Start start) {
  Future<Value> future(state);
  try {
    start();
  } catch (...) {
    state->discard();
    throw;
  }
  return future;
}

/// A future that is done already.
template <typename Value>
Future<std::decay_t<Value>> make_ready_future(EventLoop& loop, Value&& value,
                                              Place place = Place::here()) {
  using Result = std::decay_t<Value>;
  auto* state = make_state<FutureState<Result>>(FutureCore::hub_of(loop), place);
  return start_future<Result>(state, [&] { state->set_value(std::forward<Value>(value)); });
}
inline Future<void> make_ready_future(EventLoop& loop, Place place = Place::here()) {
  auto* state = make_state<FutureState<void>>(FutureCore::hub_of(loop), place);
  Future<void> future(state);
  state->set_value();
  return future;
}

/// A future that has failed already, with a `std::error_code` or a `std::exception_ptr`.
template <typename Value, typename Error>
Future<Value> make_failed_future(EventLoop& loop, Error error, Place place = Place::here()) {
  auto* state = make_state<FutureState<Value>>(FutureCore::hub_of(loop), place);
  Future<Value> future(state);
  state->fail(std::move(error));
  return future;
}

// ---- what is behind it

/// A callback that waits for a future; owned by nobody but that.
template <typename Value, typename Callable>
class FutureCallback final : public FutureWaiter {
 public:
  FutureCallback(FutureHub& hub, Callable callable) : hub_(hub), callable_(std::move(callable)) {}

 private:
  /// Freed when the callback has returned or thrown.
  struct Free {
    FutureCallback* callback;
    ~Free() { callback->destroy(); }
  };

  void on_done(FutureCore& source) override {
    const Free at_the_end{this};
    if constexpr (std::is_invocable_v<Callable&, Future<Value>>) {
      callable_(Future<Value>(static_cast<FutureState<Value>*>(&source)));
    } else {
      callable_();
    }
  }
  void on_dropped() noexcept override { destroy(); }
  void destroy() noexcept {
    FutureHub& hub = hub_;
    this->~FutureCallback();
    FutureCore::free(hub, this, sizeof(FutureCallback), alignof(FutureCallback));
  }

  FutureHub& hub_;
  Callable callable_;
};

/// Calls `callable` with a value: as it is, moved, or not at all, whichever it can take first.
template <typename Callable, typename Value>
decltype(auto) call_with_value(Callable& callable, FutureState<Value>& state) {
  if constexpr (std::is_void_v<Value>) {
    return callable();
  } else if constexpr (std::is_invocable_v<Callable&, Value&>) {
    return callable(state.value());
  } else if constexpr (std::is_invocable_v<Callable&, Value>) {
    return callable(std::move(state.value()));
  } else {
    return callable();
  }
}

/// What the future of a `then` holds: a future that is returned is seen through.
template <typename Callable, typename Argument>
struct ThenResult {
  using Returned = std::decay_t<decltype(call_with_value(std::declval<Callable&>(),
                                                         std::declval<FutureState<Argument>&>()))>;

  template <typename Type>
  struct Flat {
    using Value = Type;
    static constexpr bool is_future = false;
  };
  template <typename Type>
  struct Flat<Future<Type>> {
    using Value = Type;
    static constexpr bool is_future = true;
  };

  using Value = typename Flat<Returned>::Value;
  static constexpr bool is_future = Flat<Returned>::is_future;
};

/// The future that `then` gives: waits for its source, then perhaps for a future that the callable
/// returned.
template <typename Argument, typename Callable>
class ThenState : public FutureState<typename ThenResult<Callable, Argument>::Value>,
                  public FutureWaiter {
  using Result = ThenResult<Callable, Argument>;
  using Base = FutureState<typename Result::Value>;

 public:
  ThenState(FutureHub& hub, Place place, Callable&& callable)
      : Base(hub, place), callable_(std::move(callable)) {}

  const FutureCore* waits_for() const override { return source(); }

 protected:
  void on_cancel() noexcept override {
    callable_.reset();
    const FutureRef<FutureCore> waited_for(source());
    stop_waiting();
    if (waited_for && !waited_for->has_waiters()) waited_for->cancel();
  }
  void on_dispose() noexcept override {
    callable_.reset();
    Base::on_dispose();
  }

 private:
  void on_done(FutureCore& done) override {
    if constexpr (Result::is_future) {
      if (!callable_) return this->set_from(static_cast<Base&>(done));
    }
    if (done.status() != FutureStatus::fulfilled) {
      callable_.reset();
      return this->fail_as(done);
    }
    done.look();
    const FutureRef<FutureCore> keep(this);  // it may be cancelled and dropped from inside
    try {
      Callable callable = std::move(*callable_);
      callable_.reset();
      go_on(callable, static_cast<FutureState<Argument>&>(done));
    } catch (...) {
      if (this->is_pending()) this->fail(std::current_exception());
    }
  }

  void go_on(Callable& callable, FutureState<Argument>& done) {
    if constexpr (Result::is_future) {
      const auto inner = call_with_value(callable, done);
      if (!this->is_pending()) return;
      if (&inner.core() == this) throw std::logic_error("Future::then: a future of itself");
      wait(inner.core());
    } else if constexpr (std::is_void_v<typename Result::Returned>) {
      call_with_value(callable, done);
      if (this->is_pending()) this->set_value();
    } else {
      auto&& value = call_with_value(callable, done);
      if (this->is_pending()) this->set_value(std::forward<decltype(value)>(value));
    }
  }

  void on_dropped() noexcept override {
    callable_.reset();
    if (this->is_pending()) this->fail(Errc::loop_closed);
  }

  std::optional<Callable> callable_;
};

}  // namespace pawl
