// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "pawl/async/child_waiters.hpp"
#include "pawl/async/future.hpp"
#include "pawl/core/error.hpp"
#include "pawl/core/place.hpp"

namespace pawl {

class EventLoop;

/// What the futures of one `as_completed` share; gone with the last child.
template <typename Value>
class Completions {
 public:
  static std::vector<Future<Value>> start(EventLoop& loop,
                                          const std::vector<Future<Value>>& children, Place place) {
    std::vector<Future<Value>> outputs;
    if (children.empty()) return outputs;
    struct Free {
      void operator()(Completions* completions) const { delete completions; }
    };
    std::unique_ptr<Completions, Free> shared(new Completions);
    outputs.reserve(children.size());
    shared->outputs_.reserve(children.size());
    shared->waiters_.reserve(children.size());
    try {
      while (outputs.size() < children.size()) {
        outputs.emplace_back(make_state<FutureState<Value>>(FutureCore::hub_of(loop), place));
      }
    } catch (...) {
      for (const auto& output : outputs) output.core().discard();
      throw;
    }
    for (const auto& output : outputs) shared->outputs_.push_back(output);
    shared->left_ = children.size();
    Completions& started = *shared.release();  // gone with the last child
    for (const auto& child : children) started.waiters_.wait(child.core());
    return outputs;
  }

  void on_child(FutureCore& child) {
    const Last last{*this};
    // One that was cancelled leaves its turn to the next.
    while (next_ < outputs_.size()) {
      const Future<Value> output = std::move(outputs_[next_++]);
      if (!output.done()) return output.core().set_from(static_cast<FutureState<Value>&>(child));
    }
  }
  void on_child_dropped() noexcept {
    const Last last{*this};
    while (next_ < outputs_.size()) {
      const Future<Value> output = std::move(outputs_[next_++]);
      if (!output.done()) return output.core().fail(Errc::loop_closed);
    }
  }

 private:
  struct Last {
    Completions& shared;
    ~Last() {
      if (--shared.left_ == 0) delete &shared;
    }
  };

  Completions() : waiters_(*this) {}
  ~Completions() = default;

  std::vector<Future<Value>> outputs_;
  std::size_t next_ = 0;
  std::size_t left_ = 0;
  ChildWaiters<Completions> waiters_;
};

/// As many futures as `futures`: the first is what the first of them that is done becomes, the
/// second the second, and so on. Cancelling one cancels nothing, and leaves its turn to the next.
template <typename Value>
std::vector<Future<Value>> as_completed(EventLoop& loop, const std::vector<Future<Value>>& futures,
                                        Place place = Place::here()) {
  return Completions<Value>::start(loop, futures, place);
}

}  // namespace pawl
