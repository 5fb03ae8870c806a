// SPDX-License-Identifier: MIT
// Why a connection ended, and what it tells of its life.
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/server.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Server;

namespace {

/// What an end looks like to whoever asks afterwards.
struct End {
  CloseReason reason;
  std::error_code error;
  std::size_t buffered = 0;
};

bool operator==(const End& a, const End& b) {
  return a.reason == b.reason && a.error == b.error && a.buffered == b.buffered;
}

std::ostream& operator<<(std::ostream& out, const End& end) {
  return out << to_string(end.reason) << ", " << end.error.message() << ", " << end.buffered
             << " bytes unsent";
}

ConnectionOptions with_timeouts() {
  ConnectionOptions options;
  options.idle_timeout = 10s;
  options.write_timeout = 20s;
  options.close_timeout = 5s;
  return options;
}

/// A loop whose clock stands still, and a link in it.
struct Bench {
  explicit Bench(BufferSizes sizes = {}) : link(loop, with_timeouts(), sizes) {}
  /// How the link's connection ended, once on_closed has told.
  End end() {
    spin_until(loop, [&] { return link.is_closed(); });
    passes(loop);
    CHECK(link.record.closed == 1);
    const Connection& connection = *link.connection;
    CHECK(link.record.error == connection.error());
    return {connection.close_reason(), connection.error(), connection.buffered()};
  }

  FaultyClock system;
  EventLoop loop{options_on(system)};
  Link link;
};

End end_of(EventLoop& loop, const Connection& connection) {
  run_until(loop, [&] { return connection.state() == ConnectionState::done; });
  return {connection.close_reason(), connection.error(), connection.buffered()};
}

/// Bytes that never fit into the smallest buffers.
const std::string& much() {
  static const std::string bytes = noise(500'000);
  return bytes;
}

std::size_t unsent_of(const Connection& connection) {
  return much().size() - static_cast<std::size_t>(connection.bytes_sent());
}

}  // namespace

TEST_CASE("Each reason has words of its own") {
  std::set<std::string> words;
  for (int i = 0; i <= static_cast<int>(CloseReason::released); ++i) {
    words.insert(std::string(to_string(static_cast<CloseReason>(i))));
  }
  CHECK(words.size() == static_cast<std::size_t>(CloseReason::released) + 1);
  CHECK(words.count("unknown") == 0);
  CHECK(to_string(CloseReason::idle_timeout) == "idle timeout");
}

TEST_CASE("A connection that isn't over has no reason to be") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  CHECK(connection->close_reason() == CloseReason::open);
  Recorder record(*connection);
  const RawPeer peer(loop, listener.accept(loop));
  run_until(loop, [&] { return record.order == "connected"; });
  CHECK(connection->close_reason() == CloseReason::open);
  connection->close();
  CHECK(connection->close_reason() == CloseReason::open);
}

TEST_CASE("A good end tells which side began") {
  Bench bench;
  Connection& connection = *bench.link.connection;
  connection.write("hello");
  SECTION("this side") {
    SECTION("with close()") { connection.close(); }
    SECTION("with shutdown()") { connection.shutdown(); }
    SECTION("before the peer's end was read") {
      bench.link.peer.end();
      connection.close();
    }
    passes(bench.loop);
    bench.link.peer.end();
    CHECK(bench.end() == End{CloseReason::clean, {}});
    CHECK_THAT(connection.describe(), Catch::EndsWith("DONE: close in RECEIVING: in good order"));
  }
  SECTION("the peer") {
    SECTION("and this side followed") {}
    SECTION("and this side closed") {
      connection.on_eof([](Connection& self) { self.close(); });
    }
    SECTION("and this side ended later, by halves") {
      connection.set_allow_half_open(true);
      bench.link.peer.end();
      passes(bench.loop);
      connection.write(" and goodbye");
      connection.shutdown();
    }
    bench.link.peer.end();
    CHECK(bench.end() == End{CloseReason::peer_ended, {}});
    CHECK_THAT(connection.describe(),
               Catch::EndsWith("DONE: peer's end in RECEIVING: in good order"));
  }
  CHECK(bench.link.peer.received().substr(0, 5) == "hello");
}

TEST_CASE("A connection that is closed before it was connected, with nothing to say, is clean") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  connection->close();
  CHECK(end_of(loop, *connection) == End{CloseReason::clean, {}});
}

TEST_CASE("A peer that resets, or has gone when we send, is told as peer_reset") {
  Bench bench;
  std::error_code expected = pawl::system_error_code(ECONNRESET);
  std::size_t unsent = 0;
  SECTION("reset") { bench.link.peer.reset(); }
  SECTION("gone, with our bytes unread") {
    bench.link.connection->write("hello");
    bench.link.peer.stop_reading();
    passes(bench.loop);
    bench.link.peer.close();
  }
  SECTION("gone when we send") {
    bench.system.fail(Call::send, EPIPE);
    bench.link.connection->write("hello");
    bench.link.peer.send("still read");
    bench.link.peer.end();
    expected = pawl::system_error_code(EPIPE);
    unsent = 5;
  }
  CHECK(bench.end() == End{CloseReason::peer_reset, expected, unsent});
  if (unsent > 0) CHECK(bench.link.record.data == "still read");
}

TEST_CASE("Another error of the kernel or of the lookup is told as failed") {
  std::error_code expected;
  SECTION("while it reads") {
    Bench bench;
    bench.system.fail(Call::recv, EHOSTUNREACH);
    bench.link.peer.send("hello");
    CHECK(bench.end() == End{CloseReason::failed, pawl::system_error_code(EHOSTUNREACH)});
  }
  SECTION("while it is dialed") {
    EventLoop loop;
    const auto connection = Connection::connect(loop, refusing_endpoint());
    connection->write("hello");
    CHECK(end_of(loop, *connection) ==
          End{CloseReason::failed, pawl::system_error_code(ECONNREFUSED), 5});
  }
  SECTION("while its name is looked up") {
    OneAnswer names(EAI_NONAME);
    EventLoop loop(options_on(names));
    const auto connection = Connection::connect(loop, "example", 80);
    connection->write("hello");
    CHECK(end_of(loop, *connection) == End{CloseReason::failed, Errc::host_not_found, 5});
  }
}

TEST_CASE("Each timer is a reason of its own") {
  const std::error_code timed_out = Errc::timed_out;
  SECTION("connect") {
    FaultyClock clock;
    EventLoop loop(options_on(clock));
    RawListener listener(0);
    const pawl::UniqueFd filler = raw_connect(listener.endpoint());
    const auto connection = Connection::connect(loop, listener.endpoint());
    connection->write("hello");
    passes(loop);
    clock.advance(30s);
    passes(loop);
    CHECK(connection->state() == ConnectionState::done);
    CHECK(end_of(loop, *connection) == End{CloseReason::connect_timeout, timed_out, 5});
  }
  SECTION("idle") {
    Bench bench;
    passes(bench.loop);
    bench.system.advance(10s);
    CHECK(bench.end() == End{CloseReason::idle_timeout, timed_out});
    CHECK_THAT(bench.link.connection->describe(),
               Catch::EndsWith("DONE: idle timeout in RECEIVING: timed out"));
  }
  SECTION("write") {
    Bench bench(tight);
    bench.link.peer.stop_reading();
    bench.link.connection->write(much());
    spin_until(bench.loop, [&, sent = std::uint64_t{0}]() mutable {  // until the kernel is full
      bench.link.connection->write("");
      passes(bench.loop);
      return std::exchange(sent, bench.link.connection->bytes_sent()) ==
             bench.link.connection->bytes_sent();
    });
    bench.system.fail(Call::send, EAGAIN, FaultySystem::forever);
    bench.system.advance(20s);
    const End end = bench.end();
    const std::size_t unsent = unsent_of(*bench.link.connection);
    CHECK(end == End{CloseReason::write_timeout, timed_out, unsent});
    CHECK_THAT(bench.link.connection->describe(),
               Catch::EndsWith("DONE: write timeout in SENDING: timed out, " +
                               std::to_string(unsent) + " bytes unsent"));
  }
  SECTION("close, with everything sent") {
    Bench bench;
    bench.link.connection->close();
    passes(bench.loop);
    bench.system.advance(5s);
    CHECK(bench.end() == End{CloseReason::close_timeout, {}});
  }
  SECTION("close, with bytes left") {
    Bench bench(tight);
    bench.link.peer.stop_reading();
    bench.link.connection->write(much());
    bench.link.connection->close();
    passes(bench.loop);
    bench.system.advance(5s);
    const End end = bench.end();
    CHECK(end ==
          End{CloseReason::close_timeout, Errc::unsent_data, unsent_of(*bench.link.connection)});
  }
}

TEST_CASE("Too many unsent bytes are told as the limit, the bytes that were too many included") {
  Bench bench;
  bench.system.fail(Call::send, EAGAIN, FaultySystem::forever);
  bench.link.connection->write("hello");
  bench.link.connection->write(std::string(16 * 1024 * 1024, 'x'));
  CHECK(bench.end() == End{CloseReason::limit, Errc::write_limit, 5 + 16 * 1024 * 1024});
}

TEST_CASE("An abort is told as aborted, in each state") {
  SECTION("CONNECTING") {
    EventLoop loop;
    RawListener listener;
    const auto connection = Connection::connect(loop, listener.endpoint());
    connection->write("hello");
    connection->abort();
    CHECK(end_of(loop, *connection) == End{CloseReason::aborted, Errc::aborted, 5});
  }
  SECTION("SENDING") {
    Bench bench;
    bench.link.connection->write("hello");
    bench.link.connection->abort();
    CHECK(bench.end() == End{CloseReason::aborted, Errc::aborted, 5});
  }
  SECTION("RECEIVING") {
    Bench bench;
    bench.link.connection->abort();
    CHECK(bench.end() == End{CloseReason::aborted, Errc::aborted});
  }
  SECTION("DONE, for another reason, which stays") {
    Bench bench;
    bench.link.connection->release();
    bench.link.connection->abort();
    CHECK(bench.end() == End{CloseReason::released, {}});
  }
}

TEST_CASE("A server that is closed is the reason of what was left, not of what closed in time") {
  EventLoop loop;
  std::vector<End> ends;
  Server server(loop, Endpoint::loopback(0), [&](Connection& peer) {
    peer.on_closed([&](Connection& self, std::error_code error) {
      CHECK(self.error() == error);
      ends.push_back(End{self.close_reason(), self.error(), self.buffered()});
    });
  });
  RawPeer polite(loop, raw_connect(server.local_endpoint()));
  const RawPeer rude(loop, raw_connect(server.local_endpoint()));
  run_until(loop, [&] { return server.connections() == 2; });
  server.close(50ms);
  run_until(loop, [&] { return polite.has_ended(); });
  polite.end();
  run_until(loop, [&] { return ends.size() == 2; });
  CHECK(ends[0] == End{CloseReason::clean, {}});
  CHECK(ends[1] == End{CloseReason::server_closed, Errc::server_closed});
}

// What it tells of its life

TEST_CASE("A connection counts its bytes and knows when they came and went") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  Recorder record(*connection);
  CHECK(connection->connected_at() == pawl::TimePoint());
  system.advance(3s);
  spin_until(loop, [&] { return record.order == "connected"; });
  const pawl::TimePoint start = connection->connected_at();
  CHECK(start == system.now());
  CHECK(connection->last_received_at() == start);
  CHECK(connection->last_sent_at() == start);
  RawPeer peer(loop, listener.accept(loop));
  system.advance(1s);
  peer.send("12345");
  spin_until(loop, [&] { return record.data.size() == 5; });
  CHECK(connection->last_received_at() == start + 1s);
  CHECK(connection->last_sent_at() == start);
  system.advance(1s);
  connection->write("123");
  spin_until(loop, [&] { return peer.received_bytes() == 3; });
  CHECK(connection->last_received_at() == start + 1s);
  CHECK(connection->last_sent_at() == start + 2s);
  CHECK(connection->bytes_received() == 5);
  CHECK(connection->bytes_sent() == 3);
  connection->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  system.advance(1s);
  peer.send("6");
  spin_until(loop, [&] { return peer.received_bytes() == 4; });
  CHECK(connection->last_received_at() == start + 3s);
  CHECK(connection->last_sent_at() == start + 3s);
  connection->abort();
  CHECK(connection->bytes_received() == 6);
  CHECK(connection->bytes_sent() == 4);
  CHECK(connection->connected_at() == start);
}

TEST_CASE("A connection over TCP tells what the kernel knows of it, while there is one") {
  EventLoop loop;
  RawListener listener;
  const auto connection = Connection::connect(loop, listener.endpoint());
  CHECK_FALSE(connection->tcp_info());
  RawPeer peer(loop, listener.accept(loop));
  Recorder record(*connection);
  connection->write(noise(100'000));
  peer.send("hello");
  run_until(loop, [&] { return record.data == "hello" && peer.received_bytes() == 100'000; });
  run_until(loop, [&] { return connection->tcp_info()->bytes_acknowledged >= 100'000; });
  const auto info = connection->tcp_info();
  REQUIRE(info);
  CHECK(info->round_trip_time > 0s);
  CHECK(info->round_trip_time < 10s);
  CHECK(info->round_trip_time_variation >= 0s);
  CHECK(info->congestion_window > 0);
  CHECK(info->segment_bytes >= 500);
  CHECK(info->bytes_received == 5);
  CHECK(info->unacknowledged == 0);
  connection->abort();
  CHECK_FALSE(connection->tcp_info());
}
