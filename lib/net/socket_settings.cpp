// SPDX-License-Identifier: MIT
#include "net/socket_settings.hpp"

#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>

#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int longest_keep_alive = 32767;  // seconds, tcp.h: MAX_TCP_KEEPIDLE

/// Sets one after the other until one fails.
class Settings {
 public:
  Settings(System& system, int fd) : system_(system), fd_(fd) {}

  void set(bool is_wanted, std::string_view name, int level, int option, int value) {
    if (is_wanted) set(name, level, option, &value, sizeof value);
  }
  void set(std::string_view name, int level, int option, const void* value, unsigned bytes) {
    if (result_.error) return;
    const SystemResult set = system_.setsockopt(fd_, level, option, value, bytes);
    if (!set.ok()) result_ = {set.code(), name};
  }
  void fail(std::string_view name, int error) {
    if (!result_.error) result_ = {system_error_code(error), name};
  }
  SettingResult result() const { return result_; }

 private:
  System& system_;
  int fd_;
  SettingResult result_;
};

int as_seconds(Duration duration) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(duration).count();
  return static_cast<int>(std::min<std::int64_t>(seconds, longest_keep_alive));
}

int as_milliseconds(Duration duration) {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(duration).count();
  return static_cast<int>(std::min<std::int64_t>(milliseconds, std::numeric_limits<int>::max()));
}

int as_int(std::size_t bytes) {
  return static_cast<int>(std::min<std::size_t>(bytes, std::numeric_limits<int>::max()));
}

void set_keep_alive(Settings& settings, const SocketOptions& options) {
  if (options.keep_alive <= Duration::zero()) return;
  settings.set(true, "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1);
  settings.set(true, "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, as_seconds(options.keep_alive));
  settings.set(options.keep_alive_interval > Duration::zero(), "TCP_KEEPINTVL", IPPROTO_TCP,
               TCP_KEEPINTVL, as_seconds(options.keep_alive_interval));
  settings.set(options.keep_alive_probes > 0, "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT,
               options.keep_alive_probes);
}

/// A socket of IPv6 speaks IPv4 too, for which the options of IPv4 hold.
void set_type_of_service(Settings& settings, int type_of_service, bool is_ipv6) {
  const bool is_wanted = type_of_service != 0;
  settings.set(is_wanted, "IP_TOS", IPPROTO_IP, IP_TOS, type_of_service);
  settings.set(is_wanted && is_ipv6, "IPV6_TCLASS", IPPROTO_IPV6, IPV6_TCLASS, type_of_service);
}

/// No error: there is something to read, be it the end. A listener and a socket that was never
/// connected say so in ways of their own.
std::error_code peek_error(System& system, int fd) {
  char byte = 0;
  iovec piece{&byte, 1};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  const int error = system.recvmsg(fd, &message, MSG_PEEK).error;
  const bool was_connected = error != EAGAIN && error != EINVAL && error != ENOTCONN;
  return system_error_code(was_connected ? error : ENOTCONN);
}

}  // namespace

SettingResult apply_settings(System& system, int fd, const SocketOptions& options,
                             Endpoint::Family family) {
  Settings settings(system, fd);
  settings.set(options.send_buffer > 0, "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF,
               as_int(options.send_buffer));
  settings.set(options.receive_buffer > 0, "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF,
               as_int(options.receive_buffer));
  const bool is_ipv6 = family == Endpoint::Family::ipv6;
  if (!is_ipv6 && family != Endpoint::Family::ipv4) return settings.result();
  settings.set(options.no_delay, "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1);
  set_keep_alive(settings, options);
  settings.set(options.user_timeout > Duration::zero(), "TCP_USER_TIMEOUT", IPPROTO_TCP,
               TCP_USER_TIMEOUT, as_milliseconds(options.user_timeout));
  settings.set(options.mark != 0, "SO_MARK", SOL_SOCKET, SO_MARK, static_cast<int>(options.mark));
  set_type_of_service(settings, options.type_of_service, is_ipv6);
  const std::string& interface = options.interface;
  if (interface.find('\0') != std::string::npos || interface.size() >= IFNAMSIZ) {
    settings.fail("SO_BINDTODEVICE", ENODEV);  // the kernel would cut it
  } else if (!interface.empty()) {
    settings.set("SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, interface.data(),
                 static_cast<unsigned>(interface.size()));
  }
  return settings.result();
}

SettingResult prepare_stream(System& system, int fd, Endpoint& peer) {
  int type = 0;
  unsigned bytes = sizeof type;
  SystemResult result = system.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes);
  if (result.ok() && type != SOCK_STREAM) result.error = EPROTOTYPE;
  if (result.ok()) result = system.set_non_blocking(fd, true);
  if (!result.ok()) return {result.code(), "adopt"};
  SocketAddress address;
  result = system.getpeername(fd, address.get(), address.bytes_pointer());
  if (result.ok()) peer = address.endpoint();
  if (result.error == ENOTCONN) return {peek_error(system, fd), "adopt"};
  return {result.code(), "adopt"};
}

}  // namespace pawl
