// SPDX-License-Identifier: MIT
// The deadlines of a connection, by a clock that the test moves.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Duration;
using pawl::Errc;
using pawl::EventLoop;

namespace {

/// A link whose time the test moves.
struct TimedLink {
  explicit TimedLink(ConnectionOptions options = {}, BufferSizes sizes = {})
      : loop(options_on(system)), link(loop, options, sizes) {
    pass(loop);
  }

  /// Lets time pass, and then whatever is due happen.
  void advance(Duration span) {
    system.advance(span);
    passes(loop);
  }
  template <typename Condition>
  void until(Condition condition) {
    spin_until(loop, condition);
  }
  /// Writes more than the kernel takes.
  void block() {
    link.peer.stop_reading();
    link.connection->write(std::string(1'000'000, 'x'));
    std::uint64_t sent = 0;
    do {  // a socket that isn't writable may still take a little
      sent = link.connection->bytes_sent();
      link.connection->write("x");
      passes(loop);
    } while (link.connection->bytes_sent() != sent);
    REQUIRE(link.connection->state() == ConnectionState::sending);
  }
  /// The kernel takes some of it.
  void move() {
    const std::uint64_t before = link.connection->bytes_sent();
    until([&] {
      link.peer.read(1000);
      return link.connection->bytes_sent() != before;
    });
  }
  bool is_closed() const { return link.is_closed(); }
  std::string ending() const { return link.connection->describe(); }

  FaultyClock system;
  EventLoop loop;
  Link link;
};

ConnectionOptions idle(Duration timeout) {
  ConnectionOptions options;
  options.idle_timeout = timeout;
  return options;
}

}  // namespace

TEST_CASE("A connection without an idle timeout waits for ever") {
  TimedLink timed;
  timed.advance(100'000h);
  CHECK_FALSE(timed.is_closed());
}

TEST_CASE("idle_timeout ends a connection that is silent for so long, and not earlier") {
  TimedLink timed(idle(10s));
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == Errc::timed_out);
  CHECK_THAT(timed.ending(), Catch::EndsWith(" DONE: idle timeout in RECEIVING: timed out"));
}

TEST_CASE("Each byte, either way, begins the idle timeout anew") {
  TimedLink timed(idle(10s));
  SECTION("the usual way") {}
  SECTION("with a callback that makes the way longer") {
    timed.link.record.attach_drained(*timed.link.connection);
  }
  const auto happens = [&](int what) {
    if (what == 0) {
      timed.link.peer.send("x");
      const std::size_t before = timed.link.record.data.size();
      timed.until([&] { return timed.link.record.data.size() > before; });
    } else {
      timed.link.connection->write("x");
      const std::size_t before = timed.link.peer.received_bytes();
      timed.until([&] { return timed.link.peer.received_bytes() > before; });
    }
  };
  for (int i = 0; i < 20; ++i) {
    timed.advance(9s);
    happens(i % 2);
    REQUIRE_FALSE(timed.is_closed());
  }
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("Data that comes in the pass in which the idle timeout is due is in time") {
  TimedLink timed(idle(10s));
  timed.link.peer.send("x");
  timed.system.advance(10s);
  timed.until([&] { return timed.link.record.data == "x"; });
  passes(timed.loop);
  CHECK_FALSE(timed.is_closed());
}

TEST_CASE("The idle timeout begins when the connection does, not when the loop last ran") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  pass(loop);
  system.advance(1h);
  Link link(loop, idle(10s));
  passes(loop);
  CHECK_FALSE(link.is_closed());
  system.advance(10s);
  passes(loop);
  CHECK(link.is_closed());
}

TEST_CASE("What is sent after the loop stood still counts from then") {
  TimedLink timed(idle(10s));
  timed.system.advance(9s);
  timed.link.connection->write("x");
  passes(timed.loop);
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("A connection that can't send isn't idle") {
  ConnectionOptions options = idle(10s);
  options.write_timeout = {};
  TimedLink timed(options, tight);
  timed.block();
  timed.advance(1h);
  CHECK_FALSE(timed.is_closed());
}

TEST_CASE("An echo begins the idle timeout anew, also after a time when it couldn't be sent") {
  ConnectionOptions options = idle(10s);
  SECTION("with a write timeout that is later") { options.write_timeout = 2h; }
  SECTION("with none") { options.write_timeout = {}; }
  TimedLink timed(options, tight);
  Connection& connection = *timed.link.connection;
  connection.on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  const auto echo = [&] {
    const std::uint64_t before = connection.bytes_sent();
    timed.link.peer.send("x");
    timed.until([&] { return connection.bytes_sent() > before; });
  };
  timed.advance(9s);
  echo();
  timed.advance(9s);
  timed.block();
  timed.advance(1h);  // the timer fires in SENDING, and nothing is due
  timed.link.peer.start_reading();
  timed.until([&] { return connection.state() == ConnectionState::receiving; });
  timed.advance(9s);
  echo();
  timed.advance(9s);
  echo();
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == Errc::timed_out);
}

TEST_CASE("write_timeout ends a connection whose peer takes nothing for so long") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options, tight);
  timed.advance(1h);
  timed.block();
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == Errc::timed_out);
  CHECK(timed.link.connection->buffered() > 0);
  CHECK_THAT(timed.ending(), Catch::Contains(" DONE: write timeout in SENDING: timed out, "));
}

TEST_CASE("Each byte that the kernel takes begins the write timeout anew") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options, tight);
  timed.block();
  for (int i = 0; i < 20; ++i) {
    timed.advance(9s);
    timed.move();
    REQUIRE_FALSE(timed.is_closed());
  }
  timed.system.fail(Call::send, EAGAIN, FaultySystem::forever);
  timed.system.fail(Call::sendmsg, EAGAIN, FaultySystem::forever);
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("More writes and pauses don't put the write timeout off") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options, tight);
  timed.block();
  for (int i = 0; i < 9; ++i) {
    timed.advance(1s);
    timed.link.connection->write("more");
    if (i % 2 == 0) {
      timed.link.connection->pause_reading();
    } else {
      timed.link.connection->resume_reading();
    }
  }
  CHECK_FALSE(timed.is_closed());
  timed.advance(1s);
  CHECK(timed.is_closed());
}

TEST_CASE("A write in the pass in which an older write timeout fires isn't late") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options, tight);
  timed.block();  // which arms the timer
  timed.link.peer.start_reading();
  timed.until([&] { return timed.link.connection->buffered() == 0; });
  // Due before that timer, in the same pass.
  timed.loop.call_later(10s - 1ns, [&] { timed.link.connection->write("heartbeat"); });
  timed.advance(1h);
  CHECK_FALSE(timed.is_closed());
  timed.until([&] { return timed.link.peer.received().back() == 't'; });
}

TEST_CASE("The write timeout begins when the kernel refuses, not when the loop last ran") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options, tight);
  timed.system.advance(1h);
  timed.block();
  passes(timed.loop);
  CHECK_FALSE(timed.is_closed());
  timed.advance(10s);
  CHECK(timed.is_closed());
}

TEST_CASE(
    "The write timeout begins when the kernel refuses, however long nothing was sent before") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options);
  timed.advance(1h);
  timed.system.fail(Call::send, EAGAIN, FaultySystem::forever);
  timed.link.connection->write("x");
  passes(timed.loop);
  CHECK_FALSE(timed.is_closed());
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("A connection without a write timeout waits for its peer for ever") {
  ConnectionOptions options;
  options.write_timeout = {};
  TimedLink timed(options, tight);
  timed.block();
  timed.advance(100'000h);
  CHECK_FALSE(timed.is_closed());
}

TEST_CASE("A failed write that nobody reads about ends with its own error after the timeout") {
  ConnectionOptions options;
  options.write_timeout = 10s;
  TimedLink timed(options);
  timed.advance(1h);
  timed.link.connection->pause_reading();
  passes(timed.loop);
  timed.link.peer.send("unread");
  timed.link.peer.reset();
  timed.link.connection->write("x");
  passes(timed.loop);
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  SECTION("nobody at all") { timed.advance(1ns); }
  SECTION("and what can be read is still there until then") {
    timed.link.connection->resume_reading();
    passes(timed.loop);
    CHECK(timed.link.record.data == "unread");
  }
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == std::errc::connection_reset);
}

TEST_CASE("close_timeout ends a closed connection whose peer never ends, in good order") {
  ConnectionOptions options;
  options.close_timeout = 10s;
  TimedLink timed(options);
  timed.link.connection->write("all of it");
  timed.link.connection->close();
  timed.advance(0s);  // the last bytes leave
  timed.advance(5s);
  timed.link.peer.send("still talking");
  timed.advance(5s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK_FALSE(timed.link.record.error);
  CHECK(timed.link.record.order == "closed");
  CHECK_THAT(timed.ending(), Catch::EndsWith(" DONE: close timeout in RECEIVING: in good order"));
  timed.until([&] { return timed.link.peer.received() == "all of it"; });
}

TEST_CASE("close_timeout ends a closed connection with unsent_data when bytes were left") {
  ConnectionOptions options;
  options.close_timeout = 10s;
  options.write_timeout = 1s;  // closing has its own
  TimedLink timed(options, tight);
  timed.block();
  timed.link.connection->close();
  timed.advance(0s);  // the last bytes leave
  timed.advance(5s);
  timed.move();
  timed.advance(5s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == Errc::unsent_data);
  CHECK(timed.link.connection->buffered() > 0);
  CHECK_THAT(timed.ending(), Catch::Contains(" DONE: close timeout in SENDING: closed with bytes"));
}

TEST_CASE(
    "close_timeout begins when close() has sent what it can, and is the only one from then on") {
  ConnectionOptions options = idle(1h);
  options.close_timeout = 10s;
  TimedLink timed(options);
  timed.system.advance(30min);
  timed.link.connection->close();
  timed.advance(0s);  // the last bytes leave
  timed.advance(5s);
  timed.link.connection->close();  // which changes nothing
  timed.advance(5s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("close_timeout holds when a callback has closed, too") {
  ConnectionOptions options;
  options.close_timeout = 10s;
  TimedLink timed(options);
  timed.link.connection->on_data([](Connection& self, std::string_view) { self.close(); });
  timed.link.peer.send("x");
  timed.until([&] { return timed.link.connection->is_closing(); });
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
}

TEST_CASE("A connection that is destroyed leaves no deadline behind") {
  ConnectionOptions options = idle(10s);
  options.close_timeout = 5s;
  TimedLink timed(options);
  CHECK(timed.loop.next_deadline() == timed.system.now() + 10s);
  SECTION("the one that it had first") {}
  SECTION("nor that from before an earlier one") {
    timed.link.connection->close();
    passes(timed.loop);
    CHECK(timed.loop.next_deadline() == timed.system.now() + 5s);
  }
  timed.link.connection.reset();
  passes(timed.loop);
  CHECK_FALSE(timed.loop.next_deadline());
}

TEST_CASE("close_timeout holds for a connection that dials, too") {
  FaultyClock system;
  EventLoop loop(options_on(system));
  RawListener full(0);
  const pawl::UniqueFd first = raw_connect(full.endpoint());
  ConnectionOptions options;
  options.close_timeout = 10s;
  const auto connection = Connection::connect(loop, full.endpoint(), options);
  Recorder record(*connection);
  connection->write("never sent");
  connection->close();
  CHECK(connection->state() == ConnectionState::connecting);
  system.advance(10s - 1ns);
  passes(loop);
  CHECK(record.closed == 0);
  system.advance(1ns);
  passes(loop);
  CHECK(record.order == "closed");
  CHECK(record.error == Errc::unsent_data);
  CHECK(connection->buffered() == 10);
}

TEST_CASE("A close_timeout of zero is none") {
  ConnectionOptions options;
  options.close_timeout = {};
  TimedLink timed(options);
  timed.link.connection->close();
  timed.advance(100'000h);
  CHECK_FALSE(timed.is_closed());
  timed.link.peer.close();
  timed.until([&] { return timed.is_closed(); });
  CHECK_FALSE(timed.link.record.error);
}

TEST_CASE("A peer's end is bounded by close_timeout as well") {
  ConnectionOptions options;
  options.close_timeout = 10s;
  TimedLink timed(options, tight);
  timed.block();
  timed.link.peer.end();
  timed.until([&] { return timed.link.record.order == "eof"; });
  timed.advance(10s - 1ns);
  CHECK_FALSE(timed.is_closed());
  timed.advance(1ns);
  CHECK(timed.is_closed());
  CHECK(timed.link.record.error == Errc::unsent_data);
}
