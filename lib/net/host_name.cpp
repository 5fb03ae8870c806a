// SPDX-License-Identifier: MIT
#include "net/host_name.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace pawl {
namespace {

// RFC 1035 §2.3.4: 255 octets on the wire, which is 253 as text without the last dot.
constexpr std::size_t longest_name = 253;
constexpr std::size_t longest_label = 63;

/// No host's name has them. Bytes beyond ASCII stand for another name, the A-label (RFC 5890),
/// which getaddrinfo(3) and c-ares make each in its own way, or don't; DNS libraries read a
/// backslash as an escape; the others are what is left of a URL or an address.
bool is_forbidden(char c) {
  constexpr std::string_view marks = "\"#%/<>?@[\\]^`{|}";
  const auto byte = static_cast<unsigned char>(c);
  return byte <= ' ' || byte >= 0x7f || marks.find(c) != std::string_view::npos;
}

std::string_view without_last_dot(std::string_view name) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  return name;
}

bool has_good_labels(std::string_view name) {
  while (true) {
    const std::size_t dot = name.find('.');
    const std::size_t size = dot == std::string_view::npos ? name.size() : dot;
    if (size == 0 || size > longest_label) return false;
    if (dot == std::string_view::npos) return true;
    name.remove_prefix(dot + 1);
  }
}

/// True exactly when the last label is a number: no name ends so (RFC 3696 §2), but "10.0.0.1",
/// "127.1" and "0x7f000001" do, which getaddrinfo(3) takes for addresses.
bool ends_in_a_number(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  std::string_view label = dot == std::string_view::npos ? name : name.substr(dot + 1);
  const bool is_hex = label.size() >= 2 && label[0] == '0' && (label[1] | 0x20) == 'x';
  if (is_hex) label.remove_prefix(2);
  return std::all_of(label.begin(), label.end(), [=](char c) {
    return (c >= '0' && c <= '9') || (is_hex && (c | 0x20) >= 'a' && (c | 0x20) <= 'f');
  });
}

HostName ipv4_address(const std::string& text) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  if (::inet_aton(text.c_str(), &in.sin_addr) == 0) return {};
  return {HostName::Kind::address,
          Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&in), sizeof in)};
}

HostName ipv6_address(std::string_view text) {
  try {
    return {HostName::Kind::address, Endpoint::from_address(text, 0)};
  } catch (const std::invalid_argument&) {
    return {};
  }
}

}  // namespace

HostName HostName::parse(std::string_view host) {
  const std::string_view name = without_last_dot(host);
  if (name.size() > longest_name) return {};
  if (name.find(':') != std::string_view::npos) return ipv6_address(host);
  if (std::any_of(name.begin(), name.end(), is_forbidden)) return {};
  if (!has_good_labels(name)) return {};
  if (ends_in_a_number(name)) return ipv4_address(std::string(host));
  return {Kind::name, {}};
}

namespace {

/// True exactly when `name` is `label`, which is in small letters, or a name below it.
bool is_below(std::string_view name, std::string_view label) {
  name = without_last_dot(name);
  if (name.size() < label.size()) return false;
  const std::string_view end = name.substr(name.size() - label.size());
  const bool is_whole = name.size() == end.size() || name[name.size() - end.size() - 1] == '.';
  return is_whole && std::equal(end.begin(), end.end(), label.begin(),
                                [](char a, char b) { return (a | 0x20) == b; });
}

}  // namespace

bool is_localhost(std::string_view name) { return is_below(name, "localhost"); }

bool is_onion(std::string_view name) { return is_below(name, "onion"); }

}  // namespace pawl
