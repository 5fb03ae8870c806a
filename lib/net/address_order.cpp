// SPDX-License-Identifier: MIT
// Rules 3, 4 and 7 of RFC 6724 §6 (deprecated, home, native transport) need what the kernel tells
// nobody through a socket, and have none here.
#include "net/address_order.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

/// An IPv6 address, or an IPv4 one as ::ffff:0:0/96 has it.
using Bytes = std::array<unsigned char, 16>;

struct Policy {
  Bytes prefix;
  std::size_t prefix_bits;
  int precedence;
  int label;
};

// RFC 6724 §2.1, the longest prefix first.
constexpr Policy policies[] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, 50, 0},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, 35, 4},
    {{}, 96, 1, 3},
    {{0x20, 0x01}, 32, 5, 5},
    {{0x20, 0x02}, 16, 30, 2},
    {{0x3f, 0xfe}, 16, 1, 12},
    {{0xfe, 0xc0}, 10, 1, 11},
    {{0xfc}, 7, 3, 13},
    {{}, 0, 40, 1},
};

constexpr int link_local = 2;
constexpr int site_local = 5;
constexpr int global = 14;

std::size_t common_bits(const Bytes& a, const Bytes& b) {
  std::size_t bits = 0;
  while (bits < 128 && ((a[bits / 8] ^ b[bits / 8]) >> (7 - bits % 8) & 1) == 0) ++bits;
  return bits;
}

const Policy& policy_of(const Bytes& address) {
  return *std::find_if(std::begin(policies), std::end(policies), [&](const Policy& each) {
    return common_bits(address, each.prefix) >= each.prefix_bits;
  });
}

bool is_ipv4(const Bytes& address) { return policy_of(address).label == 4; }

/// RFC 6724 §3.1 and §3.2.
int scope_of(const Bytes& address) {
  if (is_ipv4(address)) {
    const bool is_link_local = address[12] == 127 || (address[12] == 169 && address[13] == 254);
    return is_link_local ? link_local : global;
  }
  if (address[0] == 0xff) return address[1] & 0x0f;  // multicast says it itself
  const bool is_loopback = policy_of(address).label == 0;
  if (is_loopback || (address[0] == 0xfe && (address[1] & 0xc0) == 0x80)) return link_local;
  return policy_of(address).label == 11 ? site_local : global;
}

Bytes bytes_of(const SocketAddress& address) {
  Bytes bytes{};
  if (address.family() == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(*address.get());
    std::memcpy(bytes.data(), &in6.sin6_addr, bytes.size());
  } else {
    const auto& in = reinterpret_cast<const sockaddr_in&>(*address.get());
    bytes[10] = bytes[11] = 0xff;
    std::memcpy(bytes.data() + 12, &in.sin_addr, sizeof in.sin_addr);
  }
  return bytes;
}

/// Where packets to `destination` would come from; none where no route leads.
std::optional<Bytes> source_of(System& system, const SocketAddress& destination) {
  const SystemResult made = system.socket(destination.family(), SOCK_DGRAM, IPPROTO_UDP);
  if (!made.ok()) return std::nullopt;
  std::optional<Bytes> source;
  SocketAddress local;
  if (system.connect(made.fd(), destination.get(), destination.bytes()).ok() &&
      system.getsockname(made.fd(), local.get(), local.bytes_pointer()).ok()) {
    source = bytes_of(local);
  }
  system.close(made.fd());
  return source;
}

/// What the rules look at.
struct Candidate {
  Candidate(System& system, Endpoint&& endpoint_) : endpoint(std::move(endpoint_)) {
    const SocketAddress address(endpoint);
    const Bytes bytes = bytes_of(address);
    const Policy& policy = policy_of(bytes);
    precedence = policy.precedence;
    scope = scope_of(bytes);
    const std::optional<Bytes> source = source_of(system, address);
    if (!source) return;
    is_reachable = true;
    has_source_scope = scope_of(*source) == scope;
    has_source_label = policy_of(*source).label == policy.label;
    if (!is_ipv4(bytes)) matching_bits = common_bits(bytes, *source);
  }

  Endpoint endpoint;
  bool is_reachable = false;
  bool has_source_scope = false;  // true exactly when its scope is its source's
  bool has_source_label = false;  // … and its label
  int precedence = 0;
  int scope = 0;
  std::size_t matching_bits = 0;  // with its source; 0 for IPv4
};

/// True exactly when `a` is to be tried before `b`.
bool comes_before(const Candidate& a, const Candidate& b) {
  if (a.is_reachable != b.is_reachable) return a.is_reachable;              // rule 1
  if (a.has_source_scope != b.has_source_scope) return a.has_source_scope;  // rule 2
  if (a.has_source_label != b.has_source_label) return a.has_source_label;  // rule 5
  if (a.precedence != b.precedence) return a.precedence > b.precedence;     // rule 6
  if (a.scope != b.scope) return a.scope < b.scope;                         // rule 8
  return a.matching_bits > b.matching_bits;                                 // rule 9
}

}  // namespace

void sort_addresses(System& system, std::vector<Endpoint>& addresses) {
  if (addresses.size() < 2) return;
  std::vector<Candidate> candidates;
  candidates.reserve(addresses.size());
  for (Endpoint& address : addresses) candidates.emplace_back(system, std::move(address));
  std::stable_sort(candidates.begin(), candidates.end(), &comes_before);  // rule 10
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    addresses[i] = std::move(candidates[i].endpoint);
  }
}

}  // namespace pawl
