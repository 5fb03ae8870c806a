// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <system_error>

#include "pawl/core/api.hpp"
#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"

namespace pawl {

/// One address that a dial tried in vain.
struct DialAttempt {
  Endpoint peer;
  std::string_view phase;  ///< "socket", "bind", "connect" … or a socket option's name
  std::error_code error;
  Duration took{};
};

/// "[::1]:80: connect: Connection refused after 0.2 ms"
PAWL_API std::string to_string(const DialAttempt& attempt);

}  // namespace pawl
