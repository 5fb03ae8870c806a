// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "pawl/system/system.hpp"

namespace pawl {

/// send(2) and recv(2) for who makes them with each message: where the system is the kernel itself,
/// there is nothing between.
///
/// Where it isn't, nothing is sent or received, and what comes back is an error of no meaning: who
/// sees one asks `are_kernels`, and goes by `System` when they aren't. So nobody else has to ask.
///
/// Threads: any.
class StreamCalls {
 public:
  explicit StreamCalls(const System& system);

  bool are_kernels() const;

  /// The bytes, or -1, of which `result_of` tells the error if nothing else was called meanwhile.
  std::int64_t send(int fd, const void* data, std::size_t bytes) const {
    return send_(fd, data, bytes, MSG_NOSIGNAL);
  }
  std::int64_t recv(int fd, void* buffer, std::size_t bytes) const {
    return recv_(fd, buffer, bytes, 0);
  }

  /// What they gave. A call that a signal interrupted would block: readiness brings the next one.
  static SystemResult result_of(std::int64_t returned);

 private:
  decltype(&::send) send_;
  decltype(&::recv) recv_;
};

}  // namespace pawl
