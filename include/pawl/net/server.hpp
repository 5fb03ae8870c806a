// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "pawl/core/api.hpp"
#include "pawl/core/function.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"
#include "pawl/loop/scoped_handle.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/endpoint.hpp"
#include "pawl/net/listener.hpp"

namespace pawl {

struct ServerOptions {
  int backlog = 1024;               ///< the kernel caps it at net.core.somaxconn
  std::size_t max_connections = 0;  ///< at once; the kernel's backlog holds the rest. 0: no limit
  /// Of one address, at once; who comes beyond that is closed at once. 0: no limit. Unix sockets
  /// have no address.
  std::size_t max_connections_per_peer = 0;
  bool reuse_port = false;         ///< several servers share the port (SO_REUSEPORT)
  bool is_ipv6_only = false;       ///< [::] doesn't take IPv4 too (IPV6_V6ONLY)
  int fast_open_queue = 0;         ///< as `ListenerOptions`
  std::size_t accept_budget = 64;  ///< accepts in one pass, at most
  ConnectionOptions connection;    ///< of each connection
};

/// A listener that owns the connections it accepts.
///
/// Owns:     the connections: each is destroyed after its `on_closed`. Destroying the server, from
///           any callback, aborts them silently.
/// Threads:  the loop's. The loop must outlive it.
/// Calls:    `on_connection` once for each, to set its callbacks; it is RECEIVING then.
/// Promises: a connection's timeouts begin when it is accepted, however long it waited for that.
/// Fails:    the constructor throws `std::system_error`, which names the operation and the
///           endpoint.
class PAWL_API Server {
 public:
  Server(EventLoop& loop, const Endpoint& endpoint, Function<void(Connection&)> on_connection,
         ServerOptions options = {}, Place place = Place::here());
  /// With a socket that listens already, such as one of `inherited_sockets()`.
  Server(EventLoop& loop, UniqueFd socket, Function<void(Connection&)> on_connection,
         ServerOptions options = {}, Place place = Place::here());
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  Endpoint local_endpoint() const { return listener_.local_endpoint(); }
  /// How many are open, or closed and not yet told so.
  std::size_t connections() const { return connections_.size(); }
  /// Takes a connected socket as if it had accepted it, in the next pass; for one that another
  /// thread has accepted. The limits don't hold for it. Once the server is closed it is closed too,
  /// and so is at once what is no stream socket. One that blocks doesn't any more.
  void adopt(UniqueFd socket);
  /// Accepts no one until `resume`; the kernel's backlog holds who comes.
  void pause();
  void resume();
  /// Calls `visit` for each connection, at once. It may close and abort them, and destroy the
  /// server, which ends it; so does a fork in the child, where it visits nobody.
  void for_each(Function<void(Connection&)> visit);
  /// How many were turned away by max_connections_per_peer.
  std::uint64_t refused() const { return refused_; }
  /// Stops listening and closes every connection in good order (`Connection::close`). Those that
  /// are left after `grace` end with `Errc::server_closed`; with no grace, all do, in the next
  /// pass. With grace those who wait in the kernel's backlog are accepted first, within the limits
  /// (a full server takes them as others leave); what they have sent by then is read, and then they
  /// are closed in good order too. The rest is reset: see `Listener::close`.
  void close(Duration grace = {});
  /// As `Listener::on_exhausted`.
  void on_exhausted(Function<void(std::error_code)> callback);
  /// As `Listener::on_failed`. The connections go on.
  void on_failed(Function<void(std::error_code)> callback);
  /// "server at 127.0.0.1:80 LISTENING, 3 connections"
  std::string describe() const;

 private:
  friend class Connection;
  struct Common {};
  struct Birth;
  /// An IP address and its scope, as bytes: what the limit of one peer goes by.
  using Address = std::array<char, 20>;
  struct AddressHash {
    std::size_t operator()(const Address& address) const;
  };

  template <typename Where>
  Server(Common, EventLoop& loop, Where&& where, Function<void(Connection&)>&& on_connection,
         const ServerOptions& options, Place place);
  void accept(UniqueFd socket, const Endpoint& peer);
  void adopt_now(UniqueFd socket);
  void take(UniqueFd socket, const Endpoint& peer);
  void forget(Connection& connection);
  bool is_limited(const Endpoint& peer) const;
  static Address address_of(const Endpoint& peer);
  void update_listening();
  void close_all();
  void close_newcomers();
  void on_grace_end();
  template <typename Then>
  void read_once_more(Then then);
  void end_all();
  void on_change();

  EventLoop& loop_;
  std::shared_ptr<Function<void(Connection&)>> on_connection_;  // shared with the call
  std::size_t max_connections_;
  std::size_t max_per_peer_;
  std::shared_ptr<const ConnectionOptions> connection_options_;
  Place place_;
  bool is_paused_ = false;   // true exactly between pause() and resume(), or the end
  bool is_closing_ = false;  // true exactly after close()
  std::vector<std::unique_ptr<Connection>> connections_;
  std::shared_ptr<void> life_ = std::make_shared<char>();  // for who may outlive the server
  std::unordered_map<Address, std::size_t, AddressHash> per_peer_;  // when max_per_peer_ is set
  std::uint64_t refused_ = 0;
  ScopedHandle closing_;  // of those that were accepted while it is closing
  ScopedHandle grace_;
  Listener listener_;
};

}  // namespace pawl
