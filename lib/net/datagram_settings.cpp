// SPDX-License-Identifier: MIT
// How a datagram socket is made: options, names, groups.
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "loop/loop_parts.hpp"
#include "net/datagram_queue.hpp"
#include "net/socket_address.hpp"
#include "net/unix_socket_file.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/system/system.hpp"

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29  // linux/in6.h, since 4.20
#endif

namespace pawl {
namespace {

bool is_nowhere(const Endpoint& endpoint) { return endpoint.family() == Endpoint::Family::none; }

int whole_number(std::size_t bytes) {
  return static_cast<int>(std::min<std::size_t>(bytes, std::numeric_limits<int>::max()));
}

/// The number of an interface; 0 for the kernel's choice, -1 when there is none of that name.
int interface_number(std::string_view name) {
  if (name.empty()) return 0;
  if (name.find('\0') != std::string_view::npos) return -1;  // it would be cut there
  const unsigned number = ::if_nametoindex(std::string(name).c_str());
  return number == 0 ? -1 : static_cast<int>(number);
}

/// As above; of IPv6 the group's own scope, when no name is given.
int interface_of(const Endpoint& group, std::string_view name) {
  const int number = interface_number(name);
  if (number != 0 || group.family() != Endpoint::Family::ipv6) return number;
  const SocketAddress address(group);
  return static_cast<int>(reinterpret_cast<const sockaddr_in6&>(*address.get()).sin6_scope_id);
}

int level_of(const Endpoint& group) {
  return group.family() == Endpoint::Family::ipv6 ? int{IPPROTO_IPV6} : int{IPPROTO_IP};
}

void copy_address(const Endpoint& endpoint, sockaddr_storage& storage) {
  const SocketAddress address(endpoint);
  std::memcpy(&storage, address.get(), address.bytes());
}

}  // namespace

void DatagramSocket::throw_error(int error, const char* operation) const {
  const Endpoint& named = known_endpoint();
  throw std::system_error(system_error_code(error),
                          "DatagramSocket at " + named.to_string() + ": " + operation);
}

template <typename Value>
void DatagramSocket::set_option(int level, int name, const Value& value, const char* operation) {
  const SystemResult set = loop_.system().setsockopt(fd_, level, name, &value, sizeof value);
  if (!set.ok()) throw_error(set.error, operation);
}

/// One that says which family the socket is of.
const Endpoint& DatagramSocket::known_endpoint() const {
  return is_nowhere(local_) ? options_.peer : local_;
}

/// True exactly for a socket of IPv6 whose options must be set for IPv4 as well.
bool DatagramSocket::takes_ipv4_too() const {
  return known_endpoint().family() == Endpoint::Family::ipv6 && !options_.is_ipv6_only;
}

/// An option that each version of IP has for itself.
template <typename Value>
void DatagramSocket::set_option_of_both(int ipv6_name, int ipv4_name, const Value& value,
                                        const char* operation) {
  const bool is_ipv6 = known_endpoint().family() == Endpoint::Family::ipv6;
  if (is_ipv6) set_option(IPPROTO_IPV6, ipv6_name, value, operation);
  if (!is_ipv6 || takes_ipv4_too()) set_option(IPPROTO_IP, ipv4_name, value, operation);
}

void DatagramSocket::open(const Endpoint& local) {
  local_ = local;
  const Endpoint& known = known_endpoint();
  if (is_nowhere(known)) {
    throw std::invalid_argument("DatagramSocket: neither an endpoint to bind to nor a peer");
  }
  const SystemResult made = loop_.system().socket(SocketAddress(known).family(), SOCK_DGRAM, 0);
  if (!made.ok()) throw_error(made.error, "socket");
  fd_ = made.fd();
  set_options();
  bind(local);
  if (!is_nowhere(local) || options_.peer.is_unix()) {
    if (const std::error_code error = learn_local_endpoint()) {
      throw_error(error.value(), "getsockname");
    }
  }
  bound_ = local_;
  if (is_nowhere(options_.peer)) return;
  if (const std::error_code error = connect(options_.peer)) throw_error(error.value(), "connect");
}

void DatagramSocket::set_options() {
  const int on = 1;
  if (options_.receive_buffer > 0) {
    set_option(SOL_SOCKET, SO_RCVBUF, whole_number(options_.receive_buffer), "SO_RCVBUF");
  }
  if (options_.send_buffer > 0) {
    set_option(SOL_SOCKET, SO_SNDBUF, whole_number(options_.send_buffer), "SO_SNDBUF");
  }
  if (known_endpoint().is_unix()) return;  // which has none of those below
  if (options_.reuse_address) set_option(SOL_SOCKET, SO_REUSEADDR, on, "SO_REUSEADDR");
  if (options_.reuse_port) set_option(SOL_SOCKET, SO_REUSEPORT, on, "SO_REUSEPORT");
  if (options_.broadcast) set_option(SOL_SOCKET, SO_BROADCAST, on, "SO_BROADCAST");
  if (known_endpoint().family() == Endpoint::Family::ipv6) {
    const int is_only = options_.is_ipv6_only ? 1 : 0;  // said either way: sysctl may default it
    set_option(IPPROTO_IPV6, IPV6_V6ONLY, is_only, "IPV6_V6ONLY");
  }
  if (options_.ttl > 0) set_option_of_both(IPV6_UNICAST_HOPS, IP_TTL, options_.ttl, "ttl");
  if (options_.type_of_service > 0) {
    set_option_of_both(IPV6_TCLASS, IP_TOS, options_.type_of_service, "type_of_service");
  }
  if (options_.tells_destination) {
    const bool is_ipv6 = known_endpoint().family() == Endpoint::Family::ipv6;
    if (is_ipv6) set_option(IPPROTO_IPV6, IPV6_RECVPKTINFO, on, "tells_destination");
    if (!is_ipv6) set_option(IPPROTO_IP, IP_PKTINFO, on, "tells_destination");
  }
  set_multicast_options();
}

void DatagramSocket::set_multicast_options() {
  // Said either way: the kernel comes with 1 for sockets of IPv4, and a socket at a port hears
  // whatever group anybody here has joined. Since Linux 4.20; before that IPv6 can't be told.
  const int hears_all = options_.multicast_all ? 1 : 0;
  System& system = loop_.system();
  if (known_endpoint().family() == Endpoint::Family::ipv6) {
    system.setsockopt(fd_, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &hears_all, sizeof hears_all);
  }
  if (known_endpoint().family() == Endpoint::Family::ipv4 || takes_ipv4_too()) {
    system.setsockopt(fd_, IPPROTO_IP, IP_MULTICAST_ALL, &hears_all, sizeof hears_all);
  }
  if (!options_.multicast_loop) {
    set_option_of_both(IPV6_MULTICAST_LOOP, IP_MULTICAST_LOOP, 0, "multicast_loop");
  }
  if (options_.multicast_ttl > 0) {
    set_option_of_both(IPV6_MULTICAST_HOPS, IP_MULTICAST_TTL, options_.multicast_ttl,
                       "multicast_ttl");
  }
  if (options_.multicast_interface.empty()) return;
  const int number = interface_number(options_.multicast_interface);
  if (number < 0) throw_error(ENODEV, "multicast_interface");
  const bool is_ipv6 = known_endpoint().family() == Endpoint::Family::ipv6;
  if (is_ipv6) set_option(IPPROTO_IPV6, IPV6_MULTICAST_IF, number, "multicast_interface");
  if (is_ipv6 && !takes_ipv4_too()) return;
  ip_mreqn request{};
  request.imr_ifindex = number;
  set_option(IPPROTO_IP, IP_MULTICAST_IF, request, "multicast_interface");
}

void DatagramSocket::bind(const Endpoint& local) {
  SystemResult bound;
  if (!is_nowhere(local)) {
    file_ = std::make_unique<UnixSocketFile>();
    bound = file_->bind(loop_.system(), fd_, SOCK_DGRAM, local);
    file_->unlock();
    if (local.family() != Endpoint::Family::unix_path) file_.reset();
  } else if (options_.peer.is_unix()) {
    // unix(7), "Autobind feature": a family alone asks for an abstract name.
    const sockaddr unnamed{AF_UNIX, {}};
    bound = loop_.system().bind(fd_, &unnamed, sizeof unnamed.sa_family);
  }
  if (!bound.ok()) throw_error(bound.error, "bind");
}

std::error_code DatagramSocket::join_group(const Endpoint& group, std::string_view interface) {
  return change_membership(MCAST_JOIN_GROUP, group, interface);
}

std::error_code DatagramSocket::leave_group(const Endpoint& group, std::string_view interface) {
  return change_membership(MCAST_LEAVE_GROUP, group, interface);
}

std::error_code DatagramSocket::join_source_group(const Endpoint& group, const Endpoint& source,
                                                  std::string_view interface) {
  return change_source(MCAST_JOIN_SOURCE_GROUP, group, source, interface);
}

std::error_code DatagramSocket::leave_source_group(const Endpoint& group, const Endpoint& source,
                                                   std::string_view interface) {
  return change_source(MCAST_LEAVE_SOURCE_GROUP, group, source, interface);
}

/// RFC 3678, section 5.1: one call for both families, with the interface by number.
std::error_code DatagramSocket::change_membership(int name, const Endpoint& group,
                                                  std::string_view interface) {
  if (fd_ < 0) return std::make_error_code(std::errc::bad_file_descriptor);
  if (loop_.parts().is_forked_child()) return Errc::used_after_fork;
  const int number = interface_of(group, interface);
  if (number < 0) return std::make_error_code(std::errc::no_such_device);
  group_req request{};
  request.gr_interface = static_cast<std::uint32_t>(number);
  copy_address(group, request.gr_group);
  return loop_.system().setsockopt(fd_, level_of(group), name, &request, sizeof request).code();
}

std::error_code DatagramSocket::change_source(int name, const Endpoint& group,
                                              const Endpoint& source, std::string_view interface) {
  if (fd_ < 0) return std::make_error_code(std::errc::bad_file_descriptor);
  if (loop_.parts().is_forked_child()) return Errc::used_after_fork;
  if (source.family() != group.family()) {
    return std::make_error_code(std::errc::address_family_not_supported);
  }
  const int number = interface_of(group, interface);
  if (number < 0) return std::make_error_code(std::errc::no_such_device);
  group_source_req request{};
  request.gsr_interface = static_cast<std::uint32_t>(number);
  copy_address(group, request.gsr_group);
  copy_address(source, request.gsr_source);
  return loop_.system().setsockopt(fd_, level_of(group), name, &request, sizeof request).code();
}

std::optional<std::uint64_t> DatagramSocket::dropped_by_kernel() const {
  if (fd_ < 0) return 0;
  std::array<std::uint32_t, SK_MEMINFO_VARS> counters{};
  unsigned bytes = sizeof counters;
  const SystemResult asked =
      loop_.system().getsockopt(fd_, SOL_SOCKET, SO_MEMINFO, counters.data(), &bytes);
  if (!asked.ok()) return std::nullopt;
  return counters[SK_MEMINFO_DROPS];
}

}  // namespace pawl
