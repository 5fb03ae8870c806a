// SPDX-License-Identifier: MIT
#pragma once

#include <sys/socket.h>

#include "pawl/net/endpoint.hpp"

namespace pawl {

/// An `Endpoint` as the system calls want it.
class SocketAddress {
 public:
  /// Room for a system call to fill in.
  SocketAddress() : bytes_(sizeof storage_) {}
  explicit SocketAddress(const Endpoint& endpoint);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage_); }
  unsigned bytes() const { return bytes_; }
  unsigned* bytes_pointer() { return &bytes_; }
  int family() const { return storage_.ss_family; }
  Endpoint endpoint() const { return Endpoint::from_sockaddr(get(), bytes_); }

 private:
  sockaddr_storage storage_{};
  unsigned bytes_;
};

}  // namespace pawl
