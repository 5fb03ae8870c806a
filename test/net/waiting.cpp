// SPDX-License-Identifier: MIT
// Deadlines and limits judge the peer: neither our own pauses nor a loop that stood still.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/stream.hpp"
#include "net/systems.hpp"
#include "pawl/core/error.hpp"
#include "pawl/net/message_reader.hpp"
#include "pawl/net/relay.hpp"
#include "pawl/net/server.hpp"
#include "support/descriptor_limit.hpp"
#include "support/sockets.hpp"

using namespace std::chrono_literals;
using pawl::CloseReason;
using pawl::Connection;
using pawl::ConnectionOptions;
using pawl::ConnectionState;
using pawl::Duration;
using pawl::Endpoint;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Framing;
using pawl::MessageReader;

namespace {

/// A loop whose time the test moves.
struct Timed {
  Timed() : loop(options_on(system)) { pass(loop); }
  void advance(Duration span) {
    system.advance(span);
    passes(loop);
  }
  template <typename Condition>
  void until(Condition condition) {
    spin_until(loop, condition);
  }
  /// Does `work` when the loop has polled and before any other timer that is due by then: what it
  /// makes happen is in the kernel, and the loop hasn't heard of it.
  template <typename Work>
  void stand_still(Duration span, Work work) {
    loop.call_later(1ns, std::move(work));
    system.advance(span);
    passes(loop);
  }

  FaultyClock system;
  EventLoop loop;
};

ConnectionOptions idle(Duration timeout) {
  ConnectionOptions options;
  options.idle_timeout = timeout;
  return options;
}

ConnectionOptions limited(std::size_t limit) {
  ConnectionOptions options;
  options.write_limit = limit;
  return options;
}

/// Writes until the kernel takes no more.
void block(EventLoop& loop, Link& link) {
  link.peer.stop_reading();
  std::uint64_t sent = 0;
  do {
    sent = link.connection->bytes_sent();
    link.connection->write(std::string(100'000, 'x'));
    passes(loop, 3);
  } while (link.connection->bytes_sent() != sent);
  REQUIRE(link.connection->state() == ConnectionState::sending);
}

}  // namespace

// Our own pauses

TEST_CASE("The idle timeout doesn't run while reading is paused, and begins anew behind it") {
  Timed timed;
  Link link(timed.loop, idle(10s));
  passes(timed.loop);
  const auto pause = [&] { link.connection->pause_reading(); };
  const auto resume = [&] { link.connection->resume_reading(); };
  SECTION("of the connection") {
    pause();
    timed.advance(1h);
    link.peer.send("x");
    timed.advance(1h);
    CHECK_FALSE(link.is_closed());
    resume();
    timed.until([&] { return link.record.data == "x"; });
  }
  SECTION("with nothing that came meanwhile") {
    timed.advance(9s);
    pause();
    timed.advance(1h);
    resume();
    passes(timed.loop);
  }
  SECTION("just before it would have ended") {
    timed.advance(10s - 1ns);
    pause();
    resume();
    passes(timed.loop);
  }
  timed.advance(10s - 1ns);
  CHECK_FALSE(link.is_closed());
  timed.advance(1ns);
  CHECK(link.is_closed());
  CHECK(link.connection->close_reason() == CloseReason::idle_timeout);
}

TEST_CASE("The idle timeout doesn't run while a reader pauses") {
  Timed timed;
  Link link(timed.loop, idle(10s));
  MessageReader reader(*link.connection, Framing::lines());
  std::string lines;
  reader.on_message([&](Connection&, std::string_view line) { lines += line; });
  reader.pause();
  link.peer.send("one\n");
  passes(timed.loop);
  timed.advance(1h);
  CHECK_FALSE(link.is_closed());
  reader.resume();
  timed.until([&] { return lines == "one"; });
  timed.advance(10s - 1ns);
  CHECK_FALSE(link.is_closed());
  timed.advance(1ns);
  CHECK(link.is_closed());
}

TEST_CASE(
    "The idle timeout doesn't run while an answer is made for a peer that has ended its side") {
  Timed timed;
  ConnectionOptions options = idle(10s);
  options.allow_half_open = true;
  Link link(timed.loop, options);
  link.peer.send("question");
  link.peer.end();
  timed.until([&] { return link.record.order == "data eof"; });
  timed.advance(1h);
  CHECK_FALSE(link.is_closed());
  SECTION("which gets it") {
    link.connection->write("answer");
    link.connection->close();
    timed.until([&] { return link.is_closed(); });
    CHECK_FALSE(link.record.error);
    CHECK(link.peer.received() == "answer");
  }
  SECTION("in parts, with time between them") {
    link.connection->write("an");
    timed.until([&] { return link.peer.received() == "an"; });
    timed.advance(1h);
    CHECK_FALSE(link.is_closed());
    link.connection->write("swer");
    timed.until([&] { return link.peer.received() == "answer"; });
  }
  SECTION("unless it resets, which is heard") {
    link.peer.reset();
    timed.until([&] { return link.is_closed(); });
    CHECK(link.connection->close_reason() == CloseReason::peer_reset);
  }
}

TEST_CASE("The idle timeout runs for a peer that was told of our end, and hasn't ended yet") {
  Timed timed;
  ConnectionOptions options = idle(10s);
  options.allow_half_open = true;
  Link link(timed.loop, options);
  link.connection->shutdown();
  passes(timed.loop);
  timed.advance(10s);
  CHECK(link.is_closed());
  CHECK(link.connection->close_reason() == CloseReason::idle_timeout);
}

TEST_CASE("A relay to a slow reader isn't idle on the side that it keeps waiting") {
  Timed timed;
  ConnectionOptions options = idle(10s);
  options.write_timeout = 10s;
  Link left(timed.loop, options, tight);
  Link right(timed.loop, options, tight);
  pawl::relay(*left.connection, *right.connection);
  right.peer.stop_reading();
  std::size_t sent = 0;
  std::size_t before = 0;
  do {
    before = sent;
    sent += fill(left.peer.fd());
    passes(timed.loop, 3);
  } while (sent != before);
  for (int i = 0; i < 20; ++i) {  // slow, but it moves
    timed.advance(9s);
    const std::uint64_t taken = right.connection->bytes_sent();
    timed.until([&] {
      right.peer.read(1000);
      sent += fill(left.peer.fd());
      return right.connection->bytes_sent() > taken;
    });
    REQUIRE(left.connection->state() != ConnectionState::done);
    REQUIRE(right.connection->state() != ConnectionState::done);
  }
  left.peer.end();
  right.peer.start_reading();
  timed.until([&] { return right.peer.has_ended(); });
  CHECK(right.peer.received_bytes() == sent);
}

// A loop that stood still

TEST_CASE("What came while the loop stood still is in time for the idle timeout") {
  Timed timed;
  Link link(timed.loop, idle(10s));
  SECTION("bytes") {
    timed.stand_still(1h, [&] { link.peer.send("alive"); });
    CHECK(link.record.data == "alive");
    timed.advance(10s - 1ns);
    CHECK_FALSE(link.is_closed());
    timed.advance(1ns);
    CHECK(link.connection->close_reason() == CloseReason::idle_timeout);
  }
  SECTION("bytes that are answered at once, and again") {
    link.connection->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
    for (std::size_t i = 1; i < 4; ++i) {
      timed.stand_still(1h, [&] { link.peer.send("x"); });
      timed.until([&] { return link.peer.received_bytes() == i; });
    }
    timed.advance(10s);
    CHECK(link.connection->close_reason() == CloseReason::idle_timeout);
  }
  SECTION("bytes whose callback destroys the connection") {
    link.connection->on_data([&](Connection&, std::string_view) { link.connection.reset(); });
    timed.stand_still(1h, [&] { link.peer.send("x"); });
    CHECK(link.connection == nullptr);
  }
  SECTION("bytes whose callback throws") {
    link.connection->on_data([&](Connection&, std::string_view) { throw std::runtime_error("x"); });
    CHECK_THROWS(timed.stand_still(1h, [&] { link.peer.send("x"); }));
    passes(timed.loop);
    CHECK_FALSE(link.is_closed());
    timed.advance(10s);
    CHECK(link.connection->close_reason() == CloseReason::idle_timeout);
  }
  SECTION("the peer's end") {
    timed.stand_still(1h, [&] { link.peer.end(); });
    CHECK(link.record.order == "eof closed");
    CHECK_FALSE(link.record.error);
  }
  SECTION("a reset") {
    timed.stand_still(1h, [&] { link.peer.reset(); });
    CHECK(link.record.error == std::errc::connection_reset);
  }
  SECTION("the end of a peer that nobody listens to") {
    TcpPair pair;
    const auto deaf = Connection::adopt(timed.loop, std::move(pair.ours), idle(10s));
    std::string order;
    deaf->on_eof([&](Connection&) { order += "eof"; });
    timed.stand_still(1h, [&] { pair.theirs.reset(); });
    CHECK(order == "eof");
  }
}

TEST_CASE("Of many connections whose bytes wait none ends as idle because the loop stood still") {
  const DescriptorLimit limit;
  if (!limit.allows(2000)) return;
  const Duration span =
      GENERATE(Duration(10s - 1ns), Duration(10s), Duration(10s + 1ns), Duration(1min));
  CAPTURE(span.count());
  Timed timed;
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<pawl::UniqueFd> peers;
  int heard = 0;
  for (int i = 0; i < 800; ++i) {  // more than one wait brings
    SocketPair pair;
    connections.push_back(Connection::adopt(timed.loop, std::move(pair.ours), idle(10s)));
    connections.back()->on_data([&](Connection&, std::string_view) { ++heard; });
    peers.push_back(std::move(pair.theirs));
  }
  passes(timed.loop);
  for (const pawl::UniqueFd& peer : peers) write_byte(peer.get());
  timed.system.advance(span);
  timed.until([&] { return heard == 800; });
  passes(timed.loop);
  for (const auto& connection : connections) {
    if (connection->state() != ConnectionState::receiving) FAIL(connection->describe());
  }
}

TEST_CASE("What the peer took while the loop stood still is in time for the write timeout") {
  Timed timed;
  ConnectionOptions options;
  options.write_timeout = 10s;
  Link link(timed.loop, options, tight);
  block(timed.loop, link);
  const std::uint64_t before = link.connection->bytes_sent();
  timed.stand_still(1h, [&] {
    link.peer.read(1'000'000);
    std::size_t read = 0;
    while (link.peer.received_bytes() != read) {
      read = link.peer.received_bytes();
      link.peer.read(1'000'000);
    }
  });
  CHECK_FALSE(link.is_closed());
  CHECK(link.connection->bytes_sent() > before);
  timed.until([&] {
    const std::uint64_t sent = link.connection->bytes_sent();
    passes(timed.loop);
    return sent == link.connection->bytes_sent();
  });
  timed.advance(10s);
  CHECK(link.connection->close_reason() == CloseReason::write_timeout);
}

TEST_CASE("What came while the loop stood still is in time for the close timeout") {
  Timed timed;
  ConnectionOptions options;
  options.close_timeout = 10s;
  Link link(timed.loop, options);
  link.connection->write("bye");
  link.connection->close();
  passes(timed.loop);
  timed.stand_still(1h, [&] {
    link.peer.send("one more");
    link.peer.end();
  });
  CHECK(link.record.order == "closed");
  CHECK_FALSE(link.record.error);
  CHECK(link.connection->close_reason() == CloseReason::clean);
}

TEST_CASE("The close timeout begins when the last bytes leave, not while close()'s caller blocks") {
  Timed timed;
  ConnectionOptions options;
  options.close_timeout = 10s;
  Link link(timed.loop, options);
  passes(timed.loop);
  link.connection->write("answer");
  link.connection->close();
  timed.advance(10s);
  CHECK_FALSE(link.is_closed());
  SECTION("and then is the peer's") {
    timed.advance(10s - 1ns);
    CHECK_FALSE(link.is_closed());
    link.peer.end();
    timed.until([&] { return link.is_closed(); });
    CHECK_FALSE(link.record.error);
    CHECK(link.peer.received() == "answer");
  }
  SECTION("and ends") {
    timed.advance(10s);
    CHECK(link.is_closed());
    CHECK(link.connection->close_reason() == CloseReason::close_timeout);
  }
}

TEST_CASE("A peer that takes what is left isn't cut off because the loop stood still") {
  Timed timed;
  ConnectionOptions options;
  options.close_timeout = 10s;
  Link link(timed.loop, options, tight);
  link.peer.keep_nothing();
  block(timed.loop, link);
  const std::uint64_t all = link.connection->bytes_sent() + link.connection->buffered();
  link.connection->close();
  passes(timed.loop);
  timed.stand_still(1h, [&] { link.peer.read(1'000'000); });
  link.peer.start_reading();
  timed.until([&] { return link.peer.received_bytes() == all; });
  link.peer.end();
  timed.until([&] { return link.is_closed(); });
  CHECK_FALSE(link.record.error);
  CHECK(link.peer.received_bytes() == all);
}

TEST_CASE("An address that answered while the loop stood still is in time for the dial") {
  Timed timed;
  RawListener listener;
  ConnectionOptions options;
  options.connect_timeout = 10s;
  const auto connection = Connection::connect(timed.loop, listener.endpoint(), options);
  Recorder record(*connection);
  timed.advance(1h);
  CHECK(record.order == "connected");
}

TEST_CASE("An address that refused while the loop stood still ends the dial with that") {
  Timed timed;
  ConnectionOptions options;
  options.connect_timeout = 10s;
  const auto connection = Connection::connect(timed.loop, refusing_endpoint(), options);
  Recorder record(*connection);
  timed.advance(1h);
  CHECK(record.order == "closed");
  CHECK(record.error == std::errc::connection_refused);
}

TEST_CASE("A name that was found while the loop stood still isn't too late for the dial") {
  struct Names final : public OneAnswer {
    using OneAnswer::OneAnswer;
    pawl::TimePoint now() override { return pawl::TimePoint(Duration(nanoseconds.load())); }
    std::atomic<std::int64_t> nanoseconds{Duration(1h).count()};
  };
  RawListener listener;
  Names system({listener.endpoint()});
  EventLoop loop(options_on(system));
  if (loop.selector().fileno() < 0) return;
  pass(loop);
  ConnectionOptions options;
  options.connect_timeout = 10s;
  const auto connection = Connection::connect(loop, "example", listener.endpoint().port(), options);
  Recorder record(*connection);
  EventLoop waiting;  // until the answer has come
  bool has_come = false;
  waiting.add_reader(loop.selector().fileno(), [&] { has_come = true; });
  run_until(waiting, [&] { return has_come; });
  waiting.remove_reader(loop.selector().fileno());
  system.nanoseconds += Duration(1h).count();
  spin_until(loop, [&] { return !record.order.empty(); });
  CHECK(record.order == "connected");
}

// Bytes that the kernel was never offered

TEST_CASE("What the kernel takes when it is asked doesn't count for write_limit") {
  EventLoop loop;
  const BufferSizes sizes{4 * 1024 * 1024, 4 * 1024 * 1024};
  Link link(loop, limited(10'000), sizes);
  link.record.attach_drained(*link.connection);
  std::string expected;
  const auto write = [&](std::size_t bytes) {
    std::string piece = noise(bytes, static_cast<std::uint32_t>(expected.size()));
    expected += piece;
    return piece;
  };
  const auto write_all = [&] {
    for (int i = 0; i < 100; ++i) {
      link.connection->write(std::string_view(write(3'000)));
      link.connection->write(write(500));
    }
    link.connection->write(std::string_view(write(50'000)));  // more than the limit at once
    link.connection->write(write(60'000));
    link.connection->write(write(7));
    CHECK(link.record.order.empty());  // nothing comes from inside a write
    CHECK(link.record.drained == 0);
  };
  SECTION("from outside") { write_all(); }
  SECTION("from a callback of its own") {
    link.connection->on_data([&](Connection&, std::string_view bytes) {
      link.connection->write(bytes);  // from where it was read
      expected += bytes;
      write_all();
    });
    link.peer.send(noise(9'000, 77));
  }
  SECTION("with a file in between") {
    link.connection->write(write(10));
    pawl::UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    std::string content(20'000, '\0');
    REQUIRE(::pread(file.get(), content.data(), content.size(), 0) == 20'000);
    link.connection->write_file(std::move(file), 0, content.size());
    expected += content;
    write_all();
  }
  run_until(loop,
            [&] { return !expected.empty() && link.peer.received_bytes() == expected.size(); });
  CHECK(difference(link.peer.received(), expected) == "");
  CHECK(link.connection->state() == ConnectionState::receiving);
  run_until(loop, [&] { return link.record.drained > 0; });
}

TEST_CASE("A hundred who all read aren't too slow for a limit of much less than they get") {
  EventLoop loop;
  std::vector<std::unique_ptr<Link>> links;
  for (int i = 0; i < 100; ++i) links.push_back(std::make_unique<Link>(loop, limited(4'000)));
  const std::string line(100, 'x');
  for (const auto& from : links) {
    from->connection->on_data([&](Connection& self, std::string_view bytes) {
      for (const auto& to : links) {
        if (to->connection.get() != &self) to->connection->write(bytes);
      }
    });
    from->peer.send(line);
  }
  run_until(loop, [&] {
    return std::all_of(links.begin(), links.end(), [&](const auto& link) {
      return link->is_closed() || link->peer.received_bytes() == 99 * line.size();
    });
  });
  for (const auto& link : links) CHECK_FALSE(link->is_closed());
}

TEST_CASE("A peer that takes nothing reaches write_limit, with and without more at once") {
  EventLoop loop;
  Link link(loop, limited(10'000), tight);
  link.peer.stop_reading();
  const std::size_t piece = GENERATE(1'000U, 200'000U);
  for (int i = 0; i < 10'000 && link.connection->state() != ConnectionState::done; ++i) {
    link.connection->write(std::string(piece, 'x'));
    CHECK(link.connection->buffered() <= 10'000 + piece);
  }
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == Errc::write_limit);
  CHECK(link.record.order == "closed");
}

TEST_CASE("A limit that is reached while sending fails is no limit") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop, limited(100));
  system.fail(Call::send, EPIPE);
  link.connection->write(std::string(50, 'x'));
  link.connection->write(std::string(100, 'x'));
  link.peer.end();
  run_until(loop, [&] { return link.is_closed(); });
  CHECK(link.record.error == std::errc::broken_pipe);
}

TEST_CASE("Descriptors are offered to the kernel before a limit ends their connection") {
  EventLoop loop;
  SocketPair pair;
  const auto sender = Connection::adopt(loop, std::move(pair.ours), limited(100));
  const auto receiver = Connection::adopt(loop, std::move(pair.theirs));
  std::size_t came = 0;
  std::string data;
  receiver->on_fds([&](Connection&, std::vector<pawl::UniqueFd> fds) { came += fds.size(); });
  receiver->on_data([&](Connection&, std::string_view bytes) { data += bytes; });
  std::string expected;
  for (int i = 0; i < 10; ++i) {
    std::vector<pawl::UniqueFd> fds;
    fds.push_back(bound_socket(SOCK_STREAM));
    const std::string bytes = noise(i == 9 ? 300 : 60, static_cast<std::uint32_t>(i));
    sender->write_fds(bytes, std::move(fds));
    expected += bytes;
  }
  run_until(loop, [&] { return data.size() == expected.size(); });
  CHECK(data == expected);
  CHECK(came == 10);
  CHECK(sender->state() == ConnectionState::receiving);
}

TEST_CASE("A relay whose limit is below one read passes everything on, at its reader's pace") {
  EventLoop loop;
  const std::size_t limit = GENERATE(0U, 1U, 1'000U);
  Link left(loop, limited(limit), tight);
  Link right(loop, limited(limit), tight);
  pawl::relay(*left.connection, *right.connection);
  const bool is_slow = GENERATE(false, true);
  if (is_slow) right.peer.stop_reading();
  std::string sent;
  for (int i = 0; i < 100; ++i) {
    const std::string more = noise(2'000, static_cast<std::uint32_t>(i));
    const pawl::SystemResult taken =
        pawl::System::real().send(left.peer.fd(), more.data(), more.size());
    if (taken.ok()) sent.append(more, 0, taken.bytes());
    passes(loop, 2);
    REQUIRE(right.connection->buffered() <= std::max<std::size_t>(limit, 1));
  }
  left.peer.end();
  right.peer.start_reading();
  run_until(loop, [&] { return right.peer.is_over(); });
  CHECK(right.peer.has_ended());
  CHECK(difference(right.peer.received(), sent) == "");
}

// Want of memory in the kernel

TEST_CASE("While the kernel has no memory for what is sent, it is asked ten times a second") {
  const int error = GENERATE(ENOBUFS, ENOMEM);
  Timed timed;
  Link link(timed.loop);
  timed.system.fail(Call::send, error, FaultySystem::forever);
  SECTION("from outside") { link.connection->write("through"); }
  SECTION("an answer") {
    link.connection->on_data([](Connection& self, std::string_view) { self.write("through"); });
    link.peer.send("x");
    timed.until([&] { return link.connection->buffered() == 7; });
  }
  passes(timed.loop, 100);
  for (int i = 0; i < 5; ++i) {
    CHECK(timed.system.count(Call::send) == 1 + i);
    link.connection->resume_reading();
    timed.advance(100ms);
  }
  CHECK(link.connection->state() == ConnectionState::sending);
  timed.system.heal(Call::send);
  timed.advance(100ms);
  timed.until([&] { return link.peer.received() == "through"; });
  CHECK(link.connection->state() == ConnectionState::receiving);
}

TEST_CASE("A kernel without memory for so long ends the connection with that, not with the peer") {
  Timed timed;
  ConnectionOptions options;
  options.write_timeout = 10s;
  Link link(timed.loop, options);
  timed.advance(1h);
  timed.system.fail(Call::send, ENOBUFS, FaultySystem::forever);
  link.connection->write("x");
  passes(timed.loop);
  for (int i = 0; i < 99; ++i) timed.advance(100ms);
  CHECK_FALSE(link.is_closed());
  timed.advance(100ms);
  CHECK(link.is_closed());
  CHECK(link.record.error == std::errc::no_buffer_space);
}

TEST_CASE("A connection that waits for the kernel's memory hears its peer, and may end") {
  Timed timed;
  Link link(timed.loop);
  timed.system.fail(Call::send, ENOBUFS, FaultySystem::forever);
  link.connection->write("x");
  passes(timed.loop);
  link.peer.send("hello");
  timed.until([&] { return link.record.data == "hello"; });
  SECTION("destroyed") { link.connection.reset(); }
  SECTION("aborted") { link.connection->abort(); }
  SECTION("closed") {
    link.connection->close();
    timed.system.heal(Call::send);
    timed.advance(100ms);
    timed.until([&] { return link.peer.received() == "x"; });
    link.peer.end();
    timed.until([&] { return link.is_closed(); });
  }
  SECTION("released") {
    const Connection::Released released = link.connection->release();
    CHECK(released.unsent == "x");
  }
  timed.advance(1h);
}
