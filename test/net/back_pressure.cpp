// SPDX-License-Identifier: MIT
// One side is faster than the other.
#include <malloc.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/scratch.hpp"
#include "net/output_cork.hpp"
#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/connection.hpp"
#include "support/faulty_system.hpp"
#include "support/sockets.hpp"
#include "support/virtual_clock.hpp"

using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Errc;
using pawl::EventLoop;
using pawl::OutputQueue;

namespace {

ConnectionOptions marks(std::size_t high, std::size_t low, std::size_t limit = 16 * 1024 * 1024) {
  ConnectionOptions options;
  options.high_water = high;
  options.low_water = low;
  options.write_limit = limit;
  return options;
}

/// What malloc has handed out. Nothing, as far as a sanitizer says.
std::size_t heap_bytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

/// Writes until the kernel's buffers are full: every byte more stays in the connection.
std::size_t fill(EventLoop& loop, Link& link) {
  link.peer.stop_reading();
  std::size_t written = 0;
  while (link.connection->state() != ConnectionState::sending) {
    link.connection->write(std::string(1000, 'f'));
    written += 1000;
    passes(loop, 3);
  }
  return written;
}

}  // namespace

TEST_CASE("on_drained comes once after a write, when everything is with the kernel") {
  EventLoop loop;
  Link link(loop);
  link.record.attach_drained(*link.connection);
  passes(loop);
  CHECK(link.record.drained == 0);  // nothing was written
  link.connection->write("one");
  link.connection->write("two");
  CHECK(link.record.drained == 0);
  run_until(loop, [&] { return link.record.drained > 0; });
  CHECK(link.connection->buffered() == 0);
  passes(loop);
  CHECK(link.record.drained == 1);
  link.connection->write("three");
  run_until(loop, [&] { return link.record.drained == 2; });
  passes(loop);
  CHECK(link.record.drained == 2);
}

TEST_CASE("on_drained doesn't come before everything is with the kernel") {
  EventLoop loop;
  Link link(loop, marks(1'000'000, 100), tight);
  link.record.attach_drained(*link.connection);
  fill(loop, link);
  const int before = link.record.drained;
  link.connection->write(std::string(10'000, 'x'));
  passes(loop);
  CHECK(link.record.drained == before);
  CHECK_FALSE(link.connection->is_congested());
  std::size_t unsent = 1;
  link.connection->on_drained([&](Connection& self) { unsent = self.buffered(); });
  link.peer.start_reading();
  run_until(loop, [&] { return unsent != 1; });
  CHECK(unsent == 0);
}

TEST_CASE("A connection is congested from high water on until low water is reached") {
  EventLoop loop;
  Link link(loop, marks(100'000, 50'000), tight);
  fill(loop, link);
  const std::size_t base = link.connection->buffered();
  REQUIRE(base < 50'000);
  link.connection->write(std::string(100'000 - base - 1, 'x'));
  CHECK_FALSE(link.connection->is_congested());
  link.connection->write("x");
  CHECK(link.connection->is_congested());
  std::vector<std::size_t> unsent;
  link.connection->on_drained([&](Connection& self) {
    unsent.push_back(self.buffered());
    CHECK_FALSE(self.is_congested());
  });
  while (link.connection->is_congested()) {
    CHECK(link.connection->buffered() > 50'000);
    CHECK(unsent.empty());
    link.peer.read(500);
    pass(loop);
  }
  CHECK(link.connection->buffered() <= 50'000);
  run_until(loop, [&] { return !unsent.empty(); });
  CHECK(unsent.size() == 1);
  CHECK(unsent[0] <= 50'000);
  CHECK(unsent[0] > 0);
  // That was the one for all that was written so far.
  link.peer.start_reading();
  run_until(loop, [&] { return link.connection->buffered() == 0; });
  passes(loop);
  CHECK(unsent.size() == 1);
}

TEST_CASE("Low water is reached with exactly that many unsent bytes") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop, marks(20'000, 10'000));
  link.connection->write(std::string(20'000, 'x'));
  CHECK(link.connection->is_congested());
  SECTION("one byte more isn't enough") { system.set_chunk_limit(9'999); }
  SECTION("reached") { system.set_chunk_limit(10'000); }
  system.fail(Call::send, EAGAIN, FaultySystem::forever, 1);
  passes(loop);
  CHECK(link.connection->is_congested() == (link.connection->buffered() == 10'001));
}

TEST_CASE("on_drained doesn't come while a connection is congested again") {
  EventLoop loop;
  Link link(loop, marks(100'000, 50'000), tight);
  fill(loop, link);
  bool came_while_congested = false;
  int drained = 0;
  link.connection->on_drained([&](Connection& self) {
    ++drained;
    came_while_congested = came_while_congested || self.is_congested();
  });
  link.connection->write("a little");
  link.peer.start_reading();
  // Drained, and told so in the next pass; but just before that a timer writes too much.
  run_until(loop, [&] { return link.connection->buffered() == 0; });
  link.peer.stop_reading();
  REQUIRE(drained == 0);
  loop.call_later({}, [&] { link.connection->write(std::string(1'000'000, 'x')); });
  pass(loop);
  CHECK(drained == 0);
  CHECK(link.connection->is_congested());
  link.peer.start_reading();
  run_until(loop, [&] { return drained > 0; });
  CHECK_FALSE(came_while_congested);
}

TEST_CASE("A connection that has failed or ended isn't congested") {
  EventLoop loop;
  Link link(loop, marks(10'000, 5'000), tight);
  fill(loop, link);
  link.connection->write(std::string(100'000, 'x'));
  REQUIRE(link.connection->is_congested());
  SECTION("aborted") { link.connection->abort(); }
  SECTION("reset") {
    link.peer.reset();
    run_until(loop, [&] { return link.is_closed(); });
  }
  CHECK_FALSE(link.connection->is_congested());
}

TEST_CASE("Output that is lost because sending failed ends the connection at once") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop, marks(10'000, 5'000));
  link.record.attach_drained(*link.connection);
  system.fail(Call::send, EPIPE);
  link.connection->write(std::string(20'000, 'x'));
  REQUIRE(link.connection->is_congested());
  pass(loop);
  CHECK(link.connection->state() == ConnectionState::done);
  passes(loop);
  CHECK(link.record.order == "closed");
  CHECK(link.record.error == std::errc::broken_pipe);
  CHECK(link.connection->buffered() == 20'000);
}

TEST_CASE("Who paused reading until the output has gone is told that it never will, and reads on") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  ConnectionOptions options = marks(10'000, 5'000);
  options.write_timeout = {};
  Link link(loop, options);
  link.record.attach_drained(*link.connection);
  link.peer.send("what came before");
  system.fail(Call::send, EPIPE);
  link.connection->pause_reading();
  link.connection->write(std::string(20'000, 'x'));
  REQUIRE(link.connection->is_congested());
  run_until(loop, [&] { return link.record.drained == 1; });
  CHECK(link.record.order == "drained");
  CHECK_FALSE(link.connection->is_congested());
  link.connection->write("dropped");
  link.connection->resume_reading();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "drained data closed");
  CHECK(link.record.error == std::errc::broken_pipe);
  CHECK(link.connection->buffered() == 20'000);
}

TEST_CASE("Small writes of one callback make a connection congested too") {
  EventLoop loop;
  Link link(loop, marks(100'000, 50'000));
  std::string expected;
  link.connection->on_data([&](Connection& self, std::string_view) {
    while (expected.size() < 200'000) {
      const std::string bytes = noise(100, static_cast<std::uint32_t>(expected.size()));
      self.write(bytes);
      expected += bytes;
      if (self.is_congested() != (expected.size() >= 100'000)) FAIL(expected.size());
    }
  });
  link.peer.send("go");
  run_until(loop, [&] { return link.peer.received_bytes() == 200'000; });
  CHECK(difference(link.peer.received(), expected) == "");
}

TEST_CASE("More unsent bytes than write_limit end the connection") {
  EventLoop loop;
  Link link(loop, marks(1000, 500, 1'000'000), tight);
  link.peer.stop_reading();
  std::size_t accepted = 0;
  const std::string block(10'000, 'x');
  const auto flood = [&] {
    while (link.connection->state() != ConnectionState::done) {
      link.connection->write(block);
      accepted += block.size();
      CHECK(link.connection->buffered() <= 1'000'000 + block.size());
      if (accepted > 10'000'000) break;
    }
  };
  SECTION("from outside") { flood(); }
  SECTION("from its own callback") {
    link.connection->on_data([&](Connection&, std::string_view) { flood(); });
    link.peer.send("go");
    run_until(loop, [&] { return accepted > 0; });
  }
  SECTION("in one piece") {
    link.connection->write(std::string(1'000'000, 'x'));
    CHECK(link.connection->state() == ConnectionState::sending);
    link.connection->write(std::string(1'000'000, 'x'));  // and the kernel takes some
  }
  SECTION("in one piece that is taken over") {
    link.connection->write(std::string(2'000'000, 'x'));
  }
  CHECK(link.connection->state() == ConnectionState::done);
  CHECK(link.connection->error() == Errc::write_limit);
  CHECK(link.connection->buffered() > 1'000'000);
  link.connection->write(block);
  run_until(loop, [&] { return link.is_closed(); });
  passes(loop);
  CHECK(link.record.closed == 1);
  CHECK(link.record.error == Errc::write_limit);
  CHECK_THAT(link.record.order, Catch::EndsWith("closed"));
}

TEST_CASE("A write that is over the limit isn't copied first") {
  EventLoop loop;
  Link link(loop, marks(1000, 500, 1'000'000));
  // Nobody has that much memory: whoever copies it throws.
  const char byte = 'x';
  const std::string_view huge(&byte, std::size_t{3} << (sizeof(void*) == 8 ? 45 : 30));
  link.connection->write(huge);
  CHECK(link.connection->error() == Errc::write_limit);
  CHECK(link.connection->buffered() == huge.size());
  run_until(loop, [&] { return link.is_closed(); });
}

TEST_CASE("Bytes that are written before it is connected count for the limit too") {
  EventLoop loop;
  RawListener listener;
  const auto connection =
      Connection::connect(loop, listener.endpoint(), marks(1000, 500, 1'000'000));
  Recorder record(*connection);
  for (int i = 0; i < 200; ++i) connection->write(std::string(10'000, 'x'));
  CHECK(connection->error() == Errc::write_limit);
  CHECK(record.order.empty());
  loop.run();
  CHECK(record.order == "closed");
}

TEST_CASE("A peer that never reads costs what the limit allows, and only its own connection") {
  EventLoop loop;
  Link lazy(loop, marks(64'000, 16'000, 1'000'000), tight);
  Link quick(loop, marks(64'000, 16'000, 1'000'000));
  lazy.peer.stop_reading();
  quick.peer.keep_nothing();
  std::size_t most = 0;
  const std::string block(10'000, 'x');
  const auto publish = [&] {
    for (Link* link : {&lazy, &quick}) link->connection->write(block);
    if (!lazy.is_closed()) most = std::max(most, lazy.connection->buffered());
  };
  for (int i = 0; i < 300; ++i) {
    publish();
    passes(loop, 2);
  }
  CHECK(most <= 1'000'000 + block.size());
  CHECK(lazy.record.closed == 1);
  CHECK(lazy.record.error == Errc::write_limit);
  run_until(loop, [&] { return quick.peer.received_bytes() == 3'000'000; });
  CHECK_FALSE(quick.is_closed());
}

TEST_CASE("While reading is paused the peer is slowed down, and nothing is lost") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.connection->pause_reading();
  CHECK(link.connection->is_reading_paused());
  const std::size_t queued = fill(link.peer.fd());
  passes(loop);
  CHECK(fill(link.peer.fd()) == 0);
  CHECK(link.record.order.empty());
  CHECK(link.connection->bytes_received() == 0);
  link.connection->resume_reading();
  CHECK_FALSE(link.connection->is_reading_paused());
  run_until(loop, [&] { return link.record.data.size() == queued; });
}

TEST_CASE("A connection that pauses itself in on_data gets no more of it") {
  EventLoop loop;
  Link link(loop);
  const std::size_t queued = fill(link.peer.fd());
  REQUIRE(queued > 100'000);
  int calls = 0;
  std::size_t received = 0;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    ++calls;
    received += bytes.size();
    self.pause_reading();
  });
  run_until(loop, [&] { return calls == 1; });
  passes(loop);
  CHECK(calls == 1);
  int expected_calls = 1;
  while (received < queued) {
    ++expected_calls;
    link.connection->resume_reading();
    run_until(loop, [&] { return calls == expected_calls; });
    passes(loop);
    CHECK(calls == expected_calls);
    if (calls != expected_calls) break;
  }
  CHECK(received == queued);
}

TEST_CASE("Pausing and resuming at once changes nothing") {
  EventLoop loop;
  Link link(loop);
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    self.pause_reading();
    self.resume_reading();
    link.record.data += bytes;
  });
  const std::size_t queued = fill(link.peer.fd());
  run_until(loop, [&] { return link.record.data.size() == queued; });
  link.connection->resume_reading();
  link.connection->pause_reading();
  link.connection->resume_reading();
  link.peer.send("more");
  run_until(loop, [&] { return link.record.data.size() == queued + 4; });
}

TEST_CASE("The end of the peer waits behind a pause, after what came before it") {
  EventLoop loop;
  Link link(loop);
  link.connection->pause_reading();
  link.peer.send("last words");
  link.peer.end();
  passes(loop);
  CHECK(link.record.order.empty());
  link.connection->resume_reading();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.order == "data eof closed");
  CHECK(link.record.data == "last words");
  CHECK_FALSE(link.record.error);
}

TEST_CASE("A paused connection still sends") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.connection->pause_reading();
  link.peer.send("not read yet");
  const std::string big = noise(1'000'000);
  link.connection->write(big);
  run_until(loop, [&] { return link.peer.received() == big; });
  CHECK(link.record.data.empty());
}

TEST_CASE("A sibling that is paused in the pass that has its data gets it later") {
  EventLoop loop;
  Link links[2] = {Link(loop), Link(loop)};
  int first = -1;
  for (int i = 0; i < 2; ++i) {
    Link& other = links[1 - i];
    links[i].connection->on_data([&, i](Connection&, std::string_view) {
      if (first >= 0) return;
      first = i;
      other.connection->pause_reading();
    });
    links[i].peer.send("both at once");
  }
  passes(loop);
  REQUIRE(first >= 0);
  Link& paused = links[1 - first];
  CHECK(paused.connection->bytes_received() == 0);
  paused.connection->resume_reading();
  run_until(loop, [&] { return paused.connection->bytes_received() == 12; });
}

TEST_CASE("A queue of output shows what it has, wherever that lies") {
  OutputQueue queue;
  pawl::Scratch scratch;
  queue.append(std::string_view("little"), scratch);
  CHECK(queue.piece(0) == "little");
  CHECK(queue.piece(1).empty());
  queue.consume(2, scratch);
  CHECK(queue.piece(0) == "ttle");
  CHECK(queue.piece(1).empty());
  queue.append(std::string(20'000, 'x'), scratch);
  CHECK(queue.piece(0) == "ttle");
  CHECK(queue.piece(1).size() == 20'000);
  CHECK(queue.piece(2).empty());
  queue.clear(scratch);
  CHECK(queue.piece(0).empty());
}

TEST_CASE("A queue of output gives memory back as it is consumed") {
  OutputQueue queue;
  pawl::Scratch scratch;
  constexpr std::size_t size = 4 * 1024 * 1024;
  const std::size_t before = heap_bytes();
  for (int i = 0; i < 8; ++i) queue.append(std::string(size, 'x'), scratch);
  CHECK(queue.bytes() == 8 * size);
  queue.consume(7 * size + 1, scratch);
  CHECK(queue.bytes() == size - 1);
  CHECK(heap_bytes() <= before + 2 * size);
  queue.clear(scratch);
  CHECK(queue.empty());
  CHECK(heap_bytes() <= before + size);
}

TEST_CASE("A queue of output that never runs empty doesn't grow") {
  OutputQueue queue;
  pawl::Scratch scratch;
  const std::string block = noise(20'000);
  Checksum in;
  Checksum out;
  std::size_t most_pieces = 0;
  for (unsigned i = 0; i < 2000; ++i) {
    const std::string_view bytes = std::string_view(block).substr(0, 1 + i * 7919U % 20'000);
    in.add(bytes);
    queue.append(bytes, scratch);
    while (queue.bytes() > 100'000) {
      const std::string_view first = queue.piece(0).substr(0, 3000);
      out.add(first);
      queue.consume(first.size(), scratch);
    }
    std::size_t pieces = 0;
    while (!queue.piece(pieces).empty()) ++pieces;
    most_pieces = std::max(most_pieces, pieces);
  }
  while (!queue.empty()) {
    out.add(queue.piece(0));
    queue.consume(queue.piece(0).size(), scratch);
  }
  CHECK(in == out);
  CHECK(most_pieces < 30);
}
