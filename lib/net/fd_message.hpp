// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <vector>

#include "pawl/core/unique_fd.hpp"

namespace pawl {

/// A message of one piece of bytes with room for descriptors: cmsg(3), SCM_RIGHTS of unix(7).
class FdMessage {
 public:
  static constexpr std::size_t most_fds = 253;  // unix(7): SCM_MAX_FD

  /// To be received.
  explicit FdMessage(iovec& piece) {
    message_.msg_iov = &piece;
    message_.msg_iovlen = 1;
    message_.msg_control = control_;
    message_.msg_controllen = sizeof control_;
  }
  /// To be sent; borrows `fds`.
  FdMessage(iovec& piece, const std::vector<UniqueFd>& fds) : FdMessage(piece) {
    const std::size_t bytes = fds.size() * sizeof(int);
    message_.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* header = CMSG_FIRSTHDR(&message_);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    unsigned char* data = CMSG_DATA(header);
    for (const UniqueFd& fd : fds) {
      const int number = fd.get();
      std::memcpy(data, &number, sizeof number);
      data += sizeof number;
    }
  }
  FdMessage(const FdMessage&) = delete;
  FdMessage& operator=(const FdMessage&) = delete;

  msghdr* get() { return &message_; }

  /// Those that came. Without memory for that they are closed.
  std::vector<UniqueFd> take_fds() {
    std::size_t count = 0;
    for_each_fd([&](int) { ++count; });
    std::vector<UniqueFd> fds;
    try {
      fds.reserve(count);
    } catch (const std::bad_alloc&) {
      for_each_fd([](int number) { const UniqueFd closed(number); });
      throw;
    }
    for_each_fd([&](int number) { fds.emplace_back(number); });
    return fds;
  }
  /// True exactly when more came than could be taken.
  bool is_truncated() const { return (message_.msg_flags & MSG_CTRUNC) != 0; }

 private:
  template <typename Visit>
  void for_each_fd(Visit visit) {
    for (cmsghdr* header = CMSG_FIRSTHDR(&message_); header != nullptr;
         header = CMSG_NXTHDR(&message_, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int number = -1;
        std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
        visit(number);
      }
    }
  }

  alignas(cmsghdr) unsigned char control_[CMSG_SPACE(most_fds * sizeof(int))] = {};
  msghdr message_{};
};

}  // namespace pawl
