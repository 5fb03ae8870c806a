// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "pawl/loop/handle.hpp"

namespace pawl {

/// A ticket that cancels its callback when it goes out of scope. For members of whatever the
/// callback captures.
class ScopedHandle {
 public:
  ScopedHandle() noexcept = default;
  ScopedHandle(Handle handle) noexcept : handle_(std::move(handle)) {}
  ScopedHandle(ScopedHandle&& other) noexcept : handle_(other.release()) {}
  ScopedHandle& operator=(ScopedHandle&& other) noexcept {
    if (this != &other) {
      Handle old = std::exchange(handle_, other.release());
      old.cancel();
    }
    return *this;
  }
  ScopedHandle(const ScopedHandle&) = delete;
  ScopedHandle& operator=(const ScopedHandle&) = delete;
  ~ScopedHandle() { handle_.cancel(); }

  void cancel() { handle_.cancel(); }
  bool cancelled() const { return handle_.cancelled(); }

  /// Gives the ticket up, uncancelled.
  Handle release() noexcept { return std::exchange(handle_, Handle{}); }

 private:
  Handle handle_;
};

}  // namespace pawl
