// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "pawl/async/future_core.hpp"

namespace pawl {

/// What a `Future<void>` has for a value.
struct Nothing {};

/// A future's state with its value.
template <typename Value>
class FutureState : public FutureCore {
  static_assert(!std::is_reference_v<Value>, "a future has a value; use a pointer");

 public:
  using Stored = std::conditional_t<std::is_void_v<Value>, Nothing, Value>;

  FutureState(FutureHub& hub, Place place) noexcept : FutureCore(hub, place) {}

  /// Finishes it. What the value's constructor throws leaves it pending.
  template <typename... Arguments>
  void set_value(Arguments&&... arguments) {
    ::new (static_cast<void*>(std::addressof(value_)))
        Stored(std::forward<Arguments>(arguments)...);
    finish(FutureStatus::fulfilled);
  }
  /// The value; it must be fulfilled.
  Stored& value() noexcept { return value_; }

  /// Finishes it as `source` was finished: the value moves when nobody else may look at it, or when
  /// it can't be copied. A value that is returnable stays so. What copying it throws is the error.
  void set_from(FutureState& source) {
    if (source.status() != FutureStatus::fulfilled) return fail_as(source);
    bool is_moved = true;
    try {
      if constexpr (std::is_copy_constructible_v<Stored>) is_moved = !source.is_shared();
      take_value(source, is_moved);
    } catch (...) {
      return fail(std::current_exception());
    }
    if (source.is_returnable()) {
      origin_ = source.origin_ ? source.origin_ : FutureRef<FutureState>(&source);
      is_borrowed_ = is_moved && (!source.origin_ || source.is_borrowed_);
      source.is_borrowed_ = source.is_borrowed_ && !is_moved;
      make_returnable();
    } else {
      source.look();
    }
    finish(FutureStatus::fulfilled);
  }
  /// A value that was taken from here comes back, since nobody has looked at it.
  void take_back(Stored&& value) noexcept {
    value_.~Stored();
    ::new (static_cast<void*>(std::addressof(value_))) Stored(std::move(value));
  }

 protected:
  ~FutureState() override {}

  void on_look() noexcept override {
    if (origin_) origin_->look();
  }
  void on_dispose() noexcept override {
    if (status() != FutureStatus::fulfilled) return;
    const FutureRef<FutureState> origin = std::move(origin_);
    if (origin && is_borrowed_ && !origin->is_looked_at()) origin->take_back(std::move(value_));
    value_.~Stored();
  }

 private:
  void take_value(FutureState& source, bool is_moved) {
    void* place = static_cast<void*>(std::addressof(value_));
    if constexpr (std::is_copy_constructible_v<Stored>) {
      if (!is_moved) {
        ::new (place) Stored(std::as_const(source.value()));
        return;
      }
    }
    ::new (place) Stored(std::move(source.value()));
  }

  FutureRef<FutureState> origin_;  // where a returnable value was first; none: here
  bool is_borrowed_ = false;       // true exactly when that value was moved here
  union {
    Stored value_;  // there is one exactly when it is fulfilled and not disposed
  };
};

/// The most derived class of a state: knows its size.
template <typename State>
class Made final : public State {
 public:
  using State::State;

 private:
  void destroy() noexcept override {
    FutureHub& hub = this->hub();
    this->~Made();
    FutureCore::free(hub, this, sizeof(Made), alignof(Made));
  }
};

/// Makes one out of the loop's pool.
template <typename Type, typename... Arguments>
Type* make_in_pool(FutureHub& hub, Arguments&&... arguments) {
  void* memory = FutureCore::allocate(hub, sizeof(Type), alignof(Type));
  try {
    return ::new (memory) Type(hub, std::forward<Arguments>(arguments)...);
  } catch (...) {
    FutureCore::free(hub, memory, sizeof(Type), alignof(Type));
    throw;
  }
}

/// A pending state, with the one reference of whoever will finish it.
template <typename State, typename... Arguments>
State* make_state(FutureHub& hub, Arguments&&... arguments) {
  return make_in_pool<Made<State>>(hub, std::forward<Arguments>(arguments)...);
}

}  // namespace pawl
