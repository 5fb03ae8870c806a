// SPDX-License-Identifier: MIT
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>

#include "pawl/net/endpoint.hpp"

namespace pawl {

/// An address of this machine that a datagram is to come from, as the kernel wants it.
struct PacketSource {
  std::uint32_t family = 0;  // AF_INET, AF_INET6; 0: the kernel's choice
  std::uint32_t interface = 0;
  unsigned char address[16] = {};

  /// True exactly for a multicast address, or IPv4's broadcast to all.
  bool is_group() const;
  /// Makes one of `source` for a socket of `socket_family`: on one of IPv6 an IPv4 address is
  /// mapped (RFC 4291 §2.5.5.2).
  static PacketSource of(const Endpoint& source, Endpoint::Family socket_family);
};

/// Room for what ip(7) and ipv6(7) call packet info, of one datagram.
struct PacketControl {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(in6_pktinfo))];
  static_assert(sizeof(in6_pktinfo) >= sizeof(in_pktinfo));

  void set_source(msghdr& message, const PacketSource& source);
  /// Whom the datagram was sent to, with `port`; nowhere when the kernel didn't say.
  static Endpoint destination_of(const msghdr& message, std::uint16_t port);
};

}  // namespace pawl
