// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>

#include "pawl/core/error.hpp"

/// What a person can do about the end of a connection: "; is a server running there?"
inline const char* advice_on(std::error_code error) {
  if (error == std::errc::connection_refused) return "; is a server running there?";
  if (error == pawl::Errc::no_address) return "; the other --family may have one";
  if (error == std::errc::timed_out) return "; try again later, or with a longer --timeout";
  if (error == std::errc::network_unreachable) return "; is the network up?";
  if (error == pawl::Errc::resolve_failed) return "; is the network up?";
  if (error == pawl::Errc::host_not_found) return "; is the name spelled right?";
  if (error == std::errc::too_many_files_open) return "; ulimit -n raises the limit";
  if (error == std::errc::connection_reset || error == std::errc::broken_pipe) {
    return "; the server dropped it, and its log may say why";
  }
  return "";
}
