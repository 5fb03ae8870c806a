// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "pawl/net/endpoint.hpp"

namespace pawl {

class System;

/// Puts IPv4 and IPv6 addresses into the order in which they are to be tried: RFC 6724 §6, as
/// getaddrinfo(3) does it. Asks the system from which address each would be reached; no packet is
/// sent. What has the same rank keeps its order.
void sort_addresses(System& system, std::vector<Endpoint>& addresses);

}  // namespace pawl
