// SPDX-License-Identifier: MIT
// Whom a datagram socket is connected to.
//
// Traps: connect(2) of a socket at 0.0.0.0 gives it the address that suits the peer, and the next
// connect keeps it, whatever network the next peer is on; dissolving the association takes a port
// that the kernel chose along (Linux, __udp_disconnect); what others had sent stays in the buffer.
#include <sys/socket.h>

#include <utility>

#include "net/datagram_frame.hpp"
#include "net/datagram_queue.hpp"
#include "net/shared_socket.hpp"
#include "net/socket_address.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

bool is_nowhere(const Endpoint& endpoint) { return endpoint.family() == Endpoint::Family::none; }

}  // namespace

std::error_code DatagramSocket::connect(const Endpoint& peer) {
  if (!is_taking()) return std::make_error_code(std::errc::bad_file_descriptor);
  if (loop_.parts().is_forked_child()) return Errc::used_after_fork;
  if (is_nowhere(peer)) return disconnect();
  const bool has_family = !is_nowhere(local_);
  if (has_family && !suits(peer)) {
    return std::make_error_code(std::errc::address_family_not_supported);
  }
  Endpoint wanted = peer;  // what wants memory comes first
  Endpoint old = peer_;
  tell_error_of_old_peer();
  if (!is_nowhere(peer_) && is_bound_to_any()) {
    if (const std::error_code error = dissolve()) return error;
  }
  if (const std::error_code error = associate(peer)) {
    if (!is_nowhere(old)) {
      const bool is_back = !associate(old);
      peer_ = is_back ? std::move(old) : Endpoint();
      is_mixed_ = is_back;
      learn_local_endpoint();
    }
    return error;
  }
  queue_->address_all();
  peer_ = std::move(wanted);
  is_mixed_ = true;
  ++connects_;
  learn_local_endpoint();
  if (is_nowhere(bound_) && !local_.is_unix()) {
    const bool is_ipv6 = local_.family() == Endpoint::Family::ipv6;
    bound_ = is_ipv6 ? Endpoint::from_address("::", local_.port()) : Endpoint::any(local_.port());
  }
  return {};
}

/// connect(2), and the peer's name as the kernel has it.
std::error_code DatagramSocket::associate(const Endpoint& peer) {
  const SocketAddress address(peer);
  const SystemResult connected = loop_.system().connect(fd_, address.get(), address.bytes());
  if (!connected.ok()) return connected.code();
  SocketAddress name;
  const SystemResult result = loop_.system().getpeername(fd_, name.get(), name.bytes_pointer());
  peer_name_ = result.ok() ? name.endpoint() : peer;
  return {};
}

std::error_code DatagramSocket::disconnect() {
  if (is_nowhere(peer_)) return {};
  tell_error_of_old_peer();
  return dissolve();
}

/// Ends the association; the local end is as it was bound then.
std::error_code DatagramSocket::dissolve() {
  const SystemResult result = pawl::dissolve(loop_.system(), fd_);
  if (!result.ok()) return result.code();
  queue_->address_all();
  peer_ = Endpoint();
  is_mixed_ = false;
  ++connects_;
  if (const std::error_code error = learn_local_endpoint()) return error;
  if (local_.is_unix() || local_.port() == bound_.port()) return {};
  const SocketAddress address(bound_);
  const SystemResult bound = loop_.system().bind(fd_, address.get(), address.bytes());
  learn_local_endpoint();
  return bound.code();
}

/// True exactly when the kernel chooses the address that suits a peer.
bool DatagramSocket::is_bound_to_any() const {
  if (bound_.is_unix()) return false;
  return bound_ == Endpoint::any(bound_.port()) ||
         bound_ == Endpoint::from_address("::", bound_.port());
}

/// What ICMP said of the old peer isn't the new one's.
void DatagramSocket::tell_error_of_old_peer() {
  if (is_nowhere(peer_)) return;
  int error = 0;
  unsigned bytes = sizeof error;
  failures_.reserve(failures_.size() + 1);
  const SystemResult asked = loop_.system().getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (!asked.ok() || error == 0) return;
  tell_later(error, peer_, 0, false);
  if (frame_ == nullptr && has_news()) defer();
}

std::error_code DatagramSocket::learn_local_endpoint() {
  SocketAddress local;
  const SystemResult result = loop_.system().getsockname(fd_, local.get(), local.bytes_pointer());
  if (result.ok()) local_ = local.endpoint();
  return result.code();
}

}  // namespace pawl
