// SPDX-License-Identifier: MIT
#include "net/socket_settings.hpp"

#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>

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
  settings.set(options.mark != 0, "SO_MARK", SOL_SOCKET, SO_MARK, static_cast<int>(options.mark));
  settings.set(options.type_of_service != 0, is_ipv6 ? "IPV6_TCLASS" : "IP_TOS",
               is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_TCLASS : IP_TOS,
               options.type_of_service);
  const std::string& interface = options.interface;
  if (interface.find('\0') != std::string::npos || interface.size() >= IFNAMSIZ) {
    settings.fail("SO_BINDTODEVICE", ENODEV);  // the kernel would cut it
  } else if (!interface.empty()) {
    settings.set("SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, interface.data(),
                 static_cast<unsigned>(interface.size()));
  }
  return settings.result();
}

}  // namespace pawl
