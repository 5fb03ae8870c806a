// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"

namespace pawl {

/// Threads that run what is posted to them, first in, first out.
///
/// For work that computes or blocks; see `EventLoop::run_in_executor` to get the result back.
///
/// Threads:  all of it may be used from any thread. Its last owner may be one of its own jobs.
/// Promises: a thread is started only when a job finds none idle.
/// Fails:    a job must not throw; what leaves it ends the program (`std::terminate`).
///           In a forked child it has no threads: `post` throws `std::logic_error`, and destroying
///           it waits for nobody. A job that forks ends its child itself (exec, `_exit`): when it
///           returns there, the child's only thread ends, and so the child does.
class PAWL_API ThreadPool {
 public:
  /// At most `threads` of them (at least 1), which show up in `top -H` as `name`.
  explicit ThreadPool(std::size_t threads, std::string name = "pawl-pool");
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  /// Destroys what hasn't begun and waits for what has; but not for the job that it is called from,
  /// whose thread ends after it.
  ~ThreadPool();

  /// Throws `std::system_error` when the first thread can't be started; with fewer threads than
  /// there should be, a job only waits longer.
  void post(Function<void()> work);

  /// How many threads have been started.
  std::size_t size() const;

 private:
  struct Parts;

  std::shared_ptr<Parts> parts_;  // shared with the threads
};

}  // namespace pawl
