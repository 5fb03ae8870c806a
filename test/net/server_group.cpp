// SPDX-License-Identifier: MIT
// Servers on the loops of a group.
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/loop/loop_group.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/counter.hpp"

using pawl::Connection;
using pawl::Endpoint;
using pawl::EventLoop;
using pawl::Listener;
using pawl::LoopGroup;
using pawl::Server;
using pawl::ServerOptions;
using pawl::UniqueFd;

namespace {

void echo(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
}

/// The servers of a group's loops, each used on its own thread alone.
struct Servers {
  /// A body of a loop: a server, which says how many it was shown, until the loop is stopped.
  auto body(const Endpoint& endpoint, const ServerOptions& options) {
    return [this, endpoint, options](EventLoop& loop, std::size_t index) {
      Server server(
          loop, endpoint,
          [this, index](Connection& peer) {
            echo(peer);
            ++shown.at(index);
          },
          options);
      servers.at(index) = &server;
      ready.up();
      loop.run_forever();
    };
  }
  int all() const {
    int sum = 0;
    for (const auto& each : shown) sum += each;
    return sum;
  }

  std::array<Server*, 4> servers{};
  std::array<std::atomic<int>, 4> shown{};
  Counter ready;
};

/// `count` clients of `endpoint`, each of which hears itself.
void check_echo(EventLoop& loop, const Endpoint& endpoint, int count) {
  struct Client {
    Client(EventLoop& loop, const Endpoint& where)
        : connection(Connection::connect(loop, where)), record(*connection) {
      connection->write("hello");
    }
    std::unique_ptr<Connection> connection;
    Recorder record;
  };
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < count; ++i) clients.push_back(std::make_unique<Client>(loop, endpoint));
  for (const auto& client : clients) {
    run_until(loop, [&] { return client->record.data == "hello" || client->record.closed > 0; });
    CHECK(client->record.order.find("closed") == std::string::npos);
    client->connection->close();
  }
  for (const auto& client : clients) {
    run_until(loop, [&] { return client->record.closed > 0; });
    CHECK_FALSE(client->record.error);
  }
}

}  // namespace

TEST_CASE("A server on each loop of a group shares one port, and serves 200 connections",
          "[threads]") {
  ServerOptions options;
  options.reuse_port = true;
  EventLoop loop;
  // Holds the port, and accepts nobody: it listens no more when the others do.
  Server first(
      loop, Endpoint::loopback(0), [](Connection&) {}, options);
  const Endpoint there = first.local_endpoint();
  Servers servers;
  LoopGroup group(4, servers.body(there, options));
  REQUIRE(servers.ready.reaches(4));
  first.close();
  check_echo(loop, there, 200);
  CHECK(servers.all() == 200);
  int used = 0;
  for (const auto& shown : servers.shown) used += shown > 0 ? 1 : 0;
  CHECK(used >= 2);  // the kernel's hash: that one has all 200 is less likely than 1 in 10^100
}

TEST_CASE("What one loop accepts can be handed over to the others", "[threads]") {
  Servers servers;
  LoopGroup group(3, servers.body(Endpoint::loopback(0), {}));
  REQUIRE(servers.ready.reaches(3));
  EventLoop loop;
  Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd socket, const Endpoint&) {
    const std::size_t index = group.next();
    const bool is_taken = group.call_soon_threadsafe(
        index, [&servers, index, socket = std::move(socket)](EventLoop&) mutable {
          servers.servers.at(index)->adopt(std::move(socket));
        });
    CHECK(is_taken);
  });
  check_echo(loop, listener.local_endpoint(), 60);
  for (std::size_t i = 0; i < 3; ++i) CHECK(servers.shown.at(i) == 20);
}

TEST_CASE("A socket that is handed over to a loop that has ended is closed", "[threads]") {
  LoopGroup group(1, [](EventLoop& loop, std::size_t) { loop.run_forever(); });
  group.stop();
  group.join();
  EventLoop loop;
  Listener listener(loop, Endpoint::loopback(0), [&](UniqueFd socket, const Endpoint&) {
    CHECK_FALSE(group.call_soon_threadsafe(0, [socket = std::move(socket)](EventLoop&) {}));
  });
  const auto client = Connection::connect(loop, listener.local_endpoint());
  Recorder record(*client);
  run_until(loop, [&] { return record.closed > 0; });
}
