// SPDX-License-Identifier: MIT
// What a person or a program can ask of a connection.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "net/dialer.hpp"
#include "net/socket_address.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/system/system.hpp"

namespace pawl {

std::size_t Connection::buffered() const {
  const std::uint64_t bytes = state() == ConnectionState::done ? unsent_bytes_ : output_.bytes();
  constexpr std::uint64_t most = std::numeric_limits<std::size_t>::max();
  return static_cast<std::size_t>(std::min(bytes, most));
}

Endpoint Connection::local_endpoint() const {
  if (fd_ < 0) return {};
  SocketAddress local;
  const SystemResult result = loop_.system().getsockname(fd_, local.get(), local.bytes_pointer());
  return result.ok() ? local.endpoint() : Endpoint();
}

const std::vector<DialAttempt>& Connection::attempts() const {
  static const std::vector<DialAttempt> none;
  if (dialer_ != nullptr) return dialer_->failures();
  return rare_ != nullptr ? rare_->attempts : none;
}

std::optional<TcpInfo> Connection::tcp_info() const {
  struct tcp_info kernels {};
  unsigned bytes = sizeof kernels;
  if (fd_ < 0 || !loop_.system().getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &kernels, &bytes).ok()) {
    return std::nullopt;
  }
  TcpInfo info;
  info.round_trip_time = std::chrono::microseconds(kernels.tcpi_rtt);
  info.round_trip_time_variation = std::chrono::microseconds(kernels.tcpi_rttvar);
  info.congestion_window = kernels.tcpi_snd_cwnd;
  info.segment_bytes = kernels.tcpi_snd_mss;
  info.unacknowledged = kernels.tcpi_unacked;
  info.retransmissions = kernels.tcpi_total_retrans;
  info.bytes_acknowledged = kernels.tcpi_bytes_acked;
  info.bytes_received = kernels.tcpi_bytes_received;
  return info;
}

std::optional<PeerCredentials> Connection::peer_credentials() const {
  struct ucred kernels {};
  unsigned bytes = sizeof kernels;
  if (fd_ < 0 || !loop_.system().getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &kernels, &bytes).ok() ||
      kernels.uid == static_cast<uid_t>(-1)) {  // what a socket of another kind says
    return std::nullopt;
  }
  return PeerCredentials{kernels.pid, kernels.uid, kernels.gid};
}

/// "127.0.0.1:80", "example.org:80", "example.org:80 (192.0.2.1:80)", "an unnamed peer"
std::string Connection::peer_name() const {
  const bool has_address = peer_.family() != Endpoint::Family::none;
  const std::string address = has_address ? peer_.to_string() : "";
  const std::string target = rare_ != nullptr ? rare_->target : "";
  if (target.empty() && !has_address) return "an unnamed peer";  // of a Unix socket
  if (target.empty() || target == address) return address;
  return has_address ? target + " (" + address + ")" : target;
}

std::string Connection::describe() const {
  std::string text = "connection to " + peer_name() + " " + std::string(to_string(state()));
  if (state() != ConnectionState::done) {
    if (unusual_.output_side != Output::failed) {
      return text + ", " + std::to_string(output_.bytes()) + " bytes unsent";
    }
    return text + ", " + std::string(ended_by_) +
           " failed: " + system_error_code(output_error_).message() + ", " +
           std::to_string(unsent_bytes_) + " bytes lost";
  }
  text += ": " + std::string(ended_by_) + " in " + std::string(to_string(ended_in_)) + ": " +
          (error_ ? error_.message() : "in good order");
  if (unsent_bytes_ > 0) text += ", " + std::to_string(unsent_bytes_) + " bytes unsent";
  if (unacknowledged_bytes_ > 0) {
    const bool is_of_tcp =
        peer_.family() == Endpoint::Family::ipv4 || peer_.family() == Endpoint::Family::ipv6;
    text += is_of_tcp ? ", " + std::to_string(unacknowledged_bytes_) + " bytes unacknowledged"
                      : ", the last of what was sent unread";
  }
  const bool is_told = attempts().size() == 1 && attempts().front().peer == peer_;
  if (is_told || ended_in_ != ConnectionState::connecting) return text;
  for (const DialAttempt& attempt : attempts()) text += "; tried " + to_string(attempt);
  return text;
}

}  // namespace pawl
