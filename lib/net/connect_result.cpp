// SPDX-License-Identifier: MIT
#include "net/connect_result.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

/// True exactly when its SYN is still on the way. (What has been reset, and told somebody else of
/// it, has no peer either, and is ready for ever.)
bool is_on_its_way(System& system, int fd) {
  tcp_info info{};
  unsigned bytes = sizeof info;
  const SystemResult asked = system.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes);
  return asked.ok() && (info.tcpi_state == TCP_SYN_SENT || info.tcpi_state == TCP_SYN_RECV);
}

}  // namespace

std::error_code connect_result(System& system, int fd) {
  int error = 0;
  unsigned bytes = sizeof error;
  const SystemResult asked = system.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (!asked.ok()) return asked.code();
  if (error != 0) return system_error_code(error);
  SocketAddress peer;
  const SystemResult result = system.getpeername(fd, peer.get(), peer.bytes_pointer());
  if (result.error != ENOTCONN) return {};
  return system_error_code(is_on_its_way(system, fd) ? EINPROGRESS : ENOTCONN);
}

}  // namespace pawl
