// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string_view>

#include "pawl/net/endpoint.hpp"

namespace pawl {

/// What a text that is to name a host turns out to be: an address (port 0), a name, or neither.
struct HostName {
  enum class Kind : std::uint8_t { address, name, bad };

  static HostName parse(std::string_view host);

  Kind kind = Kind::bad;
  Endpoint address;
};

/// True exactly for "localhost" and the names below it, in any case, with a last dot or without.
bool is_localhost(std::string_view name);
/// The same for "onion": names of Tor, which no name server may be asked about (RFC 7686).
bool is_onion(std::string_view name);

}  // namespace pawl
