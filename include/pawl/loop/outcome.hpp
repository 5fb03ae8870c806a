// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <optional>
#include <utility>

namespace pawl {

/// What a piece of work gave: a value, or the exception that it threw.
template <typename Result>
class Outcome {
 public:
  Outcome() = default;

  /// Calls `work` and keeps what comes out.
  template <typename Work>
  static Outcome of(Work&& work) {
    Outcome outcome;
    try {
      outcome.value_.emplace(work());
    } catch (...) {
      outcome.exception_ = std::current_exception();
    }
    return outcome;
  }

  /// True exactly when there is a value.
  explicit operator bool() const { return value_.has_value(); }
  std::exception_ptr exception() const { return exception_; }
  /// The value; throws what the work threw.
  Result get() {
    if (exception_) std::rethrow_exception(exception_);
    return std::move(value_).value();
  }

 private:
  std::optional<Result> value_;
  std::exception_ptr exception_;
};

template <>
class Outcome<void> {
 public:
  template <typename Work>
  static Outcome of(Work&& work) {
    Outcome outcome;
    try {
      work();
    } catch (...) {
      outcome.exception_ = std::current_exception();
    }
    return outcome;
  }

  explicit operator bool() const { return exception_ == nullptr; }
  std::exception_ptr exception() const { return exception_; }
  void get() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::exception_ptr exception_;
};

}  // namespace pawl
