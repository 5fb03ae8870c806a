// SPDX-License-Identifier: MIT
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>

#include "pawl/system/system.hpp"

namespace pawl {

/// `System::send` and `recv` for who makes them with each message: without a virtual call where the
/// system is the kernel itself.
///
/// Threads: any.
class StreamCalls {
 public:
  explicit StreamCalls(System& system) : system_(system), is_real_(&system == &System::real()) {}

  SystemResult send(int fd, const void* data, std::size_t bytes) {
    if (is_real_) {
      const ssize_t sent = send_once(fd, data, bytes);
      if (is_final(sent)) return result_of(sent);
    }
    return system_.send(fd, data, bytes);
  }

  SystemResult recv(int fd, void* buffer, std::size_t bytes) {
    if (is_real_) {
      const ssize_t received = recv_once(fd, buffer, bytes);
      if (is_final(received)) return result_of(received);
    }
    return system_.recv(fd, buffer, bytes);
  }

 private:
  // The calls as they are: -1 is an errno.
  static ssize_t send_once(int fd, const void* data, std::size_t bytes);
  static ssize_t recv_once(int fd, void* buffer, std::size_t bytes);

  static bool is_final(ssize_t returned) {
    return __builtin_expect(returned >= 0, true) || errno != EINTR;
  }
  static SystemResult result_of(ssize_t returned) {
    return __builtin_expect(returned >= 0, true) ? SystemResult{returned, 0}
                                                 : SystemResult{-1, errno};
  }

  System& system_;
  const bool is_real_;
};

}  // namespace pawl
