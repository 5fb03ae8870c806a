// SPDX-License-Identifier: MIT
#pragma once

#include <future>
#include <memory>

/// Holds jobs up until a test, or somebody's destructor, lets them go.
class Gate {
 public:
  void open() { promise_.set_value(); }
  /// For the jobs.
  void wait() const { future_.wait(); }
  /// Opens it when the last copy of this is gone.
  std::shared_ptr<void> opener() {
    return {this, [](void* gate) { static_cast<Gate*>(gate)->open(); }};
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
};
