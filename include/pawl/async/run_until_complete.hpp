// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include "pawl/async/child_waiters.hpp"
#include "pawl/async/future.hpp"
#include "pawl/core/api.hpp"

namespace pawl {

class EventLoop;

/// For `run_until_complete`: runs until `core` is done, or throws.
PAWL_API void run_until_done(EventLoop& loop, FutureCore& core);

/// Runs `loop` until `future` is done, and gives its value or throws what it has failed with.
///
/// Throws `std::runtime_error` when the loop runs dry first, or is stopped: its text says what the
/// future and the loop's tasks are waiting for. An exception that leaves a callback leaves this
/// too. The value is moved out when nobody else holds the future.
template <typename Value>
Value run_until_complete(EventLoop& loop, Future<Value> future) {
  FutureState<Value>& state = future.core();
  run_until_done(loop, state);
  if (state.status() != FutureStatus::fulfilled) state.throw_failure();
  state.look();
  if constexpr (!std::is_void_v<Value>) return take_value(state);
}

}  // namespace pawl
