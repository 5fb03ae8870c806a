// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "pawl/core/time.hpp"
#include "pawl/net/endpoint.hpp"

namespace pawl {

class System;

/// How names are looked up on this machine, as resolv.conf(5) says, read as the C library reads it
/// (glibc 2.36), so that c-ares does what getaddrinfo(3) does.
struct ResolverConfig {
  /// Takes what `/etc/resolv.conf` says, then the variables LOCALDOMAIN and RES_OPTIONS, in place
  /// of what is here. A file that isn't there says nothing; an error is one of this process, such
  /// as EMFILE, and leaves all as it was.
  std::error_code read(System& system);

  /// Takes over what the lines of a resolv.conf(5) say; what makes no sense is passed over.
  void take_file(std::string_view text);
  /// The words after "search".
  void take_search(std::string_view words);
  /// The words after "options".
  void take_options(std::string_view words);

  /// The names to ask for when `name` is wanted, in this order, each with its last dot.
  struct Candidates {
    std::vector<std::string> names;
    bool begins_as_is = false;  // true exactly when the first one is the name as it is
    bool ends_as_is = false;    // … and the last one, after others
  };
  Candidates candidates(std::string_view name) const;

  std::vector<Endpoint> servers;    // three at most; none: nobody was named
  std::vector<std::string> search;  // without dots at their ends; an empty one is the root
  bool has_search = false;          // true exactly when the file or a variable names suffixes
  std::size_t ndots = 1;
  Duration timeout = std::chrono::seconds(5);
  int attempts = 2;
  bool rotates = false;
  bool uses_tcp = false;
  bool asks_ipv6 = true;
  bool tries_single_labels = true;  // as they are, after the suffixes
};

}  // namespace pawl
