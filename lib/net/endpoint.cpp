// SPDX-License-Identifier: MIT
#include "pawl/net/endpoint.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <stdexcept>

#include "net/socket_address.hpp"

namespace pawl {
namespace {

constexpr std::string_view unix_prefix = "unix:";
constexpr std::size_t longest_path = sizeof(sockaddr_un::sun_path) - 1;

[[noreturn]] void throw_invalid(std::string_view text, const char* reason) {
  std::string shown(text);
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  std::replace_if(shown.begin(), shown.end(), is_control, '?');  // what() would end at a NUL
  throw std::invalid_argument("Endpoint: \"" + shown + "\": " + reason +
                              " (like 127.0.0.1:80, [::1]:80, unix:/run/x or unix:@name)");
}

std::uint16_t parse_port(std::string_view digits, std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    throw_invalid(text, "the port must be a number from 0 to 65535");
  }
  return port;
}

/// The number of the interface "eth0" or "2"; 0 when there is none.
std::uint32_t parse_scope(const std::string& name) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) return number;
  return ::if_nametoindex(name.c_str());
}

std::string scope_name(std::uint32_t scope) {
  char name[IF_NAMESIZE];
  return ::if_indextoname(scope, name) != nullptr ? std::string(name) : std::to_string(scope);
}

}  // namespace

Endpoint Endpoint::parse(std::string_view text) {
  if (text.substr(0, unix_prefix.size()) == unix_prefix) {
    const std::string_view name = text.substr(unix_prefix.size());
    const bool is_abstract = !name.empty() && name[0] == '@';
    Endpoint endpoint;
    endpoint.family_ = is_abstract ? Family::unix_abstract : Family::unix_path;
    endpoint.path_ = name.substr(is_abstract ? 1 : 0);
    if (endpoint.path_.empty()) throw_invalid(text, "the name is empty");
    if (endpoint.path_.size() > longest_path) throw_invalid(text, "the name is over 107 bytes");
    if (endpoint.path_.find('\0') != std::string::npos) throw_invalid(text, "NUL in the name");
    return endpoint;
  }
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) throw_invalid(text, "there is no port");
  std::string_view host = text.substr(0, colon);
  const bool is_bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (is_bracketed) host = host.substr(1, host.size() - 2);
  if (is_bracketed != (host.find(':') != std::string_view::npos)) {
    throw_invalid(text, "an IPv6 address stands in brackets, and nothing else does");
  }
  const std::uint16_t port = parse_port(text.substr(colon + 1), text);
  return parse_address(host, port, text);
}

Endpoint Endpoint::from_address(std::string_view address, std::uint16_t port) {
  return parse_address(address, port, address);
}

Endpoint Endpoint::parse_address(std::string_view address, std::uint16_t port,
                                 std::string_view text) {
  if (address.find('\0') != std::string_view::npos) throw_invalid(text, "NUL in the address");
  const auto percent = address.find('%');
  const std::string digits(address.substr(0, percent));
  Endpoint endpoint;
  endpoint.port_ = port;
  if (percent == std::string_view::npos &&
      ::inet_pton(AF_INET, digits.c_str(), endpoint.address_.data()) == 1) {
    endpoint.family_ = Family::ipv4;
    return endpoint;
  }
  if (::inet_pton(AF_INET6, digits.c_str(), endpoint.address_.data()) != 1) {
    throw_invalid(text, "not an IPv4 or IPv6 address");
  }
  endpoint.family_ = Family::ipv6;
  if (percent != std::string_view::npos) {
    endpoint.scope_ = parse_scope(std::string(address.substr(percent + 1)));
    if (endpoint.scope_ == 0) throw_invalid(text, "there is no such interface");
  }
  return endpoint;
}

Endpoint Endpoint::loopback(std::uint16_t port) { return from_address("127.0.0.1", port); }

Endpoint Endpoint::loopback_ipv6(std::uint16_t port) { return from_address("::1", port); }

Endpoint Endpoint::any(std::uint16_t port) { return from_address("0.0.0.0", port); }

Endpoint Endpoint::from_sockaddr(const sockaddr* address, unsigned bytes) {
  Endpoint endpoint;
  if (address == nullptr || bytes < sizeof(sa_family_t)) return endpoint;
  if (address->sa_family == AF_INET && bytes >= sizeof(sockaddr_in)) {
    sockaddr_in in{};
    std::memcpy(&in, address, sizeof in);
    endpoint.family_ = Family::ipv4;
    endpoint.port_ = ntohs(in.sin_port);
    std::memcpy(endpoint.address_.data(), &in.sin_addr, sizeof in.sin_addr);
  } else if (address->sa_family == AF_INET6 && bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in6{};
    std::memcpy(&in6, address, sizeof in6);
    endpoint.family_ = Family::ipv6;
    endpoint.port_ = ntohs(in6.sin6_port);
    endpoint.scope_ = in6.sin6_scope_id;
    std::memcpy(endpoint.address_.data(), &in6.sin6_addr, sizeof in6.sin6_addr);
  } else if (address->sa_family == AF_UNIX) {
    const char* path = reinterpret_cast<const char*>(address) + offsetof(sockaddr_un, sun_path);
    const std::size_t path_bytes =
        bytes - std::min<std::size_t>(bytes, offsetof(sockaddr_un, sun_path));
    if (path_bytes == 0) return endpoint;
    const bool is_abstract = path[0] == '\0';
    endpoint.family_ = is_abstract ? Family::unix_abstract : Family::unix_path;
    endpoint.path_ = is_abstract ? std::string(path + 1, path_bytes - 1)
                                 : std::string(path, ::strnlen(path, path_bytes));
  }
  return endpoint;
}

Endpoint Endpoint::with_port(std::uint16_t port) const {
  Endpoint endpoint = *this;
  if (family_ == Family::ipv4 || family_ == Family::ipv6) endpoint.port_ = port;
  return endpoint;
}

std::string Endpoint::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  switch (family_) {
    case Family::none: return "-";
    case Family::ipv4: return ::inet_ntop(AF_INET, address_.data(), text, sizeof text);
    case Family::ipv6:
      ::inet_ntop(AF_INET6, address_.data(), text, sizeof text);
      return scope_ == 0 ? text : text + ("%" + scope_name(scope_));
    case Family::unix_path: return path_;
    case Family::unix_abstract: return "@" + path_;
  }
  return "-";
}

std::string Endpoint::to_string() const {
  switch (family_) {
    case Family::none: return "-";
    case Family::ipv4: return host() + ":" + std::to_string(port_);
    case Family::ipv6: return "[" + host() + "]:" + std::to_string(port_);
    default: return std::string(unix_prefix) + host();
  }
}

bool operator==(const Endpoint& a, const Endpoint& b) {
  return a.family_ == b.family_ && a.port_ == b.port_ && a.scope_ == b.scope_ &&
         a.address_ == b.address_ && a.path_ == b.path_;
}

SocketAddress::SocketAddress(const Endpoint& endpoint) : bytes_(0) {
  if (endpoint.family_ == Endpoint::Family::ipv4) {
    auto& in = reinterpret_cast<sockaddr_in&>(storage_);
    in.sin_family = AF_INET;
    in.sin_port = htons(endpoint.port_);
    std::memcpy(&in.sin_addr, endpoint.address_.data(), sizeof in.sin_addr);
    bytes_ = sizeof in;
  } else if (endpoint.family_ == Endpoint::Family::ipv6) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(storage_);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(endpoint.port_);
    in6.sin6_scope_id = endpoint.scope_;
    std::memcpy(&in6.sin6_addr, endpoint.address_.data(), sizeof in6.sin6_addr);
    bytes_ = sizeof in6;
  } else if (endpoint.is_unix()) {
    auto& un = reinterpret_cast<sockaddr_un&>(storage_);
    un.sun_family = AF_UNIX;
    // An abstract name begins with NUL and ends with its length; a path ends with NUL (unix(7)).
    const bool is_abstract = endpoint.family_ == Endpoint::Family::unix_abstract;
    std::memcpy(un.sun_path + (is_abstract ? 1 : 0), endpoint.path_.data(), endpoint.path_.size());
    bytes_ = static_cast<unsigned>(offsetof(sockaddr_un, sun_path) + endpoint.path_.size() + 1);
  }
}

}  // namespace pawl
