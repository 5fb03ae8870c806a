// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "pawl/system/system.hpp"

namespace pawl {

/// `System::send` and `recv` for who makes them with each message: where the system is the kernel
/// itself, there is nothing between.
///
/// Threads: any.
class StreamCalls {
 public:
  explicit StreamCalls(System& system);

  /// As send(2) and recv(2): the bytes, or -1, of which `result_of` tells the error if nothing else
  /// was called meanwhile.
  std::int64_t send(int fd, const void* data, std::size_t bytes) {
    if (__builtin_expect(send_ != nullptr, true)) return send_(fd, data, bytes, MSG_NOSIGNAL);
    return send_by_system(fd, data, bytes);
  }
  std::int64_t recv(int fd, void* buffer, std::size_t bytes) {
    if (__builtin_expect(recv_ != nullptr, true)) return recv_(fd, buffer, bytes, 0);
    return recv_by_system(fd, buffer, bytes);
  }

  /// What they gave. A call that a signal interrupted would block: readiness brings the next one.
  static SystemResult result_of(std::int64_t returned);

 private:
  std::int64_t send_by_system(int fd, const void* data, std::size_t bytes);
  std::int64_t recv_by_system(int fd, void* buffer, std::size_t bytes);

  System& system_;
  decltype(&::send) send_ = nullptr;  // null unless the system is the kernel itself
  decltype(&::recv) recv_ = nullptr;
};

}  // namespace pawl
