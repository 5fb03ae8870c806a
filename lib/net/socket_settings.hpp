// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <system_error>

#include "pawl/net/endpoint.hpp"
#include "pawl/net/socket_options.hpp"

namespace pawl {

class System;

/// What setting up a socket came to: no error, or which step failed.
struct SettingResult {
  std::error_code error;
  std::string_view phase;
};

/// Sets what `options` ask for on a stream socket of `family`. Stops at the first failure.
SettingResult apply_settings(System& system, int fd, const SocketOptions& options,
                             Endpoint::Family family);

/// Makes a socket that others have made non-blocking, and tells whom it is connected to. Refuses
/// what is no connected stream socket; one that was reset meanwhile is one while something of it
/// can be read.
SettingResult prepare_stream(System& system, int fd, Endpoint& peer);

}  // namespace pawl
