// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "pawl/net/connection.hpp"
#include "pawl/net/server.hpp"
#include "support/allocation_sweep.hpp"

/// Does what a callback wants to do with its connection; without memory for that it aborts it, as
/// careful users do.
template <typename Work>
void or_abort(pawl::Connection& connection, Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    connection.abort();
  }
}

/// What came of one connection.
struct Story {
  int connected = 0;
  int ends = 0;    // on_eof
  int closed = 0;  // on_closed, which comes last
  std::string data;
  std::error_code error;

  void take(std::string_view bytes) {
    const Spared spared;
    data.append(bytes);
  }
  void end(std::error_code with) {
    ++closed;
    error = with;
  }
};

/// A server whose connections are counted, and do what a test wants.
struct CountingServer {
  /// `on_connection` sets what it wants, but for on_closed.
  CountingServer(Trial& trial, std::function<void(pawl::Connection&)> on_connection,
                 pawl::ServerOptions options = {},
                 const pawl::Endpoint& endpoint = pawl::Endpoint::loopback(0));

  pawl::Endpoint endpoint() const { return server->local_endpoint(); }
  /// True exactly when each connection that was opened has told its end.
  bool is_quiet() const { return opened == closed && server->connections() == 0; }

  int opened = 0;
  int closed = 0;
  std::unique_ptr<pawl::Server> server;
};

/// A connection of the client's side, and what came of it.
struct Client {
  explicit Client(Trial& of) : trial(of) {}

  /// False when the connection couldn't be made.
  bool dial(const pawl::Endpoint& endpoint, pawl::ConnectionOptions options = {});
  bool dial(const std::string& host, std::uint16_t port, pawl::ConnectionOptions options = {});
  /// on_connected, which calls `begin`; on_data, on_eof and on_closed, which take notes.
  void attach(std::function<void(pawl::Connection&)> begin);
  bool is_over() const { return connection == nullptr || story.closed > 0; }

  Trial& trial;
  std::unique_ptr<pawl::Connection> connection;
  Story story;
};

/// Sends back what comes, and closes when the peer has ended.
void echo(pawl::Connection& connection);
