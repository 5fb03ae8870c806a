// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <exception>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

#include "pawl/async/child_waiters.hpp"
#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"
#include "pawl/loop/outcome.hpp"

namespace pawl {

class EventLoop;

/// `gather(loop, futures, return_exceptions)`
struct ReturnExceptions {};
inline constexpr ReturnExceptions return_exceptions{};

/// The future of `gather`. `Children` holds them, and makes the result of them in the end.
template <typename Result, typename Children>
class GatherState : public FutureState<Result> {
 public:
  GatherState(FutureHub& hub, Place place, Children&& children)
      : FutureState<Result>(hub, place), children_(std::move(children)), waiters_(*this) {}

  /// Children that are done already aren't waited for.
  void start() {
    const FutureRef<FutureCore> keep(this);
    if (children_.all_fulfilled()) return finish_if_complete();
    children_.for_each([this](FutureCore& child) {
      if (child.is_pending()) ++left_;
      if (!child.is_pending()) check(child);
    });
    if (!this->is_pending()) left_ = 0;  // failed already: the others are nobody's business
    if (!this->is_pending()) return children_.clear();
    if (left_ == 0) return finish_if_complete();
    waiters_.reserve(left_);
    children_.for_each([this](FutureCore& child) {
      if (!child.is_pending()) return;
      this->retain();
      waiters_.wait(child);
    });
  }

  void on_child(FutureCore& child) {
    const FutureRef<FutureCore> keep(this);
    this->release();
    --left_;
    try {
      check(child);
      finish_if_complete();
    } catch (const std::bad_alloc&) {
      if (this->is_pending()) this->fail(std::current_exception());
    }
    if (this->status() == FutureStatus::failed) children_.clear();  // what they hold goes back
  }
  void on_child_dropped() noexcept {
    const FutureRef<FutureCore> keep(this);
    this->release();
    --left_;
    if (this->is_pending()) this->fail(Errc::loop_closed);
  }

  const FutureCore* waits_for() const override { return waiters_.first(); }

 protected:
  void on_cancel() noexcept override {
    waiters_.cancel();
    children_.clear();
    const FutureRef<FutureCore> keep(this);
    for (; left_ > 0; --left_) this->release();
  }
  void on_look() noexcept override {
    children_.for_each([](FutureCore& child) { child.look(); });
  }
  void on_dispose() noexcept override {
    const bool is_fulfilled = this->status() == FutureStatus::fulfilled;
    if (this->is_returnable() && is_fulfilled && !this->is_looked_at()) {
      children_.give_back(this->value());
    }
    children_.clear();
    FutureState<Result>::on_dispose();
  }

 private:
  /// The first failure is the gather's. Later ones have been looked at by it.
  void check(FutureCore& child) {
    if (child.status() == FutureStatus::fulfilled || !Children::fails_early) return;
    child.look();
    if (!this->is_pending()) return;
    if (child.status() == FutureStatus::cancelled) return this->fail(child.exception());
    this->fail_as(child);
  }
  void finish_if_complete() {
    if (left_ > 0 || !this->is_pending()) return;
    if constexpr (std::is_void_v<Result>) {
      children_.take();
      this->set_value();
    } else {
      bool is_returnable = false;
      children_.for_each([&](FutureCore& child) { is_returnable |= child.is_returnable(); });
      auto values = children_.take();
      if (!is_returnable) return end_with(std::move(values));
      this->make_returnable();
      return this->set_value(std::move(values));  // the children are kept, for what goes back
    }
    children_.clear();
  }
  template <typename Values>
  void end_with(Values&& values) {
    this->set_value(std::move(values));
    children_.clear();
  }

  Children children_;
  ChildWaiters<GatherState> waiters_;
  std::size_t left_ = 0;  // children that are waited for; each has a reference
};

/// The children of a gather, all of one type.
template <typename Value>
struct GatheredFutures {
  std::vector<Future<Value>> futures;

  template <typename Visit>
  void for_each(Visit visit) const {
    for (const auto& future : futures) visit(future.core());
  }
  bool all_fulfilled() const {
    for (const auto& future : futures) {
      if (future.core().status() != FutureStatus::fulfilled) return false;
    }
    return true;
  }
  void clear() noexcept { const std::vector<Future<Value>> gone = std::move(futures); }
};

/// Those of a gather that gives their values.
template <typename Value>
struct GatheredValues : GatheredFutures<Value> {
  using GatheredFutures<Value>::futures;
  static constexpr bool fails_early = true;
  auto take() {
    if constexpr (std::is_void_v<Value>) {
      for (const auto& future : futures) future.core().look();
    } else {
      std::vector<Value> values;
      values.reserve(futures.size());
      for (auto& future : futures) {
        if (future.core().is_returnable()) {
          values.push_back(borrow_value(future.core()));
          continue;
        }
        const Future<Value> taken = std::move(future);  // let go of while it is in the cache
        values.push_back(take_value(taken.core()));
      }
      return values;
    }
  }
  template <typename Values>
  void give_back([[maybe_unused]] Values& values) noexcept {
    if constexpr (!std::is_void_v<Value>) {
      // From the back: of one that is there twice, the first has the value.
      for (std::size_t i = futures.size(); i-- > 0;) {
        give_value_back(futures[i].core(), std::move(values[i]));
      }
    }
  }
};

/// The same with `return_exceptions`.
template <typename Value>
struct GatheredOutcomes : GatheredFutures<Value> {
  using GatheredFutures<Value>::futures;
  static constexpr bool fails_early = false;
  std::vector<Outcome<Value>> take() {
    std::vector<Outcome<Value>> outcomes;
    outcomes.reserve(futures.size());
    for (const auto& future : futures) {
      const auto look = [&]() -> Value {
        if (future.core().status() != FutureStatus::fulfilled) future.core().throw_failure();
        if constexpr (!std::is_void_v<Value>) return borrow_value(future.core());
      };
      outcomes.push_back(Outcome<Value>::of(look));
    }
    return outcomes;
  }
  void give_back(std::vector<Outcome<Value>>& outcomes) noexcept {
    if constexpr (!std::is_void_v<Value>) {
      for (std::size_t i = futures.size(); i-- > 0;) {
        if (outcomes[i]) give_value_back(futures[i].core(), outcomes[i].get());
      }
    }
  }
};

/// The children of a gather of different types.
template <typename... Values>
struct GatheredTuple {
  static constexpr bool fails_early = true;
  std::tuple<Future<Values>...> futures;

  template <typename Visit>
  void for_each(Visit visit) const {
    std::apply([&](const auto&... each) { (visit(each.core()), ...); }, futures);
  }
  bool all_fulfilled() const {
    const auto is_fulfilled = [](const auto& future) {
      return future.core().status() == FutureStatus::fulfilled;
    };
    return std::apply([&](const auto&... each) { return (is_fulfilled(each) && ...); }, futures);
  }
  std::tuple<typename FutureState<Values>::Stored...> take() {
    return std::apply(
        [](const auto&... each) {
          return std::tuple<typename FutureState<Values>::Stored...>{borrow_value(each.core())...};
        },
        futures);
  }
  template <typename Result>
  void give_back(Result& values) noexcept {
    give_back(values, std::index_sequence_for<Values...>());
  }
  template <typename Result, std::size_t... index>
  void give_back(Result& values, std::index_sequence<index...>) noexcept {
    (give_value_back(std::get<index>(futures).core(), std::move(std::get<index>(values))), ...);
  }
  void clear() noexcept { const std::tuple<Future<Values>...> gone = std::move(futures); }
};

template <typename Result, typename Children>
Future<Result> start_gather(EventLoop& loop, Children children, Place place) {
  auto* state = make_state<GatherState<Result, Children>>(FutureCore::hub_of(loop), place,
                                                          std::move(children));
  return start_future<Result>(state, [&] { state->start(); });
}

/// The values of all `futures`, in their order; of none at once. `Future<void>` gives `void`.
///
/// The first of them that fails makes it fail at once; the others go on. One that was cancelled
/// counts as failed, with `CancelledError`. Cancelling the gather cancels each child once. The same
/// future may be there twice.
template <typename Value>
auto gather(EventLoop& loop, std::vector<Future<Value>> futures, Place place = Place::here()) {
  using Result = decltype(std::declval<GatheredValues<Value>&>().take());
  return start_gather<Result>(loop, GatheredValues<Value>{{std::move(futures)}}, place);
}

/// The same, but failures are among the results: `std::vector<Outcome<Value>>`.
template <typename Value>
Future<std::vector<Outcome<Value>>> gather(EventLoop& loop, std::vector<Future<Value>> futures,
                                           ReturnExceptions, Place place = Place::here()) {
  return start_gather<std::vector<Outcome<Value>>>(
      loop, GatheredOutcomes<Value>{{std::move(futures)}}, place);
}

/// The same for futures of different types: a `std::tuple`, with `Nothing` for `void`.
template <typename First, typename... Values>
auto gather(EventLoop& loop, Future<First> first, Future<Values>... futures) {
  using Result =
      std::tuple<typename FutureState<First>::Stored, typename FutureState<Values>::Stored...>;
  const Place place = first.core().place();
  return start_gather<Result>(
      loop, GatheredTuple<First, Values...>{{std::move(first), std::move(futures)...}}, place);
}

}  // namespace pawl
