// SPDX-License-Identifier: MIT
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"

namespace pawl {

/// Threads that run what is posted to them, first in, first out.
///
/// For work that computes or blocks; see `EventLoop::run_in_executor` to get the result back.
///
/// Threads:  all of it may be used from any thread.
/// Promises: a thread is started only when a job finds none idle.
/// Fails:    a job must not throw; what leaves it ends the program (`std::terminate`).
class PAWL_API ThreadPool {
 public:
  /// At most `threads` of them (at least 1), which show up in `top -H` as `name`.
  explicit ThreadPool(std::size_t threads, std::string name = "pawl-pool");
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  /// Destroys what hasn't begun and waits for what has.
  ~ThreadPool();

  /// Throws `std::system_error` when the first thread can't be started.
  void post(Function<void()> work);

  /// How many threads have been started.
  std::size_t size() const;

 private:
  void run_jobs();
  void start_thread();
  bool begin_waking();

  const std::size_t limit_;
  const std::string name_;
  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::deque<Function<void()>> jobs_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool is_waking_ = false;  // true exactly while one of the idle ones was woken and isn't up yet
  bool is_closing_ = false;
};

}  // namespace pawl
