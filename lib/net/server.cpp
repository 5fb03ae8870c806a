// SPDX-License-Identifier: MIT
#include "pawl/net/server.hpp"

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
  listener.fast_open_queue = options.fast_open_queue;
  listener.accept_budget = options.accept_budget;
  return listener;
}

}  // namespace

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
          listener_options(options), place) {}

Server::Server(EventLoop& loop, const Endpoint& endpoint, Function<void(Connection&)> on_connection,
               ServerOptions options, Place place)
    : Server(Common(), loop, endpoint, std::move(on_connection), options, place) {}

Server::Server(EventLoop& loop, UniqueFd socket, Function<void(Connection&)> on_connection,
               ServerOptions options, Place place)
    : Server(Common(), loop, std::move(socket), std::move(on_connection), options, place) {}

Server::~Server() {
  life_.reset();
  // A callback's captures may hold others; each goes while the rest is still in order.
  while (!connections_.empty()) {
    const std::unique_ptr<Connection> last = std::move(connections_.back());
    connections_.pop_back();
  }
}

void Server::accept(UniqueFd socket, const Endpoint& peer) {
  if (const std::string address = address_of(peer); !address.empty()) {
    const auto entry = per_peer_.find(address);
    if (entry != per_peer_.end() && entry->second >= max_per_peer_) {
      ++refused_;
      return;
    }
  }
  take(std::move(socket), peer);
}

void Server::adopt(UniqueFd socket) {
  auto take_it = [this, life = std::weak_ptr<void>(life_), socket = std::move(socket)]() mutable {
    if (life.expired() || listener_.state() == ListenerState::done) return;
    SocketAddress peer;
    loop_.system().getpeername(socket.get(), peer.get(), peer.bytes_pointer());
    take(std::move(socket), peer.endpoint());
  };
  loop_.call_soon(std::move(take_it), place_);
}

/// What the limit of one peer goes by; empty when there is none.
std::string Server::address_of(const Endpoint& peer) const {
  const bool has_address =
      peer.family() == Endpoint::Family::ipv4 || peer.family() == Endpoint::Family::ipv6;
  return max_per_peer_ != 0 && has_address ? peer.host() : std::string();
}

void Server::take(UniqueFd socket, const Endpoint& peer) {
  std::unique_ptr<Connection> connection(new Connection(loop_, connection_options_, place_));
  Connection& accepted = *connection;
  accepted.server_ = this;
  accepted.server_position_ = connections_.size();
  connections_.push_back(std::move(connection));
  if (std::string address = address_of(peer); !address.empty()) ++per_peer_[std::move(address)];
  update_listening();
  const std::error_code error = accepted.start(socket.release(), peer);
  if (error) return accepted.end(error, "accept");
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
  if (const std::string address = address_of(gone->peer_endpoint()); !address.empty()) {
    const auto entry = per_peer_.find(address);
    if (--entry->second == 0) per_peer_.erase(entry);
  }
  if (connections_.empty()) grace_.cancel();
  update_listening();
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
  const bool is_paused = listener_.state() == ListenerState::paused;
  if (has_room && !is_paused_) {
    if (is_paused) listener_.resume();
  } else if (!is_paused && listener_.state() != ListenerState::done) {
    listener_.pause();
  }
}

void Server::for_each(Function<void(Connection&)> visit) {
  const std::weak_ptr<void> life = life_;
  for (std::size_t i = 0; !life.expired() && i < connections_.size(); ++i) visit(*connections_[i]);
}

void Server::on_exhausted(Function<void(std::error_code)> callback) {
  listener_.on_exhausted(std::move(callback));
}

void Server::close(Duration grace) {
  listener_.close();
  if (grace <= Duration::zero()) return end_all();
  for (const auto& connection : connections_) connection->close();
  if (connections_.empty()) return;
  grace_ = loop_.call_later(
      grace, [this] { end_all(); }, place_);
}

void Server::end_all() {
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
