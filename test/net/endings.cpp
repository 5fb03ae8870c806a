// SPDX-License-Identifier: MIT
// The ends of a connection: half of it, all of it, in good order or not.
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "support/allocation_counter.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using namespace std::chrono_literals;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::UniqueFd;

namespace {

ConnectionOptions half_open() {
  ConnectionOptions options;
  options.allow_half_open = true;
  return options;
}

/// Sends as much of `bytes` as fits, and leaves that in them. False when nothing did.
bool fill_with(const RawPeer& peer, std::string& bytes) {
  const pawl::SystemResult sent = pawl::System::real().send(peer.fd(), bytes.data(), bytes.size());
  bytes.resize(sent.ok() ? sent.bytes() : 0);
  return !bytes.empty();
}

/// What the kernel keeps on its way isn't this much.
std::string much() { return noise(2'000'000); }

}  // namespace

TEST_CASE("A peer that ends makes this side end too, in good order") {
  EventLoop loop;
  Link link(loop);
  link.peer.send("bye");
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "data eof closed");
  CHECK_FALSE(link.record.error);
  CHECK(link.connection->state() == ConnectionState::done);
  CHECK_FALSE(link.connection->error());
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == 0);
}

TEST_CASE("A peer's end doesn't discard what this side hasn't sent") {
  EventLoop loop;
  Link link(loop, {}, tight);
  const std::string big = much();
  link.peer.stop_reading();
  link.connection->write(big);
  link.peer.end();
  run_until(loop, [&] { return link.record.order == "eof"; });
  passes(loop);
  CHECK(link.connection->state() == ConnectionState::sending);
  link.peer.start_reading();
  run_until(loop, [&] { return link.peer.is_over() && link.is_closed(); });
  CHECK(difference(link.peer.received(), big) == "");
  CHECK(link.peer.error() == 0);
  CHECK_FALSE(link.record.error);
}

TEST_CASE("What on_eof writes is sent before this side ends") {
  EventLoop loop;
  Link link(loop);
  link.connection->on_eof([](Connection& self) { self.write("farewell"); });
  link.peer.end();
  run_until(loop, [&] { return link.peer.is_over() && link.is_closed(); });
  CHECK(link.peer.received() == "farewell");
  CHECK_FALSE(link.record.error);
}

TEST_CASE("A half-open connection goes on sending until it is shut down") {
  EventLoop loop;
  Link link(loop, half_open());
  link.peer.end();
  run_until(loop, [&] { return link.record.order == "eof"; });
  for (const char* word : {"still ", "here ", "now"}) {
    link.connection->write(word);
    passes(loop);
  }
  CHECK(link.connection->state() == ConnectionState::receiving);
  SECTION("shut down") { link.connection->shutdown(); }
  SECTION("closed") { link.connection->close(); }
  run_until(loop, [&] { return link.is_closed() && link.peer.is_over(); });
  CHECK(link.peer.received() == "still here now");
  CHECK(link.peer.error() == 0);
  CHECK_FALSE(link.record.error);
}

TEST_CASE("A half-open connection notices a peer that is gone, without sending anything") {
  EventLoop loop;
  Link link(loop, half_open());
  link.peer.end();
  run_until(loop, [&] { return link.record.order == "eof"; });
  passes(loop);
  CHECK_FALSE(link.is_closed());
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == std::errc::broken_pipe);
  CHECK(link.connection->close_reason() == pawl::CloseReason::peer_reset);
  CHECK(link.record.order == "eof closed");
}

TEST_CASE("After shutdown() the peer sees the end, and this side still receives") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.record.attach_drained(*link.connection);
  const std::string request = much();
  link.connection->write(request);
  link.connection->shutdown();
  link.connection->shutdown();
  run_until(loop, [&] { return link.peer.has_ended(); });
  CHECK(difference(link.peer.received(), request) == "");
  link.peer.send("the ");
  passes(loop);
  link.peer.send("answer");
  run_until(loop, [&] { return link.record.data == "the answer"; });
  CHECK(link.connection->state() == ConnectionState::receiving);
  CHECK_FALSE(link.is_closed());
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "drained data eof closed");
  CHECK_FALSE(link.record.error);
}

TEST_CASE("close() sends what is unsent, ends, and waits for the peer's end") {
  EventLoop loop;
  Link link(loop, {}, tight);
  const std::string big = much();
  link.connection->write(big);
  link.connection->close();
  CHECK(link.connection->state() == ConnectionState::sending);
  run_until(loop, [&] { return link.peer.has_ended(); });
  CHECK(difference(link.peer.received(), big) == "");
  passes(loop);
  CHECK_FALSE(link.is_closed());
  link.peer.close();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK_FALSE(link.record.error);
  CHECK(link.connection->describe().find("close in RECEIVING: in good order") != std::string::npos);
}

TEST_CASE("close() drops what still comes, so that no RST overtakes the last bytes") {
  EventLoop loop;
  Link link(loop);
  link.connection->pause_reading();
  link.peer.stop_reading();
  link.peer.send(noise(100'000));
  passes(loop);
  link.connection->write("the last bytes");
  link.connection->close();
  link.peer.send("and some more");
  passes(loop);
  CHECK_FALSE(link.connection->is_reading_paused());
  link.peer.start_reading();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "the last bytes");
  CHECK(link.peer.error() == 0);
  link.peer.send("even now");
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "closed");  // no data, no eof
  CHECK_FALSE(link.record.error);
}

TEST_CASE("close() doesn't listen for ever to a peer that never stops talking") {
  EventLoop loop;
  Link link(loop);
  link.connection->close();
  const std::string block(10'000, 'x');
  std::size_t said = 0;
  while (!link.is_closed() && said < 100'000'000) {
    link.peer.send(block);
    said += block.size();
    pass(loop);
  }
  CHECK(link.record.closed == 1);
  CHECK_FALSE(link.record.error);
  CHECK(said >= 1'000'000);
}

TEST_CASE("Both sides may close at once") {
  EventLoop loop;
  TcpPair pair;
  const auto near = Connection::adopt(loop, std::move(pair.ours));
  const auto far = Connection::adopt(loop, std::move(pair.theirs));
  Recorder at_near(*near);
  Recorder at_far(*far);
  near->write("from near");
  far->write("from far");
  near->close();
  far->close();
  loop.run();
  CHECK(at_near.closed == 1);
  CHECK(at_far.closed == 1);
  CHECK_FALSE(at_near.error);
  CHECK_FALSE(at_far.error);
}

TEST_CASE("abort() resets the connection and drops what is unsent") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.peer.stop_reading();
  link.connection->write(much());
  passes(loop);
  const std::size_t unsent = link.connection->buffered();
  REQUIRE(unsent > 0);
  link.connection->abort();
  CHECK(link.connection->state() == ConnectionState::done);
  CHECK(link.connection->error() == Errc::aborted);
  CHECK(link.connection->buffered() == unsent);
  CHECK(link.connection->local_endpoint() == Endpoint());
  CHECK(link.record.closed == 0);
  link.peer.start_reading();
  run_until(loop, [&] { return link.is_closed() && link.peer.is_over(); });
  CHECK(link.record.error == Errc::aborted);
  CHECK(link.record.order == "closed");
  CHECK(link.peer.error() == ECONNRESET);
}

TEST_CASE("Destroying a connection that isn't DONE resets it silently") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.connection->write(much());
  SECTION("at once") {}
  SECTION("in the middle") { passes(loop, 2); }
  link.connection.reset();
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.error() == ECONNRESET);
  CHECK(link.record.order.empty());
}

TEST_CASE("Destroying a connection that is DONE and not yet told so tells nothing") {
  EventLoop loop;
  Link link(loop);
  link.connection->abort();
  link.connection.reset();
  passes(loop);
  CHECK(link.record.order.empty());
}

TEST_CASE("A peer that resets ends the connection with the kernel's error") {
  EventLoop loop;
  Link link(loop, {}, tight);
  SECTION("while it is the peer's turn") {}
  SECTION("while there is something to send") {
    link.peer.stop_reading();
    link.connection->write(much());
    passes(loop);
    REQUIRE(link.connection->state() == ConnectionState::sending);
  }
  SECTION("while it closes") { link.connection->close(); }
  passes(loop);
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "closed");
  CHECK(link.record.error == std::errc::connection_reset);
}

TEST_CASE("What came before a reset is delivered before the error") {
  EventLoop loop;
  Link link(loop);
  const std::string last_words = noise(50'000);  // all of it arrives before the reset does
  link.peer.send(last_words);
  link.peer.reset();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "data closed");
  CHECK(difference(link.record.data, last_words) == "");
  CHECK(link.record.error == std::errc::connection_reset);
}

TEST_CASE("A failed write doesn't discard what can be read") {
  EventLoop loop;
  Link link(loop);
  const std::string last_words = noise(50'000);  // all of it arrives before the reset does
  link.connection->pause_reading();
  passes(loop);
  link.peer.send(last_words);
  link.peer.reset();
  link.connection->write("too late");
  passes(loop);
  CHECK_FALSE(link.is_closed());
  CHECK(link.connection->buffered() == 0);
  link.connection->write("dropped");
  CHECK(link.connection->buffered() == 0);
  link.connection->resume_reading();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "data closed");
  CHECK(difference(link.record.data, last_words) == "");
  CHECK(link.record.error == std::errc::connection_reset);
  CHECK(link.connection->buffered() == 8);
  CHECK_THAT(link.connection->describe(), Catch::Contains(" DONE: send in SENDING: "));
}

TEST_CASE("A send that failed is told when nothing is left to read, whatever the peer does") {
  EventLoop loop;
  ConnectionOptions options;
  options.write_timeout = GENERATE(0s, 30s);
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours), options);
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.stop_reading();
  ::shutdown(peer.fd(), SHUT_RD);
  std::string expected;
  SECTION("nothing is there") { connection->write("not wanted"); }
  SECTION("something is there") {
    expected = noise(300'000);
    CHECK(fill_with(peer, expected));
    connection->write("not wanted");
  }
  SECTION("something is there, and reading is paused") {
    expected = "one two three";
    connection->pause_reading();
    peer.send(expected);
    connection->write("not wanted");
    passes(loop);
    CHECK(record.order.empty());
    CHECK_THAT(connection->describe(),
               Catch::EndsWith(" SENDING, send failed: Broken pipe, 10 bytes lost"));
    connection->resume_reading();
  }
  SECTION("it closes") {
    connection->write("not wanted");
    connection->close();
  }
  SECTION("it has been read") {
    expected = "answered";
    peer.send(expected);
    connection->on_data([&](Connection& self, std::string_view bytes) {
      record.data += bytes;
      self.write("not wanted");
    });
  }
  run_until(loop, [&] { return record.closed > 0; });
  CHECK(difference(record.data, expected) == "");
  CHECK(record.error == std::errc::broken_pipe);
  CHECK(connection->buffered() == 10);
}

TEST_CASE("A closed connection whose sending has failed doesn't end in good order") {
  EventLoop loop;
  SocketPair pair;
  const auto connection = Connection::adopt(loop, std::move(pair.ours));
  Recorder record(*connection);
  RawPeer peer(loop, std::move(pair.theirs));
  peer.stop_reading();
  ::shutdown(peer.fd(), SHUT_RD);
  connection->write("not wanted");
  connection->close();
  for (int i = 0; i < 1000 && record.closed == 0; ++i) {
    peer.send(std::string(10'000, 'x'));
    passes(loop, 2);
  }
  CHECK(record.closed == 1);
  CHECK(record.error == std::errc::broken_pipe);
}

TEST_CASE("What is written after the end of this side is dropped, and debug mode says so") {
  pawl::LoopOptions debug;
  debug.debug = true;
  EventLoop loop(debug);
  std::vector<std::string> reports;
  loop.set_report_sink([&](std::string_view line) { reports.emplace_back(line); });
  Link link(loop);
  link.connection->write("in time");
  SECTION("shut down") { link.connection->shutdown(); }
  SECTION("closed") { link.connection->close(); }
  SECTION("shut down and closed") {
    link.connection->shutdown();
    link.connection->close();
  }
  link.connection->write("late");
  link.connection->write(std::string(100'000, 'x'));
  link.connection->write_file({}, 0, 100'000);
  CHECK(link.connection->buffered() == 7);
  run_until(loop, [&] { return link.peer.is_over(); });
  link.connection->write("later");
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  link.connection->write("after the end");
  passes(loop);
  CHECK(link.peer.received() == "in time");
  REQUIRE(reports.size() == 5);
  const std::string peer = link.connection->peer_endpoint().to_string();
  CHECK(reports.front() == "write dropped: connection to " + peer + " SENDING, 7 bytes unsent");
  CHECK(reports.back() == "write dropped: " + link.connection->describe());
}

TEST_CASE("The bytes that never went are counted after the end") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.peer.stop_reading();
  const std::string big = much();
  link.connection->write(big);
  passes(loop);
  const std::uint64_t sent = link.connection->bytes_sent();
  SECTION("aborted") { link.connection->abort(); }
  SECTION("reset by the peer") {
    link.peer.reset();
    run_until(loop, [&] { return link.is_closed(); });
  }
  SECTION("sent before the end") {
    link.peer.start_reading();
    run_until(loop, [&] { return link.connection->buffered() == 0; });
    link.connection->abort();
    CHECK(link.connection->buffered() == 0);
    return;
  }
  CHECK(link.connection->buffered() == big.size() - sent);
  CHECK_THAT(link.connection->describe(),
             Catch::EndsWith(", " + std::to_string(big.size() - sent) + " bytes unsent"));
}

TEST_CASE("on_closed may be set until it comes, from the pass after the end") {
  EventLoop loop;
  Link link(loop);
  link.connection->abort();
  link.connection->on_closed({});
  bool called = false;
  link.connection->on_closed([&](Connection&, std::error_code) { called = true; });
  loop.run_once();
  CHECK(called);
  CHECK(link.record.closed == 0);
}

TEST_CASE("A connection that has ended doesn't keep the loop running") {
  EventLoop loop;
  ConnectionOptions options;
  options.idle_timeout = 1h;
  options.write_timeout = 1h;
  options.close_timeout = 1h;
  Link link(loop, options, tight);
  link.connection->write(much());
  SECTION("closed") {
    link.connection->close();
    run_until(loop, [&] { return link.peer.is_over(); });
    link.peer.close();
  }
  SECTION("aborted") {
    passes(loop);
    link.connection->abort();
  }
  SECTION("ended by the peer") { link.peer.end(); }
  loop.run();
  CHECK(link.record.closed == 1);
  CHECK(loop.why_alive().empty());
}

TEST_CASE("Ends want no memory, however many there are in one pass, and each is told") {
  const bool is_abrupt = GENERATE(true, false);
  EventLoop loop;
  constexpr std::size_t count = 600;
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<UniqueFd> peers;
  std::size_t told = 0;
  for (std::size_t i = 0; i < count; ++i) {
    TcpPair pair;
    peers.push_back(std::move(pair.theirs));
    connections.push_back(Connection::adopt(loop, std::move(pair.ours)));
    connections.back()->on_closed([&](Connection&, std::error_code) { ++told; });
  }
  pass(loop);
  {
    const OutOfMemory forever(0);
    if (is_abrupt) {
      for (const auto& connection : connections) connection->abort();
    } else {
      for (const auto& connection : connections) connection->close();
    }
  }
  if (!is_abrupt) peers.clear();
  run_until(loop, [&] { return told == count; });
  passes(loop);
  CHECK(told == count);
}
