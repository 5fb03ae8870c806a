// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include "pawl/core/api.hpp"

namespace pawl {

/// Owns one file descriptor and closes it. A plain `int fd` in this library only borrows.
class PAWL_API UniqueFd {
 public:
  UniqueFd() noexcept = default;
  /// Takes `fd` over; a negative one means none.
  explicit UniqueFd(int fd) noexcept : fd_(fd < 0 ? -1 : fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  /// The descriptor, or -1. Still owned.
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  /// Gives the descriptor up, unclosed.
  int release() noexcept { return std::exchange(fd_, -1); }

  /// Closes what it has, once (never again on EINTR: on Linux the number is gone by then,
  /// close(2)), and takes `fd` instead. Leaves `errno` alone.
  void reset(int fd = -1) noexcept;

 private:
  int fd_ = -1;
};

}  // namespace pawl
