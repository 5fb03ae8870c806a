// SPDX-License-Identifier: MIT
// How a datagram socket is made: options, names, groups.
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <stdexcept>
#include <string>

#include "net/datagram_queue.hpp"
#include "net/socket_address.hpp"
#include "net/unix_socket_file.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/datagram_socket.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

bool is_nowhere(const Endpoint& endpoint) { return endpoint.family() == Endpoint::Family::none; }

int whole_number(std::size_t bytes) {
  return static_cast<int>(std::min<std::size_t>(bytes, std::numeric_limits<int>::max()));
}

/// The number of an interface; 0 for the kernel's choice, -1 when there is none of that name.
int interface_number(std::string_view name) {
  if (name.empty()) return 0;
  const unsigned number = ::if_nametoindex(std::string(name).c_str());
  return number == 0 ? -1 : static_cast<int>(number);
}

}  // namespace

void DatagramSocket::throw_error(int error, const char* operation) const {
  const Endpoint& named = is_nowhere(local_) ? options_.peer : local_;
  throw std::system_error(system_error_code(error),
                          "DatagramSocket at " + named.to_string() + ": " + operation);
}

template <typename Value>
void DatagramSocket::set_option(int level, int name, const Value& value, const char* operation) {
  const SystemResult set = loop_.system().setsockopt(fd_, level, name, &value, sizeof value);
  if (!set.ok()) throw_error(set.error, operation);
}

void DatagramSocket::open(const Endpoint& local) {
  local_ = local;
  const Endpoint& known = is_nowhere(local) ? options_.peer : local;
  if (is_nowhere(known)) {
    throw std::invalid_argument("DatagramSocket: neither an endpoint to bind to nor a peer");
  }
  const SystemResult made = loop_.system().socket(SocketAddress(known).family(), SOCK_DGRAM, 0);
  if (!made.ok()) throw_error(made.error, "socket");
  fd_ = made.fd();
  set_options();
  bind(local);
  if (is_nowhere(options_.peer)) return learn_local_endpoint();
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
  const Endpoint& known = is_nowhere(local_) ? options_.peer : local_;
  if (known.is_unix()) return;  // which has none of those below
  if (options_.reuse_address) set_option(SOL_SOCKET, SO_REUSEADDR, on, "SO_REUSEADDR");
  if (options_.reuse_port) set_option(SOL_SOCKET, SO_REUSEPORT, on, "SO_REUSEPORT");
  if (options_.broadcast) set_option(SOL_SOCKET, SO_BROADCAST, on, "SO_BROADCAST");
  if (known.family() == Endpoint::Family::ipv6) {
    const int is_only = options_.is_ipv6_only ? 1 : 0;  // said either way: sysctl may default it
    set_option(IPPROTO_IPV6, IPV6_V6ONLY, is_only, "IPV6_V6ONLY");
    if (options_.ttl > 0) set_option(IPPROTO_IPV6, IPV6_UNICAST_HOPS, options_.ttl, "ttl");
    if (options_.type_of_service > 0) {
      set_option(IPPROTO_IPV6, IPV6_TCLASS, options_.type_of_service, "type_of_service");
    }
  } else {
    if (options_.ttl > 0) set_option(IPPROTO_IP, IP_TTL, options_.ttl, "ttl");
    if (options_.type_of_service > 0) {
      set_option(IPPROTO_IP, IP_TOS, options_.type_of_service, "type_of_service");
    }
  }
  set_multicast_options();
}

void DatagramSocket::set_multicast_options() {
  const Endpoint& known = is_nowhere(local_) ? options_.peer : local_;
  const bool is_ipv6 = known.family() == Endpoint::Family::ipv6;
  const int level = is_ipv6 ? int{IPPROTO_IPV6} : int{IPPROTO_IP};
  if (!options_.multicast_loop) {
    set_option(level, is_ipv6 ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP, 0, "multicast_loop");
  }
  if (options_.multicast_ttl > 0) {
    set_option(level, is_ipv6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL, options_.multicast_ttl,
               "multicast_ttl");
  }
  if (options_.multicast_interface.empty()) return;
  const int number = interface_number(options_.multicast_interface);
  if (number < 0) throw_error(ENODEV, "multicast_interface");
  if (is_ipv6) return set_option(level, IPV6_MULTICAST_IF, number, "multicast_interface");
  ip_mreqn request{};
  request.imr_ifindex = number;
  set_option(level, IP_MULTICAST_IF, request, "multicast_interface");
}

void DatagramSocket::bind(const Endpoint& local) {
  SystemResult bound;
  if (!is_nowhere(local)) {
    file_ = std::make_unique<UnixSocketFile>();
    bound = file_->bind(loop_.system(), fd_, SOCK_DGRAM, local);
    if (local.family() != Endpoint::Family::unix_path) file_.reset();
  } else if (options_.peer.is_unix()) {
    // unix(7), "Autobind feature": a family alone asks for an abstract name.
    const sockaddr unnamed{AF_UNIX, {}};
    bound = loop_.system().bind(fd_, &unnamed, sizeof unnamed.sa_family);
  }
  if (!bound.ok()) throw_error(bound.error, "bind");
}

void DatagramSocket::learn_local_endpoint() {
  SocketAddress local;
  const SystemResult result = loop_.system().getsockname(fd_, local.get(), local.bytes_pointer());
  if (result.ok()) local_ = local.endpoint();
}

std::error_code DatagramSocket::connect(const Endpoint& peer) {
  if (!is_taking()) return std::make_error_code(std::errc::bad_file_descriptor);
  if (is_nowhere(peer)) return disconnect();
  const SocketAddress address(peer);
  const SystemResult connected = loop_.system().connect(fd_, address.get(), address.bytes());
  if (!connected.ok()) return connected.code();
  queue_->address_all();
  peer_ = peer;
  learn_local_endpoint();
  return {};
}

std::error_code DatagramSocket::disconnect() {
  const sockaddr nobody{AF_UNSPEC, {}};  // connect(2): dissolves the association
  const SystemResult result = loop_.system().connect(fd_, &nobody, sizeof nobody);
  if (!result.ok()) return result.code();
  queue_->address_all();
  peer_ = Endpoint();
  // A port that the kernel chose goes with the association (Linux, __udp_disconnect).
  const Endpoint before = local_;
  learn_local_endpoint();
  if (local_ == before) return {};
  const SocketAddress address(before);
  const SystemResult bound = loop_.system().bind(fd_, address.get(), address.bytes());
  learn_local_endpoint();
  return bound.code();
}

std::error_code DatagramSocket::join_group(const Endpoint& group, std::string_view interface) {
  return change_membership(MCAST_JOIN_GROUP, group, interface);
}

std::error_code DatagramSocket::leave_group(const Endpoint& group, std::string_view interface) {
  return change_membership(MCAST_LEAVE_GROUP, group, interface);
}

/// RFC 3678, section 5.1: one call for both families, with the interface by number.
std::error_code DatagramSocket::change_membership(int name, const Endpoint& group,
                                                  std::string_view interface) {
  if (fd_ < 0) return std::make_error_code(std::errc::bad_file_descriptor);
  int number = interface_number(interface);
  if (number < 0) return std::make_error_code(std::errc::no_such_device);
  const SocketAddress address(group);
  const bool is_ipv6 = group.family() == Endpoint::Family::ipv6;
  group_req request{};
  std::copy_n(reinterpret_cast<const char*>(address.get()), address.bytes(),
              reinterpret_cast<char*>(&request.gr_group));
  if (is_ipv6 && number == 0) {
    number = static_cast<int>(reinterpret_cast<const sockaddr_in6*>(address.get())->sin6_scope_id);
  }
  request.gr_interface = static_cast<std::uint32_t>(number);
  const int level = is_ipv6 ? int{IPPROTO_IPV6} : int{IPPROTO_IP};
  return loop_.system().setsockopt(fd_, level, name, &request, sizeof request).code();
}

std::uint64_t DatagramSocket::dropped_by_kernel() const {
  if (fd_ < 0) return 0;
  std::array<std::uint32_t, SK_MEMINFO_VARS> counters{};
  unsigned bytes = sizeof counters;
  loop_.system().getsockopt(fd_, SOL_SOCKET, SO_MEMINFO, counters.data(), &bytes);
  return counters[SK_MEMINFO_DROPS];
}

}  // namespace pawl
