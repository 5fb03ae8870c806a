// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace pawl {

/// Who stands at the other end of a Unix socket: unix(7), SO_PEERCRED. As of `connect` or `listen`.
struct PeerCredentials {
  int process = 0;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
};

}  // namespace pawl
