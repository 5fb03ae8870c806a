// SPDX-License-Identifier: MIT
// What c-ares (1.18.1) does with its sockets, and must not:
// - It reads datagrams as long as there are any (a flood would hold the loop), and before 1.19.1 it
//   took an empty one for the end of a connection (CVE-2023-32067).
// - Whatever it is told to look at, it then counts who was silent, also those whose answer lies in
//   another socket, because this process stood still. So it is always told to look at all.
// - Its own sets end at descriptor 1023.
#include "net/cares_sockets.hpp"

#include <netinet/tcp.h>
#include <sys/select.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "loop/loop_parts.hpp"
#include "net/shared_socket.hpp"
#include "net/socket_address.hpp"
#include "pawl/core/error.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

constexpr int datagram_budget = 64;        // in one wake-up; the selector tells again of the rest
constexpr std::size_t scope_position = 4;  // in an address

bool is_out_of_room(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

bool is_link_local(const in6_addr& address) { return IN6_IS_ADDR_LINKLOCAL(&address) != 0; }

std::uint32_t take_scope_out(in6_addr& address) {
  std::uint32_t scope = 0;
  std::memcpy(&scope, address.s6_addr + scope_position, sizeof scope);
  std::memset(address.s6_addr + scope_position, 0, sizeof scope);
  return scope;
}

}  // namespace

void CaresSockets::put_scope_inside(in6_addr& address, std::uint32_t scope) {
  if (is_link_local(address)) std::memcpy(address.s6_addr + scope_position, &scope, sizeof scope);
}

void CaresSockets::serve(ares_channel channel) {
  static const ares_socket_functions functions{&make, &close, &connect, &receive, &send};
  ::ares_set_socket_functions(channel, &functions, this);
}

void CaresSockets::process(ares_channel channel) noexcept {
  datagrams_left_ = datagram_budget;
  fd_set read;
  fd_set written;
  FD_ZERO(&read);
  FD_ZERO(&written);
  for (const auto& [fd, socket] : sockets_) {
    if (fd >= FD_SETSIZE) return process_one_by_one(channel);
    if (socket.is_read) FD_SET(fd, &read);
    if (socket.is_written) FD_SET(fd, &written);
  }
  ::ares_process(channel, &read, &written);
}

void CaresSockets::process_one_by_one(ares_channel channel) noexcept {
  for (int last = -1;;) {
    int next = std::numeric_limits<int>::max();
    for (const auto& each : sockets_) {
      if (each.first > last) next = std::min(next, each.first);
    }
    const auto found = sockets_.find(next);
    if (found == sockets_.end()) break;
    last = next;
    const Socket socket = found->second;
    ::ares_process_fd(channel, socket.is_read ? last : ARES_SOCKET_BAD,
                      socket.is_written ? last : ARES_SOCKET_BAD);
  }
  ::ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

void CaresSockets::on_state(void* data, int fd, int is_read, int is_written) {
  CaresSockets& sockets = self(data);
  const auto found = sockets.sockets_.find(fd);
  if (found == sockets.sockets_.end()) return;
  Socket& socket = found->second;
  if (is_read == 0 && std::exchange(socket.is_read, false)) sockets.loop_.remove_reader(fd);
  if (is_written == 0 && std::exchange(socket.is_written, false)) sockets.loop_.remove_writer(fd);
  if (is_written != 0 && !socket.is_written) sockets.watch_writing(fd, socket);
}

/// c-ares can't be told that this failed; but it sees the end of the stream, and goes on.
void CaresSockets::watch_writing(int fd, Socket& socket) {
  std::error_code error;
  try {
    error = loop_.add_writer(fd, [this] { on_ready_(); });
  } catch (const std::bad_alloc&) {
    error = system_error_code(ENOMEM);
  }
  socket.is_written = !error;
  if (error) loop_.system().shutdown(fd, SHUT_RDWR);
}

/// Watched for reading from the beginning, while c-ares can be told that it fails.
std::error_code CaresSockets::add(int fd, int type) {
  try {
    sockets_.emplace(fd, Socket{type, true, false});
    const std::error_code error = loop_.add_reader(fd, [this] { on_ready_(); });
    if (error) sockets_.erase(fd);
    return error;
  } catch (const std::bad_alloc&) {
    sockets_.erase(fd);
    return system_error_code(ENOMEM);
  }
}

int CaresSockets::make(int family, int type, int protocol, void* data) {
  System& system = self(data).loop_.system();
  const SystemResult made = system.socket(family, type, protocol);
  self(data).error_ = is_out_of_room(made.error) ? made.error : 0;
  if (!made.ok()) {
    errno = made.error;
    return ARES_SOCKET_BAD;
  }
  const int on = 1;
  if (type == SOCK_STREAM) system.setsockopt(made.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const std::error_code error = self(data).add(made.fd(), type);
  if (!error) return made.fd();
  system.close(made.fd());
  errno = self(data).error_ = error.value();
  return ARES_SOCKET_BAD;
}

int CaresSockets::close(int fd, void* data) {
  CaresSockets& sockets = self(data);
  on_state(data, fd, 0, 0);
  const auto socket = sockets.sockets_.find(fd);
  const bool is_stream = socket != sockets.sockets_.end() && socket->second.type == SOCK_STREAM;
  if (is_stream && sockets.loop_.parts().shares_with_children()) {
    end_for_all_holders(sockets.loop_.system(), fd, SocketEnd::in_order);
  }
  if (socket != sockets.sockets_.end()) sockets.sockets_.erase(socket);
  const SystemResult result = sockets.loop_.system().close(fd);
  errno = result.error;
  return result.ok() ? 0 : -1;
}

int CaresSockets::connect(int fd, const sockaddr* address, ares_socklen_t bytes, void* data) {
  SocketAddress to;
  std::memcpy(to.get(), address, bytes);
  if (address->sa_family == AF_INET6) {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(*to.get());
    if (is_link_local(in6.sin6_addr)) in6.sin6_scope_id = take_scope_out(in6.sin6_addr);
  }
  const SystemResult result = self(data).loop_.system().connect(fd, to.get(), bytes);
  errno = result.error;
  return result.ok() ? 0 : -1;
}

ares_ssize_t CaresSockets::receive(int fd, void* buffer, std::size_t bytes, int flags,
                                   sockaddr* from, ares_socklen_t* from_bytes, void* data) {
  CaresSockets& sockets = self(data);
  const auto socket = sockets.sockets_.find(fd);
  const bool is_datagram = socket != sockets.sockets_.end() && socket->second.type == SOCK_DGRAM;
  for (;;) {
    if (is_datagram && --sockets.datagrams_left_ < 0) {
      errno = EAGAIN;
      return -1;
    }
    iovec piece{buffer, bytes};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_name = from;
    message.msg_namelen = from_bytes != nullptr ? *from_bytes : 0;
    const SystemResult result = sockets.loop_.system().recvmsg(fd, &message, flags);
    if (result.ok() && result.bytes() == 0 && is_datagram) continue;
    if (from_bytes != nullptr) *from_bytes = message.msg_namelen;
    if (from != nullptr && message.msg_namelen > 0 && from->sa_family == AF_INET6) {
      auto& in6 = reinterpret_cast<sockaddr_in6&>(*from);
      put_scope_inside(in6.sin6_addr, in6.sin6_scope_id);
    }
    if (result.ok()) {
      sockets.on_message_(std::string_view(static_cast<const char*>(buffer), result.bytes()));
    }
    errno = result.error;
    return result.ok() ? static_cast<ares_ssize_t>(result.value) : -1;
  }
}

ares_ssize_t CaresSockets::send(int fd, const iovec* pieces, int count, void* data) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const SystemResult result = self(data).loop_.system().sendmsg(fd, &message, 0);
  errno = result.error;
  return result.ok() ? static_cast<ares_ssize_t>(result.value) : -1;
}

}  // namespace pawl
