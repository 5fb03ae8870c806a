// SPDX-License-Identifier: MIT
// Who waits in a listener's backlog when it is closed with grace.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/listener.hpp"
#include "pawl/net/server.hpp"
#include "support/temporary_directory.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Listener;
using pawl::ListenerState;
using pawl::Server;
using pawl::ServerOptions;
using pawl::UniqueFd;

namespace {

/// Answers one request with a line, as a protocol that ends by the end of stream.
void answer(Connection& connection) {
  connection.on_data([](Connection& self, std::string_view bytes) {
    self.write("you said " + std::string(bytes));
  });
}

/// Clients that are in a server's backlog, each with a request sent.
struct Waiting {
  Waiting(EventLoop& loop, const Endpoint& endpoint, int count) {
    for (int i = 0; i < count; ++i) {
      peers.push_back(std::make_unique<RawPeer>(loop, raw_connect(endpoint)));
      peers.back()->send("hello");
    }
  }
  bool are_over() const {
    return std::all_of(peers.begin(), peers.end(),
                       [](const auto& peer) { return peer->is_over(); });
  }
  /// Says goodbye like a client that has its answer.
  void end() {
    for (const auto& peer : peers) peer->end();
  }
  auto served() const {
    return std::count_if(peers.begin(), peers.end(), [](const auto& peer) {
      return peer->received() == "you said hello" && peer->has_ended();
    });
  }
  auto reset() const {
    return std::count_if(peers.begin(), peers.end(),
                         [](const auto& peer) { return peer->error() == ECONNRESET; });
  }
  std::vector<std::unique_ptr<RawPeer>> peers;
};

}  // namespace

TEST_CASE("Who waits in the backlog when a server closes with grace is served, and ends in order") {
  EventLoop loop;
  const TemporaryDirectory directory;
  Endpoint there = Endpoint::loopback(0);
  SECTION("TCP") {}
  SECTION("TCP over IPv6") { there = Endpoint::loopback_ipv6(0); }
  SECTION("a Unix path") { there = Endpoint::parse("unix:" + directory.file("s")); }
  SECTION("an abstract name") {
    there = Endpoint::parse("unix:@pawl-drain-" + std::to_string(::getpid()));
  }
  Server server(loop, there, answer);
  Waiting waiting(loop, server.local_endpoint(), 100);
  server.close(1h);
  run_until(loop, [&] { return waiting.are_over(); });
  CHECK(waiting.served() == 100);
  CHECK(waiting.reset() == 0);
  waiting.end();
  loop.run();  // returns: an hour isn't waited for with nobody left
  CHECK_THAT(server.describe(), Catch::Contains(" DONE, 0 connections"));
}

TEST_CASE("Who sends nothing from the backlog of a closing server gets an end in good order") {
  EventLoop loop;
  std::vector<std::error_code> ends;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.write("welcome");
    connection.on_closed([&](Connection&, std::error_code error) { ends.push_back(error); });
  });
  RawPeer peer(loop, raw_connect(server.local_endpoint()));
  server.close(1h);
  run_until(loop, [&] { return peer.is_over(); });
  CHECK(peer.received() == "welcome");
  CHECK(peer.has_ended());
  peer.end();
  loop.run();
  CHECK(ends == std::vector<std::error_code>{std::error_code()});
}

TEST_CASE("A paused server that closes with grace accepts who waits") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), answer);
  server.pause();
  Waiting waiting(loop, server.local_endpoint(), 3);
  passes(loop);
  server.close(1h);
  run_until(loop, [&] { return waiting.are_over(); });
  CHECK(waiting.served() == 3);
}

TEST_CASE("A full server that closes with grace takes those who wait as others leave") {
  EventLoop loop;
  ServerOptions options;
  options.max_connections = 2;
  Server server(loop, Endpoint::loopback(0), answer, options);
  Waiting waiting(loop, server.local_endpoint(), 7);
  run_until(loop, [&] { return server.connections() == 2; });
  std::size_t most = 0;
  server.close(1h);
  run_until(loop, [&] {
    most = std::max(most, server.connections());
    for (const auto& peer : waiting.peers) {
      if (peer->has_ended()) peer->end();
    }
    return waiting.are_over();
  });
  CHECK(waiting.reset() == 0);
  CHECK(most == 2);
  loop.run();
  CHECK(server.connections() == 0);
}

TEST_CASE("Who still waits for a full server when its grace is over is reset") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  ServerOptions options;
  options.max_connections = 1;
  Server server(loop, Endpoint::loopback(0), answer, options);
  Waiting waiting(loop, server.local_endpoint(), 3);
  spin_until(loop, [&] { return server.connections() == 1; });
  server.close(10s);
  passes(loop);
  CHECK_THAT(server.describe(), Catch::Contains(" HELD, 1 connection"));
  system.advance(10s);
  spin_until(loop, [&] { return waiting.are_over(); });
  CHECK(waiting.reset() >= 2);
  CHECK(server.connections() == 0);
}

TEST_CASE("The limit of one address holds for those in the backlog of a closing server") {
  EventLoop loop;
  ServerOptions options;
  options.max_connections_per_peer = 2;
  Server server(loop, Endpoint::loopback(0), answer, options);
  Waiting waiting(loop, server.local_endpoint(), 5);
  server.close(1h);
  run_until(loop, [&] { return waiting.are_over(); });
  CHECK(waiting.served() == 2);
  CHECK(server.refused() == 3);
}

TEST_CASE("A closing server without a descriptor for those who wait tries again in its grace") {
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM}) {
    CAPTURE(error);
    FaultyClock system;
    EventLoop loop(options_on(system));
    Server server(loop, Endpoint::loopback(0), answer);
    Waiting waiting(loop, server.local_endpoint(), 3);
    system.fail(Call::accept, error, 3);
    server.close(10s);
    for (int i = 0; i < 10; ++i) {
      passes(loop, 5);
      system.advance(50ms);
    }
    spin_until(loop, [&] { return waiting.are_over(); });
    CHECK(waiting.served() == 3);
    CHECK(system.count(Call::accept) <= 8);
  }
}

TEST_CASE("A closing server without a descriptor gives up when its grace is over") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  Server server(loop, Endpoint::loopback(0), answer);
  Waiting waiting(loop, server.local_endpoint(), 3);
  system.fail(Call::accept, EMFILE, FaultySystem::forever);
  server.close(10s);
  for (int i = 0; i < 300 && !waiting.are_over(); ++i) {
    passes(loop, 5);
    system.advance(50ms);
  }
  CHECK(waiting.reset() == 3);
  CHECK(system.count(Call::accept) <= 10s / 50ms + 1);
  CHECK_FALSE(loop.next_deadline());
}

TEST_CASE("Closing a server with no grace resets who waits in its backlog") {
  EventLoop loop;
  Server server(loop, Endpoint::loopback(0), answer);
  Waiting waiting(loop, server.local_endpoint(), 3);
  SECTION("at once") { server.close(); }
  SECTION("while it closes with grace") {
    server.close(1h);
    server.close();
  }
  run_until(loop, [&] { return waiting.are_over(); });
  CHECK(waiting.reset() == 3);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A server that is destroyed while it drains its backlog leaves nothing behind") {
  EventLoop loop;
  std::unique_ptr<Server> server;
  int shown = 0;
  const bool is_from_callback = GENERATE(false, true);
  server = std::make_unique<Server>(loop, Endpoint::loopback(0), [&](Connection&) {
    ++shown;
    if (is_from_callback) server.reset();
  });
  Waiting waiting(loop, server->local_endpoint(), 3);
  server->close(1h);
  if (!is_from_callback) server.reset();
  run_until(loop, [&] { return waiting.are_over(); });
  CHECK(shown == (is_from_callback ? 1 : 0));
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("Peers that ended while the loop stood still have ended in time for a server's grace") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  std::vector<std::error_code> ends;
  Server server(loop, Endpoint::loopback(0), [&](Connection& connection) {
    connection.on_closed([&](Connection&, std::error_code error) { ends.push_back(error); });
  });
  std::vector<UniqueFd> peers;
  for (int i = 0; i < 200; ++i) peers.push_back(raw_connect(server.local_endpoint()));
  spin_until(loop, [&] { return server.connections() == 200; });
  server.close(10s);
  passes(loop);
  CHECK(server.connections() == 200);
  for (const UniqueFd& peer : peers) ::shutdown(peer.get(), SHUT_WR);
  system.advance(20s);
  spin_until(loop, [&] { return ends.size() == 200; });
  CHECK(std::count(ends.begin(), ends.end(), std::error_code()) == 200);
}

TEST_CASE("A listener that closes with grace hands over who waits, and then refuses") {
  EventLoop loop;
  std::vector<UniqueFd> accepted;
  const TemporaryDirectory directory;
  Endpoint there = Endpoint::loopback(0);
  SECTION("TCP") {}
  SECTION("a Unix path") { there = Endpoint::parse("unix:" + directory.file("s")); }
  Listener listener(loop, there, [&](UniqueFd socket, const Endpoint&) {
    accepted.push_back(std::move(socket));
  });
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(raw_connect(listener.local_endpoint()));
  listener.close(1h);
  CHECK(listener.state() == ListenerState::draining);
  CHECK(accepted.empty());  // no call calls back
  // A Unix path is a successor's at once.
  CHECK((!there.is_unix() || ::access(there.host().c_str(), F_OK) != 0));
  loop.run();
  CHECK(listener.state() == ListenerState::done);
  CHECK(accepted.size() == 100);
  const auto late = Connection::connect(loop, listener.local_endpoint());
  Recorder record(*late);
  loop.run();
  CHECK(record.error);
}

TEST_CASE("A listener whose backlog is drained by whole batches doesn't wait for one more") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  const TemporaryDirectory directory;
  Endpoint there = Endpoint::loopback(0);
  SECTION("TCP") {}
  SECTION("a Unix path") { there = Endpoint::parse("unix:" + directory.file("s")); }
  int accepted = 0;
  pawl::ListenerOptions options;
  options.accept_budget = 4;
  Listener* itself = nullptr;
  const bool pauses = GENERATE(false, true);
  Listener listener(
      loop, there,
      [&](UniqueFd, const Endpoint&) {
        if (++accepted == 8 && pauses) itself->pause();
      },
      options);
  itself = &listener;
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(raw_connect(listener.local_endpoint()));
  listener.close(1h);
  spin_until(loop, [&] { return accepted == 8; });
  if (pauses) listener.resume();
  spin_until(loop, [&] { return listener.state() == ListenerState::done; });
}

TEST_CASE("A closing listener that is resumed in a pause between two tries goes on at once") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  int accepted = 0;
  pawl::ListenerOptions options;
  options.accept_budget = 1;
  Listener listener(
      loop, Endpoint::loopback(0), [&](UniqueFd, const Endpoint&) { ++accepted; }, options);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(raw_connect(listener.local_endpoint()));
  system.fail(Call::accept, EMFILE, 1);
  listener.close(1h);
  spin_until(loop, [&] { return listener.state() == ListenerState::held; });
  listener.resume();
  spin_until(loop, [&] { return accepted == 1; });
  CHECK(listener.state() == ListenerState::draining);
  system.advance(options.retry_after);  // the pause is over
  spin_until(loop, [&] { return accepted == 5; });
}

TEST_CASE("An on_closed that throws at the end of a server's grace doesn't spare the others") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  Server server(loop, Endpoint::loopback(0), [](Connection&) {});
  Waiting clients(loop, server.local_endpoint(), 3);
  spin_until(loop, [&] { return server.connections() == 3; });
  int told = 0;
  server.for_each([&](Connection& connection) {
    connection.on_closed([&](Connection&, std::error_code error) {
      ++told;
      if (!error) throw std::runtime_error("of one that ended in time");
    });
  });
  server.close(10s);
  passes(loop);
  loop.call_later(1ns, [&] { clients.peers.back()->end(); });
  system.advance(10s);
  CHECK_THROWS_AS(passes(loop), std::runtime_error);
  spin_until(loop, [&] { return told == 3; });
  CHECK(server.connections() == 0);
}

TEST_CASE("A listener with nobody in its backlog is closed at once, whatever its grace") {
  EventLoop loop;
  Listener listener(loop, Endpoint::loopback(0), [](UniqueFd, const Endpoint&) {});
  listener.close(1h);
  CHECK(listener.state() == ListenerState::done);
  CHECK_FALSE(loop.run_once());
}

TEST_CASE("A listener that closes doesn't drain for ever while more come") {
  EventLoop loop;
  int accepted = 0;
  std::vector<UniqueFd> clients;
  pawl::ListenerOptions options;
  options.backlog = 8;
  Endpoint there;
  Listener listener(
      loop, Endpoint::loopback(0),
      [&](UniqueFd, const Endpoint&) {
        ++accepted;
        clients.push_back(raw_connect(there));
      },
      options);
  there = listener.local_endpoint();
  for (int i = 0; i < 4; ++i) clients.push_back(raw_connect(there));
  listener.close(1h);
  loop.run();
  CHECK(accepted <= 9);
  CHECK(accepted >= 4);
}
