// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "pawl/core/time.hpp"

namespace pawl {

/// How the kernel is to treat a stream socket; see socket(7), ip(7), ipv6(7) and tcp(7). What is
/// zero or empty stays as the kernel has it. A Unix socket takes the buffers alone.
///
/// What a listener has, the sockets that it accepts inherit, at no cost.
struct SocketOptions {
  bool no_delay = true;   ///< small writes go out at once (TCP_NODELAY)
  Duration keep_alive{};  ///< silence before the first probe, in whole seconds; 0: no probes
  Duration keep_alive_interval{};  ///< between two probes, in whole seconds (kernel: 75 s)
  int keep_alive_probes = 0;       ///< unanswered ones that end the connection (kernel: 9)
  /// How long what was sent may stay unacknowledged until the connection fails with
  /// `std::errc::timed_out` (TCP_USER_TIMEOUT), in whole milliseconds; the kernel's way is about a
  /// quarter of an hour. It finds a peer that vanished before everything was delivered, where
  /// keep-alive finds one that vanished in silence; it also ends what keep-alive probes in vain.
  Duration user_timeout{};
  std::size_t send_buffer = 0;       ///< in bytes; the kernel takes twice that for its bookkeeping
  std::size_t receive_buffer = 0;    ///< as above
  std::uint32_t mark = 0;            ///< for routing and filters (SO_MARK); needs CAP_NET_ADMIN
  std::uint8_t type_of_service = 0;  ///< DSCP and ECN (IP_TOS, IPV6_TCLASS)
  std::string interface;             ///< the only one that is used (SO_BINDTODEVICE)
};

}  // namespace pawl
