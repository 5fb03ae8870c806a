// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

class EventLoop;

/// The future of `make_future`, without the operation.
template <typename Value>
class CompletableState : public FutureState<Value> {
 public:
  using FutureState<Value>::FutureState;

  virtual void complete(std::error_code error) = 0;
  virtual void complete(std::exception_ptr exception) = 0;
  virtual void complete(std::error_code error, typename FutureState<Value>::Stored&& value) = 0;

  std::uint32_t completions = 0;  // how many copies there are
};

/// What `make_future` hands to whoever starts an operation: call it when that is over.
///
/// Owns:     a share of it; copies are the same. When all are dropped uncalled, the future breaks:
///           `Errc::broken_promise`.
/// Promises: the first call counts, later ones do nothing. The operation may be destroyed by it.
template <typename Value>
class Completion {
 public:
  explicit Completion(CompletableState<Value>* state) noexcept : state_(state) { take(); }
  Completion(const Completion& other) noexcept : state_(other.state_) { take(); }
  Completion(Completion&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  Completion& operator=(Completion other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~Completion() {
    if (state_ == nullptr) return;
    if (--state_->completions == 0 && state_->is_pending()) {
      state_->complete(Errc::broken_promise);
    }
    state_->release_weakly();
  }

  /// Without a value: an error; or success, when the future is one of `void` or the operation
  /// itself is the value.
  void operator()(std::error_code error) const {
    if (is_pending()) state_->complete(error);
  }
  /// The value counts when there is no error.
  template <typename Given>
  void operator()(std::error_code error, Given&& value) const {
    if (!is_pending()) return;
    if (error) return state_->complete(error);
    try {
      state_->complete(error, typename FutureState<Value>::Stored(std::forward<Given>(value)));
    } catch (...) {  // of the value's constructor
      if (!is_pending()) throw;
      state_->complete(std::current_exception());
    }
  }

 private:
  bool is_pending() const noexcept { return state_ != nullptr && state_->is_pending(); }
  void take() noexcept {
    if (state_ == nullptr) return;
    ++state_->completions;
    state_->retain_weakly();
  }

  CompletableState<Value>* state_;
};

/// The future of `make_future` with what the starter returned.
template <typename Value, typename Operation>
class OperationState : public CompletableState<Value> {
  using Base = CompletableState<Value>;

 public:
  using Base::Base;
  using Stored = typename Base::Stored;
  static constexpr bool has_operation = !std::is_void_v<Operation>;
  static constexpr bool is_value = std::is_same_v<Value, Operation>;

  template <typename Starter>
  void start(Starter& starter) {
    const FutureRef<FutureCore> keep(this);
    const Completion<Value> completion(this);  // outlives what is thrown
    try {
      if constexpr (has_operation) {
        Kept operation = starter(completion);
        if (is_complete_) this->set_operation(std::move(operation));
        if (this->is_pending()) operation_.emplace(std::move(operation));
      } else {
        starter(completion);
      }
      if (this->is_pending()) this->tell_of_closing();
    } catch (...) {
      if (this->is_pending()) this->fail(std::current_exception());
    }
  }

  void complete(std::error_code error) override {
    if (error) return end_with([&] { this->fail(error); });
    if constexpr (std::is_void_v<Value>) {
      end_with([this] { this->set_value(); });
    } else if constexpr (is_value) {
      if (!operation_) {
        is_complete_ = true;  // from inside the starter; it is about to return the value
        return;
      }
      Kept operation = take_operation();
      set_operation(std::move(operation));
    } else {
      end_with([this] {
        this->fail(std::make_exception_ptr(
            std::logic_error("make_future: completed without a value and without an error")));
      });
    }
  }
  void complete(std::exception_ptr exception) override {
    end_with([&] { this->fail(std::move(exception)); });
  }
  void complete(std::error_code, Stored&& value) override {
    end_with([&] { this->set_value(std::move(value)); });
  }

 protected:
  void on_cancel() noexcept override {
    if (!operation_) return;
    Kept operation = take_operation();
    cancel_operation(operation, 0);
  }
  void on_loop_closed() noexcept override {
    end_with([this] { this->fail(Errc::loop_closed); });
  }
  void on_dispose() noexcept override {
    operation_.reset();
    Base::on_dispose();
  }

 private:
  using Kept = std::conditional_t<has_operation, Operation, Nothing>;

  Kept take_operation() {
    Kept operation = std::move(*operation_);
    operation_.reset();
    return operation;
  }
  /// The operation goes when the future is done: what it does when it goes comes too late.
  template <typename End>
  void end_with(End end) {
    std::optional<Kept> operation;
    if (operation_) operation.emplace(take_operation());
    end();
  }
  void set_operation(Kept&& operation) {
    if constexpr (is_value) {
      is_complete_ = false;
      this->set_value(std::move(operation));
    }
  }
  template <typename Any>
  static auto cancel_operation(Any& operation, int) -> decltype(operation.cancel(), void()) {
    operation.cancel();
  }
  template <typename Any>
  static void cancel_operation(Any&, long) {}  // its destructor is all that it needs

  std::optional<Kept> operation_;
  bool is_complete_ = false;  // true exactly when the starter's own result is to be the value
};

/// Makes a future of whatever tells its end by a callback: a connect, a message, a resolver's
/// answer.
///
///     make_future<std::vector<Endpoint>>(loop, [&](auto done) {
///       return resolver.resolve("example.org", [done](std::error_code error, auto answer) {
///         done(error, std::move(answer));
///       });
///     });
///
/// `starter(Completion<Value>)` is called at once. What it returns is kept until the end, and
/// cancelling the future calls its `cancel()`, when it has one, and destroys it: a `Handle`, a
/// `Job`, a `std::unique_ptr<Connection>` … When that is the very value, `done({})` says so:
///
///     make_future<std::unique_ptr<Connection>>(loop, [&](auto done) {
///       auto connection = Connection::connect(loop, "localhost", 80);
///       connection->pause_reading();  // until the next step has set its on_data
///       connection->on_connected([done](Connection&) { done({}); });
///       connection->on_closed([done](Connection&, std::error_code error) { done(error); });
///       return connection;
///     });
///
/// What the starter throws is the future's error.
template <typename Value, typename Starter>
Future<Value> make_future(EventLoop& loop, Starter starter, Place place = Place::here()) {
  using Operation = std::decay_t<std::invoke_result_t<Starter&, Completion<Value>>>;
  auto* state = make_state<OperationState<Value, Operation>>(FutureCore::hub_of(loop), place);
  Future<Value> future(state);
  state->start(starter);
  return future;
}

}  // namespace pawl
