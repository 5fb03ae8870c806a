// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <utility>

#include "pawl/core/api.hpp"

namespace pawl {

struct JobState;

/// A ticket for work that was given to a thread pool; dropping it cancels nothing.
///
/// Threads: the loop's.
class PAWL_API Job {
 public:
  Job() noexcept = default;
  explicit Job(std::shared_ptr<JobState> state) noexcept : state_(std::move(state)) {}

  /// `done` won't be called. Work that hasn't begun never will, and is destroyed at once; work that
  /// is running goes on in its thread, and what it gives is dropped.
  void cancel();
  /// True exactly when a `cancel()` came before `done` was called.
  bool cancelled() const;

 private:
  std::shared_ptr<JobState> state_;
};

}  // namespace pawl
