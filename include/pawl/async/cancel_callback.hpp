// SPDX-License-Identifier: MIT
#pragma once

#include <memory>

#include "pawl/async/future_core.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"

namespace pawl {

/// What a promise wants to be told of its future's cancellation. For the library's own classes.
///
/// Owns:    the callback, and room to post it, so that a cancellation needs no memory.
/// Threads: the loop's; `post` may come from another one in debug mode.
class PAWL_API CancelCallback {
 public:
  CancelCallback() noexcept = default;  ///< none
  /// Throws `std::bad_alloc`, and then nothing has changed.
  CancelCallback(const FutureCore& core, Function<void()> callback);

  /// Has the loop call it, if there is one and the loop is there. Afterwards there is none.
  void post(const FutureCore& core) noexcept;
  void reset() noexcept { parts_.reset(); }

 private:
  struct Parts;

  std::shared_ptr<Parts> parts_;  // shared with what is posted
};

}  // namespace pawl
