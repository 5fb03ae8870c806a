// SPDX-License-Identifier: MIT
// A peer that goes while nothing is waited for: the peer's end was read, or reading is paused.
#include <sys/socket.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/server.hpp"
#include "support/open_fds.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;
using pawl::Server;

namespace {

/// No timer ends it.
ConnectionOptions endless() {
  ConnectionOptions options;
  options.allow_half_open = true;
  options.write_timeout = {};
  options.close_timeout = {};
  return options;
}

/// A connection over a Unix socket and its raw peer.
struct UnixLink {
  explicit UnixLink(EventLoop& loop, SocketPair pair = SocketPair())
      : connection(Connection::adopt(loop, std::move(pair.ours), endless())),
        peer(loop, std::move(pair.theirs)),
        record(*connection) {}
  std::unique_ptr<Connection> connection;
  RawPeer peer;
  Recorder record;
};

/// How many passes the loop makes in a while in which nothing happens.
int passes_in_a_while(EventLoop& loop) {
  int count = 0;
  const auto end = std::chrono::steady_clock::now() + 200ms;
  while (std::chrono::steady_clock::now() < end) {
    loop.run_once(50ms);
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("A half-closed peer that is killed ends its connection, while the answer is being made") {
  EventLoop loop;
  Link link(loop, endless());
  link.peer.send("question");
  link.peer.end();
  run_until(loop, [&] { return link.record.order == "data eof"; });
  SECTION("that hasn't sent anything yet") {}
  SECTION("that has sent a part of it") {
    link.peer.stop_reading();
    link.connection->write("a part");
    passes(loop);
  }
  SECTION("that has been paused") { link.connection->pause_reading(); }
  CHECK(passes_in_a_while(loop) < 50);
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "data eof closed");
  CHECK(link.record.error);
  CHECK(link.connection->close_reason() == CloseReason::peer_reset);
}

TEST_CASE("A half-closed peer of a Unix socket that goes ends its connection too") {
  EventLoop loop;
  UnixLink link(loop);
  link.peer.send("question");
  link.peer.end();
  run_until(loop, [&] { return link.record.order == "data eof"; });
  CHECK(passes_in_a_while(loop) < 50);
  SECTION("having read everything: nobody is there, and nothing was lost") {
    link.peer.close();
    run_until(loop, [&] { return link.record.closed > 0; });
    CHECK_FALSE(link.record.error);
    CHECK(link.connection->close_reason() == CloseReason::peer_ended);
  }
  SECTION("with something unread") {
    link.peer.stop_reading();
    link.connection->write("a part");
    passes(loop);
    link.peer.close();
    run_until(loop, [&] { return link.record.closed > 0; });
    CHECK(link.record.error == std::errc::connection_reset);
  }
  CHECK(link.record.order == "data eof closed");
}

TEST_CASE("A peer that resets a paused connection ends it at once when nothing is unread") {
  EventLoop loop;
  Link link(loop, endless());
  link.connection->pause_reading();
  SECTION("and nothing is unsent") {}
  SECTION("and it is congested") {
    link.peer.stop_reading();
    link.connection->write(std::string(10'000'000, 'x'));
    passes(loop);
    REQUIRE(link.connection->is_congested());
  }
  passes(loop);
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "closed");
  CHECK(link.record.error == std::errc::connection_reset);
  CHECK(link.connection->close_reason() == CloseReason::peer_reset);
}

TEST_CASE(
    "What is unread when a paused connection is reset waits for who reads on, and nobody spins") {
  EventLoop loop;
  Link link(loop, endless());
  link.record.attach_drained(*link.connection);
  const std::string last_words = noise(50'000);
  link.connection->pause_reading();
  passes(loop);
  link.peer.send(last_words);
  std::string expected = "data closed";
  SECTION("nothing was unsent") {}
  SECTION("something was, and on_drained says that it is lost") {
    link.peer.stop_reading();
    link.connection->write(std::string(10'000'000, 'x'));
    passes(loop);
    expected = "drained data closed";
  }
  link.peer.reset();
  passes(loop);
  CHECK(passes_in_a_while(loop) < 50);
  CHECK_FALSE(link.is_closed());
  CHECK_FALSE(link.connection->is_congested());
  link.connection->resume_reading();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == expected);
  CHECK(difference(link.record.data, last_words) == "");
  CHECK(link.record.error == std::errc::connection_reset);
}

TEST_CASE("The end of a Unix peer that has gone waits for who reads on, and nobody spins") {
  EventLoop loop;
  UnixLink link(loop);
  link.connection->pause_reading();
  passes(loop);
  SECTION("behind something unread") { link.peer.send("unread"); }
  SECTION("alone") {}
  link.peer.close();
  CHECK(passes_in_a_while(loop) < 50);
  CHECK(link.record.order.empty());
  link.connection->resume_reading();
  run_until(loop, [&] { return link.record.closed > 0; });
  CHECK_FALSE(link.record.error);
  CHECK(link.connection->close_reason() == CloseReason::peer_ended);
}

TEST_CASE("Clients that ask for more than they take and then reset leave nothing behind") {
  EventLoop loop;
  pawl::ServerOptions options;
  options.connection.write_timeout = {};  // nothing but the reset ends them
  options.connection.low_water = 1'000;
  Server server(
      loop, Endpoint::loopback(0),
      [](Connection& peer) {
        peer.on_data([](Connection& self, std::string_view bytes) {
          for (int i = 0; i < 30; ++i) self.write(bytes);
          if (self.is_congested()) self.pause_reading();
        });
        peer.on_drained([](Connection& self) { self.resume_reading(); });
      },
      options);
  const std::size_t before = open_fd_count();
  const std::string request = noise(100'000);
  std::vector<pawl::UniqueFd> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(raw_connect(server.local_endpoint()));
    pawl::System::real().send(clients.back().get(), request.data(), request.size());
    pass(loop);
  }
  run_until(loop, [&] { return server.connections() == 300; });
  passes(loop);
  for (pawl::UniqueFd& client : clients) {
    const linger now{1, 0};
    pawl::System::real().setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    client.reset();
  }
  run_until(loop, [&] { return server.connections() == 0; });
  CHECK(open_fd_count() == before);
}

TEST_CASE("What a paused MessageReader still holds comes before the end") {
  EventLoop loop;
  Link link(loop, endless());
  std::string told;
  MessageReader reader(*link.connection, Framing::lines());
  reader.on_message([&](Connection&, std::string_view line) {
    told += std::string(line) + ",";
    reader.pause();
  });
  link.peer.send("one\ntwo\nthree\n");
  run_until(loop, [&] { return told == "one,"; });
  passes(loop);
  link.peer.reset();
  passes(loop);
  CHECK_FALSE(link.is_closed());
  reader.resume();
  run_until(loop, [&] { return told == "one,two,"; });
  passes(loop);
  CHECK_FALSE(link.is_closed());
  reader.resume();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(told == "one,two,three,");
  CHECK(link.record.error == std::errc::connection_reset);
}

// Through a relay

TEST_CASE("A relay passes a reset on at once, also from a side that isn't read") {
  EventLoop loop;
  Link left(loop, endless());
  Link right(loop, endless());
  bool is_done = false;
  std::error_code error;
  pawl::relay(*left.connection, *right.connection, [&](std::error_code reason) {
    is_done = true;
    error = reason;
  });
  const bool is_swapped = GENERATE(false, true);
  Link& gone = is_swapped ? right : left;
  Link& other = is_swapped ? left : right;
  SECTION("because its end was read") {
    gone.peer.end();
    run_until(loop, [&] { return other.peer.has_ended(); });
    gone.peer.reset();
    run_until(loop, [&] { return is_done; });
    // It has had the end, and hears of the reset by sending.
    CHECK(pawl::System::real().send(other.peer.fd(), "x", 1).error == EPIPE);
    return;
  }
  SECTION("because the other side takes nothing") {
    other.peer.stop_reading();
    spin_until(loop, [&] {
      const std::string block(10'000, 'x');
      pawl::System::real().send(gone.peer.fd(), block.data(), block.size());
      return gone.connection->is_reading_paused();
    });
    pawl::System::real().send(gone.peer.fd(), "unread", 6);
    gone.peer.reset();
    run_until(loop, [&] { return is_done; });
    other.peer.keep_nothing();
    other.peer.start_reading();
    run_until(loop, [&] { return other.peer.is_over(); });
    CHECK(other.peer.error() == ECONNRESET);
  }
  CHECK(error == std::errc::connection_reset);
}
