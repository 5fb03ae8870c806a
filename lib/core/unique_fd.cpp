// SPDX-License-Identifier: MIT
#include "pawl/core/unique_fd.hpp"

#include <unistd.h>

#include <cerrno>

namespace pawl {

void UniqueFd::reset(int fd) noexcept {
  const int old = std::exchange(fd_, fd < 0 ? -1 : fd);
  if (old < 0 || old == fd_) return;
  const int saved_errno = errno;
  ::close(old);
  errno = saved_errno;
}

}  // namespace pawl
