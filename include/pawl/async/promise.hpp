// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pawl/async/cancel_callback.hpp"
#include "pawl/async/future.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

/// A future's state with what its promise wants to be told.
template <typename Value>
class PromiseState : public FutureState<Value> {
 public:
  using FutureState<Value>::FutureState;

  CancelCallback on_cancelled;

 protected:
  void on_cancel() noexcept override { on_cancelled.post(*this); }
  void on_dispose() noexcept override {
    on_cancelled.reset();
    FutureState<Value>::on_dispose();
  }
};

/// The other end of a future: gives it its result, once.
///
/// Owns:     a share of the future. Moved, not copied. One that is dropped unset breaks its future:
///           `Errc::broken_promise`.
/// Threads:  the loop's.
/// Calls:    `on_cancel` through the loop.
/// Promises: whoever holds the future may cancel it at any time, so a result that comes after that
///           is dropped.
/// Fails:    setting it twice, or an empty one (moved from), is a `std::logic_error`; so is setting
///           it on another thread than the loop's while that runs, in debug mode.
template <typename Value>
class Promise {
 public:
  /// `place` is where the future says that it was made.
  explicit Promise(EventLoop& loop, Place place = Place::here())
      : state_(make_state<PromiseState<Value>>(FutureCore::hub_of(loop), place)) {}
  Promise(Promise&&) noexcept = default;
  Promise& operator=(Promise&& other) noexcept {
    if (this != &other) {
      break_promise();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~Promise() { break_promise(); }

  /// Always the same one.
  Future<Value> future() const { return Future<Value>(&core()); }

  /// `set_result()` for void. What the value's constructor throws leaves it unset.
  template <typename... Arguments>
  void set_result(Arguments&&... value) {
    static_assert(std::is_void_v<Value> ? sizeof...(value) == 0 : sizeof...(value) == 1);
    if (PromiseState<Value>* state = begin_setting()) {
      state->set_value(std::forward<Arguments>(value)...);
    }
  }
  void set_exception(std::exception_ptr exception) {
    if (PromiseState<Value>* state = begin_setting()) state->fail(std::move(exception));
  }
  /// `set_exception(Errc::timed_out)`: the future throws a `std::system_error`.
  void set_exception(std::error_code error) {
    if (PromiseState<Value>* state = begin_setting()) state->fail(error);
  }
  /// `set_exception(std::runtime_error("no"))`
  template <typename Exception,
            typename = std::enable_if_t<std::is_base_of_v<std::exception, Exception>>>
  void set_exception(Exception exception) {
    set_exception(std::make_exception_ptr(std::move(exception)));
  }

  /// Called once, through the loop, when the future is cancelled: to stop what would give the
  /// result. Replaces an earlier one. Freed when there is a result. One that is set after the
  /// cancellation is called too.
  void on_cancel(Function<void()> callback) {
    PromiseState<Value>& state = core();
    const bool is_late = state.status() == FutureStatus::cancelled;
    if (!is_late && !state.is_pending()) return;
    CancelCallback fresh(state, std::move(callback));
    is_late ? fresh.post(state) : std::swap(state.on_cancelled, fresh);
  }

  bool done() const { return !core().is_pending(); }
  bool cancelled() const { return core().status() == FutureStatus::cancelled; }

 private:
  PromiseState<Value>& core() const {
    if (!state_) FutureCore::throw_empty_future();
    return *state_;
  }
  /// Null when nobody wants a result any more.
  PromiseState<Value>* begin_setting() {
    FutureCore::refuse_wrong_thread(core().hub(), "Promise::set_result");
    return forget_on_cancel();
  }
  PromiseState<Value>* forget_on_cancel() {
    PromiseState<Value>& state = core();
    if (state.status() == FutureStatus::cancelled) return nullptr;
    if (!state.is_pending()) FutureCore::throw_set_twice(state.place());
    state.on_cancelled.reset();  // which may free what cancels it
    return state.is_pending() ? &state : nullptr;
  }
  void break_promise() noexcept {
    if (!state_ || !state_->is_pending()) return;
    if (state_->is_held_by(2)) state_->look();  // this and the pending one: nobody ever wanted it
    if (PromiseState<Value>* state = forget_on_cancel()) state->fail(Errc::broken_promise);
  }

  FutureRef<PromiseState<Value>> state_;
};

}  // namespace pawl
