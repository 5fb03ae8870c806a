// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/net/endpoint.hpp"
#include "pawl/net/resolver.hpp"

namespace pawl {

class System;

/// Finds the addresses that a hosts(5) file has for a name, in the file's order; port 0. As
/// getaddrinfo(3) does: all lines count, case doesn't, and a name that has a line isn't asked
/// elsewhere for its other family when both are wanted.
std::vector<Endpoint> find_in_hosts(std::string_view text, std::string_view name,
                                    AddressFamily family);

/// The same in this machine's file. An error is one of this process, such as EMFILE.
std::error_code find_in_hosts(System& system, std::string_view name, AddressFamily family,
                              std::vector<Endpoint>& found);

}  // namespace pawl
