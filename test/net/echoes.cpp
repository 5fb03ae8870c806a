// SPDX-License-Identifier: MIT
// What is written back lies where it was read, and the loop's connections share that place:
// whatever happens before it is with the kernel, it must stay what it was.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "net/stream.hpp"
#include "support/allocation_counter.hpp"
#include "support/faulty_system.hpp"
#include "support/virtual_clock.hpp"

using pawl::Connection;
using pawl::ConnectionState;
using pawl::EventLoop;

namespace {

constexpr std::size_t read_bytes = 64 * 1024;  // in one call, at most

/// Fills the loop's read buffer with other bytes, as the next connection's input does.
void overwrite_what_was_read(EventLoop& loop) {
  Link other(loop);
  const std::string bytes = noise(20'000, 99);
  other.peer.send(bytes);
  run_until(loop, [&] { return other.record.data == bytes; });
}

/// The kernel, which takes no more than `most` bytes at once.
class TakesParts final : public FaultySystem {
 public:
  pawl::SystemResult send(int fd, const void* data, std::size_t bytes) override {
    return FaultySystem::send(fd, data, std::min(bytes, most));
  }
  std::size_t most = read_bytes;
};

void check_received(EventLoop& loop, RawPeer& peer, const std::string& expected) {
  run_until(loop, [&] { return peer.received_bytes() >= expected.size(); });
  passes(loop);
  CHECK(difference(peer.received(), expected) == "");
}

}  // namespace

TEST_CASE("Bytes of the input and others leave in the order in which they were written") {
  EventLoop loop;
  Link link(loop);
  std::function<void(Connection&, std::string_view)> answer;
  link.connection->on_data([&](Connection& self, std::string_view bytes) { answer(self, bytes); });
  std::string expected;
  SECTION("all of it, then others") {
    answer = [](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.write("!");
    };
    expected = "0123456789!";
  }
  SECTION("others, then all of it") {
    answer = [](Connection& self, std::string_view bytes) {
      self.write("!");
      self.write(bytes);
    };
    expected = "!0123456789";
  }
  SECTION("twice") {
    answer = [](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.write(bytes);
    };
    expected = "01234567890123456789";
  }
  SECTION("parts of it, backwards") {
    answer = [](Connection& self, std::string_view bytes) {
      for (std::size_t i = bytes.size(); i > 0; --i) self.write(bytes.substr(i - 1, 1));
    };
    expected = "9876543210";
  }
  SECTION("nothing, then a part") {
    answer = [](Connection& self, std::string_view bytes) {
      self.write(bytes.substr(0, 0));
      self.write(bytes.substr(3, 4));
    };
    expected = "3456";
  }
  SECTION("a part, then more than is put together") {
    const std::string much = noise(200'000);
    answer = [much](Connection& self, std::string_view bytes) {
      self.write(bytes.substr(5));
      self.write(much);
      self.write(bytes);
    };
    expected = "56789" + much + "0123456789";
  }
  link.peer.send("0123456789");
  check_received(loop, link.peer, expected);
}

TEST_CASE("While a callback runs its echo counts as unsent, and the connection is SENDING") {
  EventLoop loop;
  Link link(loop);
  bool was_told = false;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    self.write(bytes);
    CHECK(self.buffered() == bytes.size());
    CHECK(self.state() == ConnectionState::sending);
    was_told = true;
  });
  link.peer.send("hello");
  check_received(loop, link.peer, "hello");
  CHECK(was_told);
  CHECK(link.connection->buffered() == 0);
  CHECK(link.connection->state() == ConnectionState::receiving);
  CHECK(link.connection->bytes_sent() == 5);
}

TEST_CASE("An echo that the kernel doesn't take at once goes on as it was") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  SECTION("it is full") { system.fail(Call::send, EAGAIN); }
  SECTION("memory is short") { system.fail(Call::send, ENOBUFS); }
  const std::string sent = noise(5'000);
  link.peer.send(sent);
  run_until(loop, [&] { return link.connection->buffered() == sent.size(); });
  CHECK(link.connection->state() == ConnectionState::sending);
  Link other(loop);
  other.peer.send(noise(20'000, 99));
  check_received(loop, link.peer, sent);
  CHECK(link.connection->state() == ConnectionState::receiving);
}

TEST_CASE("The part of an echo that the kernel doesn't take stays what it was") {
  EventLoop loop;
  Link link(loop, {}, tight);
  link.peer.stop_reading();
  std::string sent;
  link.connection->on_data([](Connection& self, std::string_view bytes) { self.write(bytes); });
  while (link.connection->buffered() == 0) {
    const std::string more = noise(1'500, static_cast<std::uint32_t>(sent.size()));
    link.peer.send(more);
    sent += more;
    run_until(loop, [&] { return link.connection->bytes_received() == sent.size(); });
  }
  overwrite_what_was_read(loop);
  link.peer.start_reading();
  check_received(loop, link.peer, sent);
}

TEST_CASE("What a callback echoed before it threw leaves unchanged") {
  EventLoop loop;
  Link link(loop);
  Link other(loop);  // reads in the same pass, into the same place
  bool throws = true;
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    self.write(bytes);
    if (std::exchange(throws, false)) throw std::runtime_error("thrown by a callback");
  });
  const std::string sent = noise(3'000);
  link.peer.send(sent);
  const auto run = [&] { run_until(loop, [&] { return link.connection->bytes_received() > 0; }); };
  CHECK_THROWS_AS(run(), std::runtime_error);
  CHECK(link.connection->buffered() == sent.size());
  other.peer.send(noise(4'000, 7));
  run_until(loop, [&] { return other.record.data.size() == 4'000; });
  check_received(loop, link.peer, sent);
  link.peer.send("more");
  check_received(loop, link.peer, sent + "more");
}

TEST_CASE("With an exception handler an echo leaves unchanged too, whoever reads meanwhile") {
  EventLoop loop;
  loop.set_exception_handler([](std::exception_ptr) {});
  Link one(loop);
  Link two(loop);
  for (Link* link : {&one, &two}) {
    link->connection->on_data([](Connection& self, std::string_view bytes) {
      self.write(bytes);
      throw std::runtime_error("thrown by a callback");
    });
  }
  const std::string first = noise(3'000, 1);
  const std::string second = noise(4'000, 2);
  one.peer.send(first);
  two.peer.send(second);
  check_received(loop, one.peer, first);
  check_received(loop, two.peer, second);
}

TEST_CASE("An echo of the beginning of more than one read is not overtaken by the next read") {
  EventLoop loop;
  Link link(loop);
  Link other(loop);
  std::string expected;
  std::size_t longest = 0;
  bool is_place_taken = false;  // that of what is written in one callback
  SECTION("with room for it elsewhere") {}
  SECTION("while another connection has that") { is_place_taken = true; }
  const auto answer = [&](Connection& self, std::string_view bytes) {
    if (is_place_taken) other.connection->write("x");
    longest = std::max(longest, bytes.size());
    expected += bytes.substr(0, 1000);
    self.write(bytes.substr(0, 1000));
  };
  link.connection->on_data(answer);
  link.connection->pause_reading();
  passes(loop);
  link.peer.send(noise(3 * read_bytes));  // as much as the kernel keeps
  passes(loop);
  link.connection->resume_reading();
  run_until(loop, [&] { return link.connection->bytes_received() == 3 * read_bytes; });
  CHECK(longest == read_bytes);
  check_received(loop, link.peer, expected);
}

TEST_CASE("An echo to another connection and to its own both arrive") {
  EventLoop loop;
  Link link(loop);
  Link other(loop);
  link.connection->on_data([&](Connection& self, std::string_view bytes) {
    other.connection->write(bytes);
    self.write(bytes);
    other.connection->write(bytes);
  });
  const std::string sent = noise(2'000);
  link.peer.send(sent);
  check_received(loop, link.peer, sent);
  check_received(loop, other.peer, sent + sent);
}

TEST_CASE("What is passed on to another connection stays what it was, whoever reads meanwhile") {
  EventLoop loop;
  Link from[2] = {Link(loop), Link(loop)};
  Link to[2] = {Link(loop), Link(loop)};
  const std::string sent[2] = {noise(2'000, 1), noise(3'000, 2)};
  for (const int i : {0, 1}) {
    Connection& other = *to[i].connection;
    from[i].connection->on_data(
        [&other](Connection&, std::string_view bytes) { other.write(bytes); });
    from[i].peer.send(sent[i]);  // both are read in one pass
  }
  for (const int i : {0, 1}) check_received(loop, to[i].peer, sent[i]);
}

TEST_CASE("What a callback echoes after it has ended its connection is dropped") {
  FaultySystem system;
  EventLoop loop(options_on(system));
  Link link(loop);
  link.connection->on_data([](Connection& self, std::string_view bytes) {
    self.abort();
    self.write(bytes);
    self.write("!");
    CHECK(self.buffered() == 0);
  });
  link.peer.send("hello");
  run_until(loop, [&] { return link.is_closed() && link.peer.is_over(); });
  CHECK(system.count(Call::send) == 0);
  CHECK(link.connection->buffered() == 0);
  CHECK(link.peer.received() == "");
}

TEST_CASE("What goes to others beside an echo stays what it was, whoever writes meanwhile") {
  EventLoop loop;
  Link from[2] = {Link(loop), Link(loop)};
  Link to[2] = {Link(loop), Link(loop)};
  const std::string news[2] = {noise(2'000, 1), noise(2'000, 2)};
  for (const int i : {0, 1}) {
    Connection& other = *to[i].connection;
    from[i].connection->on_data(
        [&other, &text = news[i]](Connection& self, std::string_view bytes) {
          self.write(bytes);
          other.write(text);
        });
    from[i].peer.send("hello");  // both are read in one pass
  }
  for (const int i : {0, 1}) {
    check_received(loop, from[i].peer, "hello");
    check_received(loop, to[i].peer, news[i]);
  }
}

TEST_CASE("on_drained comes for an echo of the same callback, whenever it was set") {
  EventLoop loop;
  FaultySystem system;
  EventLoop faulty_loop(options_on(system));
  int drained = 0;
  const auto count = [&](Connection&) { ++drained; };
  SECTION("after the write") {
    TcpPair pair;
    const auto connection = Connection::adopt(loop, std::move(pair.ours));
    RawPeer peer(loop, std::move(pair.theirs));
    connection->on_data([&](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.on_drained(count);
    });
    peer.send("hello");
    run_until(loop, [&] { return drained == 1; });
    check_received(loop, peer, "hello");
    CHECK(drained == 1);
  }
  SECTION("when the kernel had refused it") {
    TcpPair pair;
    const auto connection = Connection::adopt(faulty_loop, std::move(pair.ours));
    RawPeer peer(faulty_loop, std::move(pair.theirs));
    connection->on_data([&](Connection& self, std::string_view bytes) { self.write(bytes); });
    system.fail(Call::send, EAGAIN);
    peer.send("hello");
    run_until(faulty_loop, [&] { return connection->buffered() == 5; });
    connection->on_drained(count);
    run_until(faulty_loop, [&] { return drained == 1; });
    check_received(faulty_loop, peer, "hello");
    CHECK(drained == 1);
  }
}

TEST_CASE("A connection that echoes and ends in one callback has sent its echo") {
  EventLoop loop;
  Link link(loop);
  SECTION("by close") {
    link.connection->on_data([](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.close();
    });
  }
  SECTION("by shutdown") {
    link.connection->on_data([](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.shutdown();
    });
  }
  SECTION("by release") {
    link.connection->on_data([](Connection& self, std::string_view bytes) {
      self.write(bytes);
      CHECK(self.release().unsent == "");
    });
  }
  link.peer.send("hello");
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "hello");
}

TEST_CASE("A connection that echoes and is aborted or destroyed leaves the loop's places free") {
  EventLoop loop;
  Link link(loop);
  Link first(loop);  // for it they are made
  first.connection->on_data([](Connection& self, std::string_view) { self.write("welcome"); });
  first.peer.send("hello");
  check_received(loop, first.peer, "welcome");
  SECTION("aborted") {
    link.connection->on_data([](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.abort();
    });
  }
  SECTION("destroyed") {
    link.connection->on_data([&](Connection& self, std::string_view bytes) {
      self.write(bytes);
      link.connection = nullptr;
    });
  }
  SECTION("destroyed after several writes") {
    link.connection->on_data([&](Connection& self, std::string_view bytes) {
      self.write(bytes);
      self.write(bytes);
      link.connection = nullptr;
    });
  }
  link.peer.send("hello");
  run_until(loop, [&] { return link.peer.is_over(); });
  CHECK(link.peer.received() == "");
  Link next(loop);
  next.connection->on_data([](Connection& self, std::string_view bytes) {
    const AllocationCounter allocations;
    self.write(bytes);
    self.write("!");
    CHECK(allocations.count() == 0);
  });
  next.peer.send("hello");
  check_received(loop, next.peer, "hello!");
}

TEST_CASE("Whatever was done, the loop waits for what follows from where the connection stands") {
  EventLoop loop;
  loop.set_exception_handler([](std::exception_ptr) {});
  TcpPair pair(tight);
  const int fd = pair.ours.get();
  Link link(loop, std::move(pair), {});
  Connection& connection = *link.connection;
  std::mt19937 random(7);
  std::uint64_t sent = 0;
  std::set<pawl::Interest> seen;
  const auto below = [&](std::size_t limit) { return random() % limit; };
  const auto act = [&](std::string_view bytes) {
    switch (below(9)) {
      case 0: return connection.pause_reading();
      case 1: return connection.resume_reading();
      case 2: return connection.write(std::string(below(40'000), 'x'));
      case 3: return connection.on_drained([&](Connection& self) { self.write("drained"); });
      case 4: return connection.on_drained({});
      case 5: return connection.unread(bytes);
      default: return connection.write(bytes);
    }
  };
  connection.on_data([&](Connection&, std::string_view bytes) {
    for (std::size_t i = below(4); i > 0; --i) act(bytes);
    if (below(8) == 0) throw std::runtime_error("thrown by a callback");
  });
  for (int round = 0; round < 2'000; ++round) {
    CAPTURE(round);
    if (below(4) == 0) act("from outside");
    if (below(4) == 0) link.peer.stop_reading();
    if (below(3) == 0) link.peer.start_reading();
    if (connection.bytes_received() + 500 > sent) {
      link.peer.send(noise(100));
      sent += 100;
    }
    passes(loop, 3);
    const pawl::Interest expected =
        (connection.is_reading_paused() ? pawl::Interest::none : pawl::Interest::read) |
        (connection.buffered() > 0 ? pawl::Interest::write : pawl::Interest::none);
    REQUIRE(loop.selector().get_key(fd)->interest == expected);
    seen.insert(expected);
  }
  CHECK(seen.size() == 4);
  connection.on_data({});
}

TEST_CASE("Where memory runs out an echo arrives as it was, or its connection fails") {
  enum class Then { throws, is_refused, is_taken_in_part };
  const auto then = GENERATE(Then::throws, Then::is_refused, Then::is_taken_in_part);
  const long after = GENERATE(range(0L, 8L));
  TakesParts system;
  EventLoop loop(options_on(system));
  std::optional<OutOfMemory> shortage;
  std::set<Connection*> written;
  loop.set_exception_handler([&](std::exception_ptr) {});
  Link one(loop);
  Link two(loop);
  for (Link* link : {&one, &two}) {
    link->peer.stop_reading();
    link->connection->on_data([&](Connection& self, std::string_view bytes) {
      self.write(bytes);  // which the shortage of the other one may refuse
      written.insert(&self);
      if (!shortage) shortage.emplace(after);
      if (then == Then::throws) throw 1;
    });
  }
  if (then == Then::is_refused) system.fail(Call::send, EAGAIN, 2);
  if (then == Then::is_taken_in_part) system.most = 1'000;
  passes(loop);
  const std::string sent = noise(3'000);
  one.peer.send(sent);
  two.peer.send(sent);
  const auto have_both = [&] {
    return one.connection->bytes_received() > 0 && two.connection->bytes_received() > 0;
  };
  while (!have_both()) {
    try {
      loop.run_once();
    } catch (const std::bad_alloc&) {
    }
  }
  shortage.reset();
  overwrite_what_was_read(loop);
  int failures = 0;
  for (Link* link : {&one, &two}) {
    link->peer.start_reading();
    Connection& connection = *link->connection;
    if (written.count(&connection) == 0) continue;
    run_until(loop, [&] {  // sent, or given up
      return connection.buffered() == 0 || connection.state() == ConnectionState::done;
    });
    if (connection.bytes_sent() == sent.size()) {
      check_received(loop, link->peer, sent);
      continue;
    }
    CHECK(connection.bytes_sent() == (then == Then::is_taken_in_part ? 1'000 : 0));
    run_until(loop, [&] { return link->peer.is_over(); });
    CHECK(link->peer.error() == ECONNRESET);  // what it has isn't the whole
    CHECK(connection.error() == std::errc::not_enough_memory);
    CHECK(connection.buffered() == sent.size() - connection.bytes_sent());
    ++failures;
  }
  if (after == 0) CHECK(failures > 0);
}
