// SPDX-License-Identifier: MIT
// What connections, listeners and servers say about themselves.
#include <netdb.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using namespace std::string_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::UniqueFd;

namespace {

/// What `connection` says once it is DONE.
std::string last_words(EventLoop& loop, const Connection& connection) {
  run_until(loop, [&] { return connection.state() == ConnectionState::done; });
  return connection.describe();
}

}  // namespace

TEST_CASE("A connection describes where it goes to, where it stands, and what is unsent") {
  RawListener listener;
  const Endpoint there = listener.endpoint();
  OneAnswer names({there});
  EventLoop loop(options_on(names));
  std::string name = "127.0.0.1:" + std::to_string(there.port());
  std::string known = name;
  std::unique_ptr<Connection> connection;
  SECTION("by endpoint") { connection = Connection::connect(loop, there); }
  SECTION("by numeric address") {
    connection = Connection::connect(loop, "127.0.0.1", there.port());
  }
  SECTION("by name") {
    connection = Connection::connect(loop, "example.org", there.port());
    known = "example.org:" + std::to_string(there.port()) + " (" + name + ")";
    name = "example.org:" + std::to_string(there.port());
  }
  CHECK(connection->describe() == "connection to " + name + " CONNECTING, 0 bytes unsent");
  connection->write("12345");
  CHECK(connection->describe() == "connection to " + name + " CONNECTING, 5 bytes unsent");
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return connection->state() == ConnectionState::receiving; });
  CHECK(connection->describe() == "connection to " + known + " RECEIVING, 0 bytes unsent");
  connection->write("1234567");
  CHECK(connection->describe() == "connection to " + known + " SENDING, 7 bytes unsent");
  CHECK_THAT(loop.why_alive(), Catch::Contains("connection to " + known + " SENDING, 7 bytes"));
  connection->abort();
  CHECK(connection->describe() == "connection to " + known +
                                      " DONE: abort in SENDING: aborted by this side, 7 bytes "
                                      "unsent");
}

TEST_CASE("A numeric IPv6 address is described in brackets, once") {
  EventLoop loop;
  const auto connection = Connection::connect(loop, "::1", 80);
  CHECK(connection->describe() == "connection to [::1]:80 CONNECTING, 0 bytes unsent");
}

TEST_CASE("A description is one line, whatever the name that was dialed") {
  EventLoop loop;
  const auto connection = Connection::connect(loop, "a\nb\0c\x1b"s, 80);
  CHECK(last_words(loop, *connection) ==
        "connection to a?b?c?:80 DONE: resolve in CONNECTING: no host can have this name "
        "(beyond ASCII, give the A-label)");
}

TEST_CASE("A peer without a name is said to have none") {
  EventLoop loop;
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  CHECK(connection->describe() == "connection to an unnamed peer RECEIVING, 0 bytes unsent");
}

TEST_CASE("A dial that failed describes the operation, the peer, the state and the reason") {
  const Endpoint nobody = refusing_endpoint();
  const std::string address = nobody.to_string();
  SECTION("refused") {
    EventLoop loop;
    const auto connection = Connection::connect(loop, nobody);
    CHECK(last_words(loop, *connection) ==
          "connection to " + address + " DONE: connect in CONNECTING: Connection refused");
  }
  SECTION("not found") {
    OneAnswer names(EAI_NONAME);
    EventLoop loop(options_on(names));
    const auto connection = Connection::connect(loop, "example.org", 80);
    CHECK(last_words(loop, *connection) ==
          "connection to example.org:80 DONE: resolve in CONNECTING: host not found");
  }
  SECTION("given up") {
    EventLoop loop;
    const auto connection = Connection::connect(loop, nobody);
    connection->close();
    CHECK(connection->describe() ==
          "connection to " + address + " DONE: close in CONNECTING: in good order");
  }
}

TEST_CASE("A connection that ended describes what ended it") {
  ConnectionOptions options;
  options.write_limit = 100'000;
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop, options);
  const std::string who = "connection to " + link.connection->peer_endpoint().to_string();
  SECTION("the peer's end") {
    link.peer.end();
    CHECK(last_words(loop, *link.connection) ==
          who + " DONE: peer's end in RECEIVING: in good order");
  }
  SECTION("the peer's reset") {
    link.peer.reset();
    CHECK(last_words(loop, *link.connection) ==
          who + " DONE: recv in RECEIVING: Connection reset by peer");
  }
  SECTION("an abort") {
    link.connection->abort();
    CHECK(link.connection->describe() == who + " DONE: abort in RECEIVING: aborted by this side");
  }
  SECTION("the write limit") {
    system.fail(Call::send, EAGAIN, FaultySystem::forever);
    link.connection->write(std::string(60'000, 'x'));
    link.connection->write(std::string(60'000, 'x'));
    CHECK(link.connection->describe() ==
          who + " DONE: write in SENDING: too many unsent bytes, 120000 bytes unsent");
  }
}

TEST_CASE("A server and its connections describe themselves") {
  EventLoop loop;
  Connection* accepted = nullptr;
  std::string last;
  pawl::Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    accepted = &connection;
    connection.on_closed([&](Connection& self, std::error_code) { last = self.describe(); });
  });
  const std::string name = server.local_endpoint().to_string();
  CHECK(server.describe() == "server at " + name + " LISTENING, 0 connections");
  const auto client = Connection::connect(loop, server.local_endpoint());
  run_until(loop, [&] { return accepted != nullptr; });
  CHECK(server.describe() == "server at " + name + " LISTENING, 1 connection");
  const std::string peer = accepted->peer_endpoint().to_string();
  CHECK(accepted->describe() == "connection to " + peer + " RECEIVING, 0 bytes unsent");
  server.close();
  CHECK(server.describe() == "server at " + name + " DONE, 1 connection");
  run_until(loop, [&] { return !last.empty(); });
  CHECK(last == "connection to " + peer + " DONE: server close in RECEIVING: server was closed");
}

TEST_CASE("A listener describes where it is and where it stands") {
  EventLoop loop;
  Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  const std::string name = "listener at " + listener.local_endpoint().to_string();
  CHECK(listener.describe() == name + " LISTENING");
  CHECK_THAT(loop.why_alive(), Catch::Contains(name + " LISTENING"));
  listener.pause();
  CHECK(listener.describe() == name + " PAUSED");
  listener.close();
  CHECK(listener.describe() == name + " DONE");
}

TEST_CASE("The states have names") {
  CHECK(to_string(ConnectionState::connecting) == "CONNECTING");
  CHECK(to_string(ConnectionState::sending) == "SENDING");
  CHECK(to_string(ConnectionState::receiving) == "RECEIVING");
  CHECK(to_string(ConnectionState::done) == "DONE");
  CHECK(to_string(pawl::ListenerState::listening) == "LISTENING");
  CHECK(to_string(pawl::ListenerState::paused) == "PAUSED");
  CHECK(to_string(pawl::ListenerState::exhausted) == "EXHAUSTED");
  CHECK(to_string(pawl::ListenerState::done) == "DONE");
}
