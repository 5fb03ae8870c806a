// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "pawl/async/child_waiters.hpp"
#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

enum class ReturnWhen : std::uint8_t { all_completed, first_completed, first_exception };

/// What `wait` gives: all that it was given, each in one of the two, in their order.
template <typename Value>
struct WaitResult {
  std::vector<Future<Value>> done;
  std::vector<Future<Value>> pending;
};

/// The future of `wait`.
template <typename Value>
class WaitState : public FutureState<WaitResult<Value>> {
 public:
  WaitState(FutureHub& hub, Place place, std::vector<Future<Value>>&& futures, ReturnWhen when)
      : FutureState<WaitResult<Value>>(hub, place),
        futures_(std::move(futures)),
        waiters_(*this),
        when_(when) {}

  void start(Duration timeout) {
    const FutureRef<FutureCore> keep(this);
    for (const auto& future : futures_) {
      if (!future.done()) ++left_;
      if (future.done()) look_at(future.core());
    }
    if (left_ == 0) is_over_ = true;
    if (is_over_) return end();
    waiters_.reserve(left_);
    if (timeout > Duration::zero()) {
      timer_ = this->loop().call_later(
          timeout, [this] { end(); }, this->place());
    }
    for (const auto& future : futures_) {
      if (!future.done()) waiters_.wait(future.core());
    }
  }

  void on_child(FutureCore& child) {
    --left_;
    look_at(child);
    if (is_over_ || left_ == 0) end();
  }
  void on_child_dropped() noexcept {
    if (this->is_pending()) {
      const FutureRef<FutureCore> keep(this);
      stop();
      this->fail(Errc::loop_closed);
    }
  }
  const FutureCore* waits_for() const override { return waiters_.first(); }

 protected:
  void on_cancel() noexcept override { stop(); }

 private:
  void look_at(const FutureCore& child) {
    const bool is_exception = child.status() == FutureStatus::failed;
    if (when_ == ReturnWhen::first_completed) is_over_ = true;
    if (when_ == ReturnWhen::first_exception && is_exception) is_over_ = true;
  }
  void stop() noexcept {
    timer_.cancel();
    waiters_.stop();
    const std::vector<Future<Value>> gone = std::move(futures_);
  }
  void end() {
    timer_.cancel();
    waiters_.stop();
    WaitResult<Value> result;
    try {
      for (auto& future : futures_) {
        (future.done() ? result.done : result.pending).push_back(future);
      }
    } catch (const std::bad_alloc&) {
      return this->fail(std::current_exception());
    }
    futures_.clear();
    this->set_value(std::move(result));
  }

  std::vector<Future<Value>> futures_;
  ChildWaiters<WaitState> waiters_;
  TimerHandle timer_;
  std::size_t left_ = 0;  // children that are waited for
  const ReturnWhen when_;
  bool is_over_ = false;  // true exactly when a child was what `when_` says
};

/// Waits for all of `futures`, for the first that is done, or for the first that fails (or all);
/// and for `timeout` at most, unless that is zero. It never fails for a child's or the time's sake,
/// and cancels nothing, neither then nor when it is cancelled.
template <typename Value>
Future<WaitResult<Value>> wait(EventLoop& loop, std::vector<Future<Value>> futures,
                               ReturnWhen when = ReturnWhen::all_completed,
                               Duration timeout = Duration::zero(), Place place = Place::here()) {
  auto* state =
      make_state<WaitState<Value>>(FutureCore::hub_of(loop), place, std::move(futures), when);
  return start_future<WaitResult<Value>>(state, [&] { state->start(timeout); });
}

}  // namespace pawl
