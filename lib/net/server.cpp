// SPDX-License-Identifier: MIT
// Traps: a connection is forgotten from inside a destructor, where nothing may want memory; what
// fails between taking a connection in and starting it mustn't keep its place for ever.
#include "pawl/net/server.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "net/connection_frame.hpp"
#include "net/socket_address.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/system/system.hpp"

namespace pawl {
namespace {

ListenerOptions listener_options(const ServerOptions& options) {
  ListenerOptions listener;
  static_cast<SocketOptions&>(listener) = options.connection;
  listener.backlog = options.backlog;
  listener.reuse_port = options.reuse_port;
  listener.is_ipv6_only = options.is_ipv6_only;
  listener.fast_open_queue = options.fast_open_queue;
  listener.accept_budget = options.accept_budget;
  return listener;
}

bool is_stream(System& system, int fd) {
  int type = 0;
  unsigned bytes = sizeof type;
  return system.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes).ok() && type == SOCK_STREAM;
}

}  // namespace

std::size_t Server::AddressHash::operator()(const Address& address) const {
  return std::hash<std::string_view>()(std::string_view(address.data(), address.size()));
}

template <typename Where>
Server::Server(Common, EventLoop& loop, Where&& where, Function<void(Connection&)>&& on_connection,
               const ServerOptions& options, Place place)
    : loop_(loop),
      on_connection_(std::make_shared<Function<void(Connection&)>>(std::move(on_connection))),
      max_connections_(options.max_connections),
      max_per_peer_(options.max_connections_per_peer),
      connection_options_(std::make_shared<const ConnectionOptions>(options.connection)),
      place_(place),
      listener_(
          loop, std::forward<Where>(where),
          [this](UniqueFd socket, const Endpoint& peer) { accept(std::move(socket), peer); },
          listener_options(options), place) {
  listener_.on_drained_ = [this] { on_change(); };
}

Server::Server(EventLoop& loop, const Endpoint& endpoint, Function<void(Connection&)> on_connection,
               ServerOptions options, Place place)
    : Server(Common(), loop, endpoint, std::move(on_connection), options, place) {}

Server::Server(EventLoop& loop, UniqueFd socket, Function<void(Connection&)> on_connection,
               ServerOptions options, Place place)
    : Server(Common(), loop, std::move(socket), std::move(on_connection), options, place) {
  if (is_stream(loop.system(), listener_.fd_.get())) return;
  throw std::system_error(system_error_code(EPROTOTYPE),
                          "Server at " + local_endpoint().to_string() + ": is no stream socket");
}

Server::~Server() {
  life_.reset();
  // A callback's captures may hold others; each goes while the rest is still in order.
  while (!connections_.empty()) {
    const std::unique_ptr<Connection> last = std::move(connections_.back());
    connections_.pop_back();
  }
}

// Taking connections in

void Server::accept(UniqueFd socket, const Endpoint& peer) {
  if (is_limited(peer)) {
    const auto entry = per_peer_.find(address_of(peer));
    if (entry != per_peer_.end() && entry->second >= max_per_peer_) {
      ++refused_;
      return;
    }
  }
  take(std::move(socket), peer);
}

void Server::adopt(UniqueFd socket) {
  auto take_it = [this, life = std::weak_ptr<void>(life_), socket = std::move(socket)]() mutable {
    if (!life.expired()) adopt_now(std::move(socket));
  };
  loop_.call_soon(std::move(take_it), place_);
}

void Server::adopt_now(UniqueFd socket) {
  if (is_closing_ || !is_stream(loop_.system(), socket.get())) return;
  SocketAddress peer;
  if (!loop_.system().getpeername(socket.get(), peer.get(), peer.bytes_pointer()).ok()) return;
  if (!loop_.system().set_non_blocking(socket.get(), true).ok()) return;
  take(std::move(socket), peer.endpoint());
}

bool Server::is_limited(const Endpoint& peer) const {
  const bool has_address =
      peer.family() == Endpoint::Family::ipv4 || peer.family() == Endpoint::Family::ipv6;
  return max_per_peer_ != 0 && has_address;
}

Server::Address Server::address_of(const Endpoint& peer) {
  Address bytes{};
  const SocketAddress address(peer);
  if (peer.family() == Endpoint::Family::ipv4) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(*address.get());
    std::memcpy(bytes.data(), &in.sin_addr, sizeof in.sin_addr);
  } else {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(*address.get());
    std::memcpy(bytes.data(), &in6.sin6_addr, sizeof in6.sin6_addr);
    std::memcpy(bytes.data() + sizeof in6.sin6_addr, &in6.sin6_scope_id, sizeof(std::uint32_t));
  }
  return bytes;
}

/// Gives the place of a connection back whose beginning an exception ended.
struct Server::Birth {
  Server& server;
  Connection& connection;
  bool is_over = false;
  ~Birth() {
    if (!is_over) server.forget(connection);
  }
};

void Server::take(UniqueFd socket, const Endpoint& peer) {
  std::unique_ptr<Connection> connection(new Connection(loop_, connection_options_, place_));
  Connection& accepted = *connection;
  accepted.server_ = this;
  accepted.server_position_ = connections_.size();
  accepted.peer_ = peer;
  connections_.push_back(nullptr);  // first what may fail, then what it is for
  try {
    if (is_closing_) closing_ = loop_.call_soon([this] { close_newcomers(); }, place_);
    if (is_limited(peer)) ++per_peer_[address_of(peer)];
  } catch (...) {
    connections_.pop_back();
    throw;
  }
  connections_.back() = std::move(connection);
  Birth birth{*this, accepted};
  update_listening();
  const std::error_code error = accepted.start(socket.release());
  if (error) accepted.end(error, "accept");
  birth.is_over = true;
  if (error) return;
  const auto on_connection = on_connection_;  // it may destroy the server
  accepted.introduce(*on_connection);
}

void Server::forget(Connection& connection) {
  const std::size_t position = connection.server_position_;
  const std::unique_ptr<Connection> gone = std::move(connections_[position]);
  if (position + 1 != connections_.size()) {
    connections_[position] = std::move(connections_.back());
    connections_[position]->server_position_ = position;
  }
  connections_.pop_back();
  if (is_limited(gone->peer_)) {
    const auto entry = per_peer_.find(address_of(gone->peer_));
    if (--entry->second == 0) per_peer_.erase(entry);
  }
  on_change();
}

void Server::pause() {
  is_paused_ = true;
  update_listening();
}

void Server::resume() {
  is_paused_ = false;
  update_listening();
}

void Server::update_listening() {
  const bool has_room = max_connections_ == 0 || connections_.size() < max_connections_;
  const ListenerState state = listener_.state();
  const bool is_held = state == ListenerState::paused || state == ListenerState::held;
  if (has_room && !is_paused_) {
    if (is_held) listener_.resume();
  } else if (!is_held && state != ListenerState::done) {
    listener_.pause();
  }
}

/// A connection has gone, or the backlog is empty.
void Server::on_change() {
  update_listening();
  if (connections_.empty() && listener_.state() == ListenerState::done) grace_.cancel();
}

void Server::for_each(Function<void(Connection&)> visit) {
  const std::weak_ptr<void> life = life_;
  for (std::size_t i = 0; !life.expired() && i < connections_.size(); ++i) {
    if (loop_.parts().is_forked_child()) return;  // whoever is left is the parent's alone
    visit(*connections_[i]);
  }
}

void Server::on_exhausted(Function<void(std::error_code)> callback) {
  listener_.on_exhausted(std::move(callback));
}

void Server::on_failed(Function<void(std::error_code)> callback) {
  listener_.on_failed(std::move(callback));
}

// The end

void Server::close(Duration grace) {
  const bool is_graceful = grace > Duration::zero();
  ScopedHandle end;
  if (is_graceful) {
    end = loop_.call_later(  // first: it may fail
        grace, [this] { on_grace_end(); }, place_);
  }
  listener_.close(grace);
  grace_ = std::move(end);
  is_closing_ = true;
  is_paused_ = false;
  if (!is_graceful) return end_all();
  close_all();
  on_change();
}

void Server::close_all() {
  for (const auto& connection : connections_) connection->close();
}

/// Those that were accepted while it was closing had a pass to send something in.
void Server::close_newcomers() {
  const std::weak_ptr<void> life = life_;
  try {
    read_once_more([](Connection& connection) { connection.close(); });
  } catch (...) {  // of a callback: the others are to be closed still
    if (!life.expired()) close_all();
    throw;
  }
}

/// What came while this process stood still, the peer's end above all, counts.
void Server::on_grace_end() {
  const std::weak_ptr<void> life = life_;
  try {
    read_once_more([](Connection&) {});
  } catch (...) {
    if (!life.expired()) end_all();
    throw;
  }
  if (!life.expired()) end_all();
}

/// Reads from each connection, as a selector may tell of a part of the ready ones in one pass, and
/// calls `then` for it unless that ended it.
template <typename Then>
void Server::read_once_more(Then then) {
  const std::weak_ptr<void> life = life_;
  // From the back: one that goes is replaced by the last.
  for (std::size_t i = connections_.size(); !life.expired() && i > 0; --i) {
    if (i > connections_.size()) continue;
    if (loop_.parts().is_forked_child()) return;  // by a callback of the last one
    Connection& connection = *connections_[i - 1];
    if (connection.state() == ConnectionState::done) continue;
    const std::size_t before = connections_.size();
    if (connection.wants_input()) connection.on_ready(Interest::read);
    const bool is_there = !life.expired() && connections_.size() == before;
    if (is_there) then(*connections_[i - 1]);
  }
}

void Server::end_all() {
  listener_.close();
  for (const auto& connection : connections_) {
    connection->flush();
    connection->end(CloseReason::server_closed, Errc::server_closed, "server close");
  }
}

std::string Server::describe() const {
  return "server at " + local_endpoint().to_string() + " " +
         std::string(to_string(listener_.state())) + ", " + std::to_string(connections()) +
         (connections() == 1 ? " connection" : " connections");
}

}  // namespace pawl
