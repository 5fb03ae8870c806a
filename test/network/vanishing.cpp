// SPDX-License-Identifier: MIT
// Peers that vanish in mid-stream without a word, and networks that come back.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "net/stream.hpp"
#include "network/two_hosts.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "pawl/net/server.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Server;
using pawl::ServerOptions;

namespace {

/// More than the kernel's buffers of both sides take, and less than write_limit.
constexpr std::size_t much = 12 * 1024 * 1024;

/// A connection from the near host to a server on the far one; both have said something.
struct Call {
  Call(TwoHosts& hosts, EventLoop& loop, const ConnectionOptions& near_options,
       const ConnectionOptions& far_options = {}) {
    ServerOptions server_options;
    server_options.connection = far_options;
    hosts.on_far([&] {
      server.emplace(
          loop, TwoHosts::far(0),
          [this](Connection& peer) {
            far = &peer;
            peer.on_data([this](Connection&, std::string_view bytes) { arrived += bytes; });
            peer.on_closed([this](Connection& self, std::error_code) {
              far = nullptr;
              far_reason = self.close_reason();
            });
            peer.write("hello");
          },
          server_options);
    });
    connection = Connection::connect(loop, server->local_endpoint(), near_options);
    record.attach(*connection);
    connection->write("hello");
    run_until(loop, [&] { return record.data == "hello" && arrived == "hello"; });
    arrived.clear();
  }

  bool is_closed() const { return record.closed > 0; }

  std::optional<Server> server;
  Connection* far = nullptr;
  std::string arrived;
  CloseReason far_reason = CloseReason::open;
  std::unique_ptr<Connection> connection;
  Recorder record;
};

}  // namespace

TEST_CASE("Who sends to a peer that vanished ends by write_timeout") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  ConnectionOptions options;
  options.write_timeout = 300ms;
  Call call(hosts, loop, options);
  SECTION("behind a silent network") { hosts.cut(); }
  SECTION("whose link is down") { hosts.set_link(false); }
  call.connection->write(std::string(much, 'x'));
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(call.record.error == Errc::timed_out);
  CHECK(call.connection->close_reason() == CloseReason::write_timeout);
  CHECK(call.connection->buffered() > 0);
  CHECK(call.connection->bytes_sent() + call.connection->buffered() == much + 5);
}

TEST_CASE("Who waits for a peer that vanished ends by idle_timeout") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  ConnectionOptions options;
  options.idle_timeout = 300ms;
  SECTION("on the side that dialed") {
    Call call(hosts, loop, options);
    hosts.cut();
    run_until(loop, [&] { return call.is_closed(); });
    CHECK(call.record.error == Errc::timed_out);
    CHECK(call.connection->close_reason() == CloseReason::idle_timeout);
  }
  SECTION("on the server's side") {
    Call call(hosts, loop, {}, options);
    hosts.cut();
    run_until(loop, [&] { return call.server->connections() == 0; });
    CHECK(call.far_reason == CloseReason::idle_timeout);
    CHECK_FALSE(call.is_closed());  // nobody can have told it
  }
}

TEST_CASE("Keep-alive finds out that a silent peer has vanished") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  ConnectionOptions options;
  options.keep_alive = 1s;
  options.keep_alive_interval = 1s;
  options.keep_alive_probes = 1;
  Call call(hosts, loop, options);
  hosts.cut();
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(call.record.error == std::errc::timed_out);
  CHECK(call.connection->close_reason() == CloseReason::failed);
}

TEST_CASE("Bytes that nobody acknowledges end a connection by the kernel's own patience") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  hosts.set_patience(2);
  EventLoop loop;
  Call call(hosts, loop, {});
  hosts.cut();
  call.connection->write("is anyone there?");
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(call.record.error == std::errc::timed_out);
  CHECK(call.connection->close_reason() == CloseReason::failed);
}

TEST_CASE("A small message that nobody acknowledges ends a connection after its user_timeout") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  ConnectionOptions options;
  options.user_timeout = 1s;
  Call patient(hosts, loop, {});
  Call call(hosts, loop, options);
  hosts.cut();
  const auto begun = std::chrono::steady_clock::now();
  patient.connection->write("is anyone there?");
  call.connection->write("is anyone there?");
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(std::chrono::steady_clock::now() - begun >= 900ms);  // the kernel counts in its own ticks
  CHECK(call.record.error == std::errc::timed_out);
  CHECK(call.connection->close_reason() == CloseReason::failed);
  CHECK_FALSE(patient.is_closed());
}

TEST_CASE("A close that the peer never answers ends by close_timeout") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  ConnectionOptions options;
  options.close_timeout = 300ms;
  Call call(hosts, loop, options);
  hosts.cut();
  SECTION("with nothing unsent") {
    call.connection->close();
    run_until(loop, [&] { return call.is_closed(); });
    CHECK(call.connection->buffered() == 0);
  }
  SECTION("with bytes unsent") {
    call.connection->write(std::string(much, 'x'));
    call.connection->close();
    run_until(loop, [&] { return call.is_closed(); });
    CHECK(call.record.error == Errc::unsent_data);
    CHECK(call.connection->buffered() > 0);
  }
  CHECK(call.connection->close_reason() == CloseReason::close_timeout);
}

TEST_CASE("A stream goes on where it was when the network comes back") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  Call call(hosts, loop, {});
  const std::string sent = noise(much);
  call.connection->write(sent);
  run_until(loop, [&] { return !call.arrived.empty(); });
  REQUIRE(call.arrived.size() < much);
  pawl::ScopedHandle back;
  SECTION("after silence") {
    hosts.cut();
    back = pawl::ScopedHandle(loop.call_later(100ms, [&] { hosts.heal(); }));
  }
  SECTION("after the link was down") {
    hosts.set_link(false);
    back = pawl::ScopedHandle(loop.call_later(100ms, [&] { hosts.set_link(true); }));
  }
  run_until(loop, [&] { return call.arrived.size() >= much || call.is_closed(); });
  CHECK(difference(call.arrived, sent).empty());
  CHECK_FALSE(call.is_closed());
}

TEST_CASE("A firewall that begins to reject resets the stream") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  Call call(hosts, loop, {});
  hosts.filter_far("meta l4proto tcp reject with tcp reset");
  call.connection->write("hello?");
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(call.record.error == std::errc::connection_reset);
  CHECK(call.connection->close_reason() == CloseReason::peer_reset);
}

TEST_CASE("A peer that forgot the connection while the network was away resets it") {
  if (!TwoHosts::are_possible()) return;
  TwoHosts hosts;
  EventLoop loop;
  Call call(hosts, loop, {});
  hosts.cut();
  call.far->abort();  // its RST is lost
  run_until(loop, [&] { return call.far == nullptr && hosts.filtered_near() > 0; });
  hosts.heal();
  passes(loop);
  REQUIRE_FALSE(call.is_closed());
  call.connection->write("hello?");
  run_until(loop, [&] { return call.is_closed(); });
  CHECK(call.record.error == std::errc::connection_reset);
  CHECK(call.connection->close_reason() == CloseReason::peer_reset);
}
