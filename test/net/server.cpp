// SPDX-License-Identifier: MIT
#include "pawl/net/server.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "support/descriptor_limit.hpp"
#include "support/interrupter.hpp"
#include "support/thrown.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Server;
using pawl::ServerOptions;
using pawl::UniqueFd;

namespace {

void echo(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
}

ServerOptions at_most(std::size_t connections) {
  ServerOptions options;
  options.max_connections = connections;
  return options;
}

/// A client of pawl's, recorded.
struct Client {
  Client(EventLoop& loop, const Endpoint& endpoint)
      : connection(Connection::connect(loop, endpoint)), record(*connection) {}
  std::unique_ptr<Connection> connection;
  Recorder record;
};

}  // namespace

TEST_CASE("A server shows each connection once, RECEIVING, and owns it until it is closed") {
  EventLoop loop;
  std::vector<Connection*> shown;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    CHECK(connection.state() == ConnectionState::receiving);
    CHECK(&connection.loop() == &loop);
    shown.push_back(&connection);
    echo(connection);
  });
  CHECK(server.connections() == 0);
  Client first(loop, server.local_endpoint());
  Client second(loop, server.local_endpoint());
  first.connection->write("one");
  second.connection->write("two");
  run_until(loop, [&] { return first.record.data == "one" && second.record.data == "two"; });
  CHECK(shown.size() == 2);
  CHECK(shown[0] != shown[1]);
  CHECK(server.connections() == 2);
  first.connection->close();
  run_until(loop, [&] { return first.record.closed == 1; });
  passes(loop);
  CHECK(server.connections() == 1);
  CHECK(second.record.closed == 0);
}

TEST_CASE("A connection of a server is there until its on_closed returns") {
  EventLoop loop;
  std::size_t during = 0;
  std::string description;
  std::optional<Server> server;
  auto token = std::make_shared<int>(7);
  const std::weak_ptr<int> watch = token;
  server.emplace(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.on_data(
        [captured = std::exchange(token, nullptr)](Connection&, std::string_view) {});
    connection.on_closed([&](Connection& self, std::error_code) {
      during = server->connections();
      description = self.describe();
      CHECK_FALSE(watch.expired());
    });
  });
  RawPeer(loop, raw_connect(server->local_endpoint())).close();
  run_until(loop, [&] { return !description.empty(); });
  CHECK(during == 1);
  CHECK(server->connections() == 0);
  CHECK(watch.expired());
}

TEST_CASE("A full server lets the next one wait in the backlog until somebody leaves") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo, at_most(2));
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<Client>(loop, server.local_endpoint()));
    clients.back()->connection->write("hello");
  }
  const auto served = [&] {
    return std::count_if(clients.begin(), clients.end(),
                         [](const auto& client) { return client->record.data == "hello"; });
  };
  run_until(loop, [&] { return served() == 2; });
  passes(loop, 20);
  CHECK(served() == 2);
  CHECK(server.connections() == 2);
  CHECK_THAT(server.describe(), Catch::Contains("PAUSED, 2 connections"));
  for (int left = 1; left <= 2; ++left) {
    const auto leaver = std::find_if(clients.begin(), clients.end(), [](const auto& client) {
      return client->record.data == "hello" && client->record.closed == 0;
    });
    REQUIRE(leaver != clients.end());
    (*leaver)->connection->abort();
    run_until(loop, [&] { return served() == 2 + left; });
    passes(loop);
    CHECK(server.connections() == 2);
  }
}

TEST_CASE("A server that is full and closed stays closed when somebody leaves") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo, at_most(1));
  Client client(loop, server.local_endpoint());
  run_until(loop, [&] { return server.connections() == 1; });
  server.close(1h);
  client.connection->close();
  run_until(loop, [&] { return server.connections() == 0; });
  CHECK_THAT(server.describe(), Catch::Contains(" DONE, "));
}

TEST_CASE("Closing a server with no grace ends its connections in the next pass") {
  EventLoop loop;
  int closed = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.on_closed([&](Connection& self, std::error_code error) {
      CHECK(error == Errc::server_closed);
      CHECK(self.error() == Errc::server_closed);
      ++closed;
    });
  });
  Client clients[2] = {Client(loop, server.local_endpoint()),
                       Client(loop, server.local_endpoint())};
  run_until(loop, [&] { return server.connections() == 2; });
  server.close();
  CHECK(closed == 0);
  CHECK(server.connections() == 2);
  pass(loop);
  CHECK(closed == 2);
  CHECK(server.connections() == 0);
  server.close();
  loop.run();
  for (const Client& client : clients) {
    CHECK(client.record.order == "connected eof closed");
    CHECK_FALSE(client.record.error);
  }
  Client late(loop, server.local_endpoint());
  loop.run();
  CHECK(late.record.error == std::errc::connection_refused);
}

TEST_CASE("What was written before a server closed still leaves") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  std::vector<Connection*> accepted;
  Server speaker(loop, Endpoint::loopback(0),
                 [&](Connection& connection) { accepted.push_back(&connection); });
  Client client(loop, speaker.local_endpoint());
  run_until(loop, [&] { return !accepted.empty(); });
  accepted[0]->write("goodbye");
  speaker.close();
  run_until(loop, [&] { return client.record.closed == 1; });
  CHECK(client.record.data == "goodbye");
}

TEST_CASE("Closing a server with grace lets its connections end in good order") {
  EventLoop loop;
  std::vector<std::error_code> endings;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.write("welcome");
    connection.on_closed([&](Connection&, std::error_code error) { endings.push_back(error); });
  });
  Client client(loop, server.local_endpoint());
  run_until(loop, [&] { return client.record.data == "welcome"; });
  server.close(1h);
  loop.run();  // which returns: an hour isn't waited for with nobody left
  CHECK(client.record.order == "connected data eof closed");
  CHECK_FALSE(client.record.error);
  REQUIRE(endings.size() == 1);
  CHECK_FALSE(endings[0]);
}

TEST_CASE("Closing a server without connections with grace leaves nothing to wait for") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  server.close(1h);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("Connections that are left after the grace end with server_closed") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  std::vector<std::error_code> endings;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.on_closed([&](Connection&, std::error_code error) { endings.push_back(error); });
  });
  const UniqueFd stubborn = raw_connect(server.local_endpoint());
  RawPeer polite(loop, raw_connect(server.local_endpoint()));
  spin_until(loop, [&] { return server.connections() == 2; });
  server.close(10s);
  polite.end();
  spin_until(loop, [&] { return server.connections() == 1; });
  system.advance(10s - 1ns);
  passes(loop);
  CHECK(server.connections() == 1);
  SECTION("when it is over") { system.advance(1ns); }
  SECTION("or when it is cut short") { server.close(); }
  spin_until(loop, [&] { return server.connections() == 0; });
  REQUIRE(endings.size() == 2);
  CHECK_FALSE(endings[0]);
  CHECK(endings[1] == Errc::server_closed);
}

TEST_CASE("Destroying a server resets its connections silently") {
  EventLoop loop;
  int told = 0;
  auto server = std::make_unique<Server>(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.on_closed([&](Connection&, std::error_code) { ++told; });
  });
  Client client(loop, server->local_endpoint());
  run_until(loop, [&] { return server->connections() == 1; });
  server.reset();
  loop.run();
  CHECK(told == 0);
  CHECK(client.record.error == std::errc::connection_reset);
}

TEST_CASE("A server may be closed or destroyed from any callback of its connections") {
  enum class Where { on_connection, on_data, on_drained, on_eof, on_closed };
  const auto where = GENERATE(Where::on_connection, Where::on_data, Where::on_drained,
                              Where::on_eof, Where::on_closed);
  const bool destroys = GENERATE(false, true);
  const bool throws_too = GENERATE(false, true);
  CAPTURE(static_cast<int>(where), destroys, throws_too);
  EventLoop loop;
  std::unique_ptr<Server> server;
  int calls = 0;
  int told = 0;
  const auto end_it = [&, own = std::make_shared<int>(7)] {
    if (++calls > 1) return;
    if (destroys) {
      server.reset();
    } else {
      server->close();
    }
    CHECK(*own == 7);
    if (throws_too) throw Thrown();
  };
  server =
      std::make_unique<Server>(loop, Endpoint::loopback(0), [&, end_it](Connection& connection) {
        connection.on_closed([&, end_it](Connection&, std::error_code) {
          ++told;
          if (where == Where::on_closed) end_it();
        });
        connection.on_data([=](Connection&, std::string_view) {
          if (where == Where::on_data) end_it();
        });
        if (where == Where::on_drained) {
          connection.on_drained([end_it](Connection&) { end_it(); });
          connection.write("x");
        }
        if (where == Where::on_eof) connection.on_eof([end_it](Connection&) { end_it(); });
        if (where == Where::on_connection) end_it();
      });
  std::vector<std::unique_ptr<RawPeer>> peers;
  for (int i = 0; i < 3; ++i) {
    peers.push_back(std::make_unique<RawPeer>(loop, raw_connect(server->local_endpoint())));
    peers.back()->send("hello");
    peers.back()->end();
  }
  const auto run = [&] {
    try {
      passes(loop, 50);
    } catch (const Thrown&) {
      return true;
    }
    return false;
  };
  bool has_thrown = false;
  for (int i = 0; i < 20; ++i) has_thrown = run() || has_thrown;
  CHECK(calls > 0);
  CHECK(has_thrown == throws_too);
  if (server != nullptr) CHECK(server->connections() == 0);
  if (destroys && where != Where::on_closed) CHECK(told == 0);
}

TEST_CASE(
    "An exception from on_connection leaves run(), and its connection is a connection still") {
  EventLoop loop;
  int shown = 0;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    ++shown;
    connection.write("hello");
    if (shown == 1) throw Thrown();
  });
  Client first(loop, server.local_endpoint());
  CHECK_THROWS_AS(run_until(loop, [] { return false; }), Thrown);
  Client second(loop, server.local_endpoint());
  run_until(loop, [&] { return first.record.data == "hello" && second.record.data == "hello"; });
  CHECK(server.connections() == 2);
  first.connection->close();
  run_until(loop, [&] { return first.record.closed == 1 && server.connections() == 1; });
}

TEST_CASE("A connection that can't be watched is closed and forgotten") {
  class Unwatchable final : public pawl::System {
   public:
    pawl::SystemResult accept(int fd, sockaddr* address, unsigned* bytes) override {
      const pawl::SystemResult result = System::accept(fd, address, bytes);
      if (result.ok() && loop != nullptr) loop->add_reader(result.fd(), [] {});
      if (result.ok()) accepted = result.fd();
      return result;
    }
    EventLoop* loop = nullptr;
    int accepted = -1;
  };
  Unwatchable system;
  EventLoop loop(options_on(system));
  system.loop = &loop;
  int shown = 0;
  Server server(
      loop, Endpoint::loopback(0), [&](Connection&) { ++shown; }, at_most(1));
  const RawPeer client(loop, raw_connect(server.local_endpoint()));
  run_until(loop, [&] { return system.accepted >= 0; });
  loop.remove_reader(system.accepted);
  run_until(loop, [&] { return client.is_over(); });
  passes(loop);
  CHECK(server.connections() == 0);
  CHECK(shown == 0);
  CHECK_THAT(server.describe(), Catch::Contains("LISTENING"));
}

TEST_CASE("A server without a descriptor left waits, says so once, and serves when there is one") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  int told = 0;
  Server server(loop, Endpoint::loopback(0), echo);
  server.on_exhausted([&](std::error_code error) {
    ++told;
    CHECK(error == std::errc::too_many_files_open);
  });
  std::vector<std::unique_ptr<RawPeer>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RawPeer>(loop, raw_connect(server.local_endpoint())));
    clients.back()->send("hello");
  }
  pass(loop);  // whatever a pass needs a descriptor for, it has by now
  const std::size_t before = server.connections();
  REQUIRE(before < 3);
  {
    const NoDescriptorLeft full;
    const auto a_millisecond_passes = [&] {
      system.advance(1ms);
      pass(loop);
    };
    const int tries_before = system.count(Call::accept);
    for (int i = 0; i < 220; ++i) a_millisecond_passes();
    CHECK(told == 1);
    CHECK(system.count(Call::accept) - tries_before <= 5);  // one each 50 ms
    const int tries = system.count(Call::accept);
    spin_until(loop, [&] {
      a_millisecond_passes();
      return system.count(Call::accept) > tries;
    });
    CHECK(server.connections() == before);
  }
  system.advance(100ms);  // that long at most, just after a try; no more time goes by
  spin_until(loop, [&] {
    return std::all_of(clients.begin(), clients.end(),
                       [](const auto& client) { return client->received() == "hello"; });
  });
  CHECK(told == 1);
}

TEST_CASE("2,000 connections are served at once") {
  const DescriptorLimit limit;
  if (!limit.allows(4100)) {
    WARN("this machine allows too few descriptors");
    return;
  }
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  std::vector<std::unique_ptr<Client>> clients;
  std::size_t served = 0;
  for (int i = 0; i < 2000; ++i) {
    clients.push_back(std::make_unique<Client>(loop, server.local_endpoint()));
    clients.back()->connection->on_data([&, i](Connection&, std::string_view bytes) {
      if (bytes == std::to_string(i)) ++served;
    });
    clients.back()->connection->write(std::to_string(i));
    if (i % 100 == 0) passes(loop, 3);
  }
  run_until(loop, [&] { return served == 2000; });
  CHECK(server.connections() == 2000);
  for (const auto& client : clients) client->connection->close();
  run_until(loop, [&] {
    return server.connections() == 0 &&
           std::all_of(clients.begin(), clients.end(),
                       [](const auto& client) { return client->record.closed == 1; });
  });
  CHECK(std::none_of(clients.begin(), clients.end(),
                     [](const auto& client) { return client->record.error; }));
}

TEST_CASE("A server serves while a signal comes each millisecond") {
  const Interrupter interrupter;
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), echo);
  const std::string message = noise(100'000);
  for (int round = 0; round < 20; ++round) {
    Client client(loop, server.local_endpoint());
    client.connection->write(message);
    client.connection->shutdown();
    run_until(loop, [&] { return client.record.closed == 1; });
    CHECK(difference(client.record.data, message) == "");
    CHECK_FALSE(client.record.error);
  }
}

TEST_CASE("A server may be reached over a Unix socket with an abstract name") {
  EventLoop loop;
  const Endpoint there = Endpoint::parse("unix:@pawl test " + std::to_string(::getpid()));
  Server server(loop, there, echo);
  Client client(loop, there);
  const std::string message = noise(500'000);
  client.connection->write(message);
  client.connection->shutdown();
  run_until(loop, [&] { return client.record.closed == 1; });
  CHECK(difference(client.record.data, message) == "");
  CHECK_FALSE(client.record.error);
  CHECK(server.local_endpoint() == there);
}

TEST_CASE("Servers can share a port") {
  EventLoop loop;
  ServerOptions options;
  options.reuse_port = true;
  Server first(loop, Endpoint::loopback(0), echo, options);
  Server second(loop, first.local_endpoint(), echo, options);
  CHECK_THROWS_WITH(
      Server(loop, first.local_endpoint(), echo),
      "Listener at " + first.local_endpoint().to_string() + ": bind: Address already in use");
}

TEST_CASE("A server accepts no more in a pass than its budget says") {
  EventLoop loop;
  ServerOptions options;
  options.accept_budget = 2;
  const Server server(loop, Endpoint::loopback(0), echo, options);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(raw_connect(server.local_endpoint()));
  std::size_t most = 0;
  spin_until(loop, [&, before = std::size_t{0}]() mutable {
    most = std::max(most, server.connections() - before);
    before = server.connections();
    return before == 20;
  });
  CHECK(most == 2);
}

TEST_CASE("The options of a server's connections hold for them") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.connection.idle_timeout = 10s;
  Server server(
      loop, Endpoint::loopback(0), [](Connection&) {}, options);
  RawPeer client(loop, raw_connect(server.local_endpoint()));
  spin_until(loop, [&] { return server.connections() == 1; });
  system.advance(10s);
  spin_until(loop, [&] { return client.is_over(); });
  CHECK(server.connections() == 0);
}
