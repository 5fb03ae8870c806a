// SPDX-License-Identifier: MIT
// Traps: a socket of IPv6 wants IPv6's packet info for IPv4 too, with mapped addresses; CMSG_NXTHDR
// looks at the next header before it knows whether there is one.
#include "net/packet_info.hpp"

#include <algorithm>
#include <cstring>

#include "net/socket_address.hpp"

namespace pawl {

PacketSource PacketSource::of(const Endpoint& source, Endpoint::Family socket_family) {
  PacketSource packet;
  const SocketAddress address(source);
  if (source.family() == Endpoint::Family::ipv6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(*address.get());
    packet.family = AF_INET6;
    packet.interface = in6.sin6_scope_id;
    std::memcpy(packet.address, &in6.sin6_addr, sizeof in6.sin6_addr);
  } else if (source.family() == Endpoint::Family::ipv4) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(*address.get());
    const bool is_mapped = socket_family == Endpoint::Family::ipv6;
    packet.family = is_mapped ? AF_INET6 : AF_INET;
    if (is_mapped) std::fill_n(packet.address + 10, 2, static_cast<unsigned char>(0xff));
    std::memcpy(packet.address + (is_mapped ? 12 : 0), &in.sin_addr, sizeof in.sin_addr);
  }
  return packet;
}

bool PacketSource::is_group() const {
  if (family == AF_INET6 && address[0] == 0xff) return true;
  const unsigned char first = address[family == AF_INET ? 0 : 12];
  const bool is_mapped =
      std::all_of(address, address + 10, [](unsigned char b) { return b == 0; }) &&
      address[10] == 0xff && address[11] == 0xff;
  const bool is_ipv4 = family == AF_INET || (family == AF_INET6 && is_mapped);
  return is_ipv4 && (first >= 224 && (first < 240 || first == 255));
}

void PacketControl::set_source(msghdr& message, const PacketSource& source) {
  std::memset(bytes, 0, sizeof bytes);
  message.msg_control = bytes;
  message.msg_controllen = sizeof bytes;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (source.family == AF_INET6) {
    in6_pktinfo info{};
    info.ipi6_ifindex = source.interface;
    std::memcpy(&info.ipi6_addr, source.address, sizeof info.ipi6_addr);
    header->cmsg_level = IPPROTO_IPV6;
    header->cmsg_type = IPV6_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(header), &info, sizeof info);
    message.msg_controllen = CMSG_SPACE(sizeof info);
  } else {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, source.address, sizeof info.ipi_spec_dst);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(header), &info, sizeof info);
    message.msg_controllen = CMSG_SPACE(sizeof info);
  }
}

Endpoint PacketControl::destination_of(const msghdr& message, std::uint16_t port) {
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr) return Endpoint();
  if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info{};
    std::memcpy(&info, CMSG_DATA(header), sizeof info);
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(port);
    in6.sin6_addr = info.ipi6_addr;
    const bool is_of_a_link =
        IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) || IN6_IS_ADDR_MC_LINKLOCAL(&info.ipi6_addr);
    if (is_of_a_link) in6.sin6_scope_id = info.ipi6_ifindex;
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&in6), sizeof in6);
  }
  if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
    in_pktinfo info{};
    std::memcpy(&info, CMSG_DATA(header), sizeof info);
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr = info.ipi_addr;
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&in), sizeof in);
  }
  return Endpoint();
}

}  // namespace pawl
