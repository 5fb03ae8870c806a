// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "pawl/core/time.hpp"

namespace pawl {

/// What the kernel knows of a TCP connection: tcp(7), TCP_INFO, `struct tcp_info`.
struct TcpInfo {
  Duration round_trip_time{};            ///< smoothed; 0 before the first measurement
  Duration round_trip_time_variation{};  ///< mean deviation
  std::uint32_t congestion_window = 0;   ///< in segments
  std::uint32_t segment_bytes = 0;       ///< of one segment that we send
  std::uint32_t unacknowledged = 0;      ///< segments on their way
  std::uint32_t retransmissions = 0;     ///< segments, since the beginning
  std::uint64_t bytes_acknowledged = 0;
  std::uint64_t bytes_received = 0;
};

}  // namespace pawl
