// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <thread>

/// Does something on another thread after 10 ms, so that this thread waits for it meanwhile. The
/// destructor waits until it is done.
class Later {
 public:
  explicit Later(std::function<void()> action);
  ~Later() { thread_.join(); }
  Later(const Later&) = delete;
  Later& operator=(const Later&) = delete;

 private:
  std::thread thread_;
};
