// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "pawl/core/api.hpp"

struct sockaddr;

namespace pawl {

/// Where a socket is: an IPv4 or IPv6 address with a port, or the name of a Unix socket. A value.
class PAWL_API Endpoint {
 public:
  enum class Family : std::uint8_t { none, ipv4, ipv6, unix_path, unix_abstract };

  /// Nowhere: what an unnamed Unix socket or an unconnected one has.
  Endpoint() = default;

  /// "127.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "unix:/run/x", "unix:@name" (abstract).
  /// Throws `std::invalid_argument`, which names the text and what is wrong with it. Names of hosts
  /// aren't looked up here.
  static Endpoint parse(std::string_view text);
  /// 127.0.0.1.
  static Endpoint loopback(std::uint16_t port);
  /// [::1].
  static Endpoint loopback_ipv6(std::uint16_t port);
  /// All IPv4 addresses of this machine.
  static Endpoint any(std::uint16_t port);
  /// An address without a port, "127.0.0.1" or "fe80::1%eth0", with one. Throws as `parse`.
  static Endpoint from_address(std::string_view address, std::uint16_t port);
  /// What a system call filled in.
  static Endpoint from_sockaddr(const sockaddr* address, unsigned bytes);

  /// The same address with another port. A Unix socket and nowhere stay as they are.
  Endpoint with_port(std::uint16_t port) const;

  Family family() const { return family_; }
  bool is_unix() const { return family_ == Family::unix_path || family_ == Family::unix_abstract; }
  /// 0 for a Unix socket.
  std::uint16_t port() const { return port_; }
  /// "127.0.0.1", "fe80::1%eth0", "/run/x", "@name".
  std::string host() const;
  /// As `parse` takes it; "-" for nowhere.
  std::string to_string() const;

  friend PAWL_API bool operator==(const Endpoint& a, const Endpoint& b);
  friend bool operator!=(const Endpoint& a, const Endpoint& b) { return !(a == b); }

 private:
  friend class SocketAddress;

  /// `text` is what the error names: all of what was to be parsed.
  static Endpoint parse_address(std::string_view address, std::uint16_t port,
                                std::string_view text);

  Family family_ = Family::none;
  std::uint16_t port_ = 0;
  std::uint32_t scope_ = 0;                  // the interface of a link-local IPv6 address
  std::array<unsigned char, 16> address_{};  // the first four for IPv4
  std::string path_;                         // of a Unix socket
};

}  // namespace pawl
