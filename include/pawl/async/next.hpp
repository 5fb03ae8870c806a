// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <utility>

#include "pawl/async/future.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/time.hpp"

namespace pawl {

class TaskBase;

/// What a step of a task returns: what the task waits for before its next step.
class PAWL_API Next {
 public:
  /// The next step at once. After 256 in a row the task yields, so that the loop goes on.
  static Next go_on() noexcept { return Next(Kind::go_on); }
  /// The next step in the next pass.
  static Next yield() noexcept { return Next(Kind::yield); }
  static Next sleep(Duration duration) noexcept {
    Next next(Kind::sleep);
    next.duration_ = duration;
    return next;
  }
  /// The next step when `fd` can be read, has failed or was hung up. A descriptor that somebody
  /// reads already fails the task with `Errc::already_registered`, one that can't be watched with
  /// the selector's error.
  static Next readable(int fd) noexcept {
    Next next(Kind::readable);
    next.fd_ = fd;
    return next;
  }
  static Next writable(int fd) noexcept {
    Next next(Kind::writable);
    next.fd_ = fd;
    return next;
  }
  /// The next step when `future` is done, however; the step looks at it, so keep a copy. Cancelling
  /// the task cancels the future.
  template <typename Value>
  static Next future(const Future<Value>& future) {
    return Next(future.core());
  }
  /// The same for the result of another task, of the same loop. `task.future()` has its result.
  static Next task(const TaskBase& task) noexcept;
  /// Nothing more: the task is done. `Task::done(value)` for one that has a value.
  static Next done() noexcept { return Next(Kind::done); }

 private:
  friend class TaskBase;
  enum class Kind : std::uint8_t { go_on, yield, sleep, readable, writable, future, done };

  explicit Next(Kind kind) noexcept : kind_(kind) {}
  explicit Next(FutureCore& future) noexcept : kind_(Kind::future), future_(&future) {}

  Kind kind_;
  int fd_ = -1;
  Duration duration_{};
  FutureRef<FutureCore> future_;
};

}  // namespace pawl
