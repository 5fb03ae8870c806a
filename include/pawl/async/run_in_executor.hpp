// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <type_traits>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/event_loop.hpp"

namespace pawl {

/// The future of `run_in_executor`.
template <typename Value>
class JobFutureState : public FutureState<Value> {
 public:
  using FutureState<Value>::FutureState;

  template <typename Work>
  void start(ThreadPool& pool, Work work) {
    job_ = this->loop().run_in_executor(
        pool, std::move(work), [this](Outcome<Value>&& outcome) { on_outcome(outcome); },
        this->place());
    this->tell_of_closing();
  }

 protected:
  void on_cancel() noexcept override { job_.cancel(); }
  void on_loop_closed() noexcept override {
    job_.cancel();
    this->fail(Errc::loop_closed);
  }

 private:
  void on_outcome(Outcome<Value>& outcome) {
    if (!outcome) return this->fail(outcome.exception());
    if constexpr (std::is_void_v<Value>) {
      this->set_value();
    } else {
      try {
        this->set_value(outcome.get());
      } catch (...) {  // of the value's constructor
        this->fail(std::current_exception());
      }
    }
  }

  Job job_;
};

/// Runs `work()` on a thread of `pool`: a future for what it returns or throws.
///
/// Cancelling the future keeps work that hasn't begun from running. Work that runs goes on in its
/// thread, and what it gives is dropped. A pool that goes before the work began fails the future
/// with `std::errc::operation_canceled`. The job keeps the loop's `run()` from returning.
template <typename Work>
auto run_in_executor(EventLoop& loop, ThreadPool& pool, Work work, Place place = Place::here()) {
  using Result = std::decay_t<std::invoke_result_t<Work&>>;
  auto* state = make_state<JobFutureState<Result>>(FutureCore::hub_of(loop), place);
  return start_future<Result>(state, [&] { state->start(pool, std::move(work)); });
}

/// The same on the loop's own pool.
template <typename Work>
auto run_in_executor(EventLoop& loop, Work work, Place place = Place::here()) {
  return run_in_executor(loop, loop.thread_pool(), std::move(work), place);
}

}  // namespace pawl
