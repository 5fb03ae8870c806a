// SPDX-License-Identifier: MIT
// Messages over a connection.
#include "pawl/net/message_reader.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "net/stream.hpp"
#include "pawl/core/error.hpp"
#include "pawl/loop/event_loop.hpp"
#include "pawl/net/connection.hpp"
#include "support/allocation_counter.hpp"
#include "support/thrown.hpp"

using pawl::Connection;
using pawl::ConnectionState;
using pawl::Errc;
using pawl::EventLoop;
using pawl::Framing;
using pawl::LengthPrefix;
using pawl::MessageReader;

namespace {

/// A connection with a reader, and its raw peer.
struct Reading {
  explicit Reading(Framing framing, pawl::ConnectionOptions options = {}) : link(loop, options) {
    attach(std::move(framing));
  }
  void attach(Framing framing) {
    reader.reset();
    reader = std::make_unique<MessageReader>(*link.connection, std::move(framing));
    reader->on_message([this](Connection& self, std::string_view message) {
      CHECK(&self == link.connection.get());
      messages.emplace_back(message);
      if (on_message) on_message(message);
    });
    reader->on_end([this](Connection&, std::error_code error) {
      ++ends;
      end_error = error;
      partial = reader->partial();
    });
  }
  void run_until_messages(std::size_t count) {
    run_until(loop, [&] { return messages.size() >= count; });
  }

  EventLoop loop;
  Link link;
  std::unique_ptr<MessageReader> reader;
  std::vector<std::string> messages;
  pawl::Function<void(std::string_view)> on_message;
  int ends = 0;
  std::error_code end_error;
  std::string partial;
};

using Messages = std::vector<std::string>;

}  // namespace

TEST_CASE("Messages come one by one, and the peer's end between two is the end") {
  Reading it(Framing::lines());
  it.link.peer.send("one\ntw");
  it.run_until_messages(1);
  CHECK(it.reader->partial() == "tw");
  it.link.peer.send("o\nthree\n");
  it.run_until_messages(3);
  CHECK(it.messages == Messages{"one", "two", "three"});
  it.link.peer.end();
  run_until(it.loop, [&] { return it.link.is_closed(); });
  CHECK(it.ends == 1);
  CHECK_FALSE(it.end_error);
  CHECK_FALSE(it.link.record.error);
}

TEST_CASE("What write_message writes is what a prefixed reader reads") {
  const LengthPrefix prefix{2, pawl::ByteOrder::little};
  Reading it(Framing::prefixed(prefix));
  EventLoop& loop = it.loop;
  const std::string big = noise(60'000);
  TcpPair pair;
  const auto sender = Connection::adopt(loop, std::move(pair.ours));
  const auto receiver = Connection::adopt(loop, std::move(pair.theirs));
  MessageReader reader(*receiver, Framing::prefixed(prefix));
  Messages received;
  reader.on_message([&](Connection&, std::string_view message) { received.emplace_back(message); });
  write_message(*sender, prefix, "hello");
  write_message(*sender, prefix, "");
  write_message(*sender, prefix, big);
  CHECK_THROWS_AS(write_message(*sender, prefix, std::string(65'536, 'x')), std::length_error);
  run_until(loop, [&] { return received.size() == 3; });
  CHECK(received == Messages{"hello", "", big});
}

TEST_CASE("The peer's end in the middle of a message is told with what there is of it") {
  Reading it(Framing::prefixed(LengthPrefix{1}));
  it.link.peer.send("\3abc\5de");
  it.link.peer.end();
  run_until(it.loop, [&] { return it.ends == 1; });
  CHECK(it.messages == Messages{"abc"});
  CHECK(it.end_error == Errc::unexpected_end);
  CHECK(it.partial == "de");
}

TEST_CASE("All until the end is told at the end") {
  Reading it(Framing::until_end());
  it.link.peer.send("all\nof it");
  passes(it.loop, 5);
  CHECK(it.messages.empty());
  it.link.peer.end();
  run_until(it.loop, [&] { return it.ends == 1; });
  CHECK(it.messages == Messages{"all\nof it"});
  CHECK_FALSE(it.end_error);
}

TEST_CASE("A message that is too long ends the reading and closes the connection in good order") {
  Reading it(Framing::lines(5));
  it.reader->on_end([&](Connection& self, std::error_code error) {
    ++it.ends;
    it.end_error = error;
    self.write("too long");
  });
  it.link.peer.send("12345\n123456\n123\n");
  run_until(it.loop, [&] { return it.ends == 1; });
  CHECK(it.messages == Messages{"12345"});
  CHECK(it.end_error == Errc::message_too_long);
  CHECK(it.link.connection->is_closing());
  run_until(it.loop, [&] { return it.link.peer.has_ended(); });
  CHECK(it.link.peer.received() == "too long");
  it.link.peer.end();
  run_until(it.loop, [&] { return it.link.is_closed(); });
  CHECK(it.ends == 1);
  CHECK(it.messages.size() == 1);
}

TEST_CASE("A connection that fails says so itself, and on_end doesn't come") {
  Reading it(Framing::lines());
  it.link.peer.send("one\ntwo");
  it.run_until_messages(1);
  it.link.peer.reset();
  run_until(it.loop, [&] { return it.link.is_closed(); });
  CHECK(it.link.record.error == std::errc::connection_reset);
  CHECK(it.ends == 0);
}

// ---- changing

TEST_CASE("A header line may say how long the body is, which may be empty") {
  Reading it(Framing::lines());
  bool is_body = false;
  it.on_message = [&](std::string_view message) {
    is_body = !is_body;
    it.reader->set_framing(is_body ? Framing::exactly(std::stoul(std::string(message)))
                                   : Framing::lines());
  };
  it.link.peer.send("5\nhello0\n3\n\n\n\n");
  it.run_until_messages(6);
  CHECK(it.messages == Messages{"5", "hello", "0", "", "3", "\n\n\n"});
  it.link.peer.send("0\n");  // nothing comes behind it
  it.run_until_messages(8);
  CHECK(it.messages.back().empty());
}

TEST_CASE("A framing that is changed from outside holds for all that wasn't told") {
  Reading it(Framing::lines());
  it.link.peer.send("one\nabcd");
  it.run_until_messages(1);
  run_until(it.loop, [&] { return it.reader->partial() == "abcd"; });
  it.reader->set_framing(Framing::exactly(2));
  CHECK(it.messages.size() == 1);
  it.run_until_messages(3);
  CHECK(it.messages == Messages{"one", "ab", "cd"});
  it.reader->set_framing(Framing::lines());  // nothing has begun
  it.link.peer.send("line\n");
  it.run_until_messages(4);
  CHECK(it.messages.back() == "line");
}

TEST_CASE("A message of no bytes comes from the loop, though nothing does") {
  Reading it(Framing::exactly(0));
  it.on_message = [&](std::string_view) { it.reader->set_framing(Framing::lines()); };
  CHECK(it.messages.empty());
  it.run_until_messages(1);
  it.reader->set_framing(Framing::exactly(0));
  CHECK(it.messages.size() == 1);
  it.run_until_messages(2);
  it.link.peer.send("line\n");
  it.run_until_messages(3);
  CHECK(it.messages == Messages{"", "", "line"});
}

TEST_CASE("A reader that pauses gets no message more, not even one that is here, and loses none") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view) { it.reader->pause(); };
  it.link.peer.send("one\ntwo\nthr");
  it.run_until_messages(1);
  it.link.peer.send("ee\n");
  passes(it.loop, 5);
  CHECK(it.messages.size() == 1);
  for (std::size_t count = 2; count <= 3; ++count) {
    it.reader->resume();
    CHECK(it.messages.size() == count - 1);
    it.run_until_messages(count);
    passes(it.loop, 5);
    CHECK(it.messages.size() == count);
  }
  CHECK(it.messages == Messages{"one", "two", "three"});
  it.link.peer.end();
  passes(it.loop, 5);
  CHECK(it.ends == 0);
  it.reader->resume();
  run_until(it.loop, [&] { return it.ends == 1; });
}

TEST_CASE("What a paused reader has here stays what it was, whatever is read elsewhere") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view) { it.reader->pause(); };
  it.link.peer.send("one\ntwo\n");
  it.run_until_messages(1);
  Link other(it.loop);
  other.peer.send(std::string(100, '\n'));
  run_until(it.loop, [&] { return other.record.data.size() == 100; });
  it.reader->resume();
  it.run_until_messages(2);
  CHECK(it.messages == Messages{"one", "two"});
}

TEST_CASE("What comes to a paused reader whose connection others resume keeps its order") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view) { it.reader->pause(); };
  it.link.peer.send("one\ntwo\n");
  it.run_until_messages(1);
  for (const char* more : {"three\n", "four\n"}) {
    const std::uint64_t before = it.link.connection->bytes_received();
    it.link.connection->resume_reading();
    it.link.peer.send(more);
    run_until(it.loop, [&] { return it.link.connection->bytes_received() > before; });
  }
  CHECK(it.messages == Messages{"one"});
  for (std::size_t count = 2; count <= 4; ++count) {
    it.reader->resume();
    it.run_until_messages(count);
  }
  CHECK(it.messages == Messages{"one", "two", "three", "four"});
}

TEST_CASE("A reader without callbacks drops what comes") {
  Reading it(Framing::lines());
  it.reader->on_message({});
  it.reader->on_end({});
  it.link.peer.send("one\ntwo\nthr");
  it.link.peer.end();
  run_until(it.loop, [&] { return it.link.is_closed(); });
  CHECK_FALSE(it.link.record.error);
  CHECK(it.messages.empty());
  CHECK(it.ends == 0);
}

TEST_CASE("A pause after each of many small messages copies and allocates nothing for each") {
  Reading it(Framing::lines());
  std::size_t count = 0;
  it.reader->on_message([&](Connection&, std::string_view) {
    ++count;
    it.reader->pause();
  });
  const std::size_t total = 20'000;
  it.link.peer.send(std::string(total, '\n'));
  std::optional<AllocationCounter> counter;
  while (count < total) {
    const std::size_t before = count;
    run_until(it.loop, [&] { return count > before; });
    if (count == 100) counter.emplace();
    it.reader->resume();
  }
  CHECK(counter->count() < 100);
}

TEST_CASE(
    "The end comes after the messages before it, though the connection is resumed by others") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view) { it.reader->pause(); };
  it.link.peer.send("one\ntwo\nthr");
  it.run_until_messages(1);
  it.link.peer.end();
  it.link.connection->resume_reading();
  run_until(it.loop, [&] { return it.ends == 1; });
  CHECK(it.messages == Messages{"one", "two"});
  CHECK(it.end_error == Errc::unexpected_end);
  CHECK(it.partial == "thr");
}

TEST_CASE("A connection that its user pauses stays paused when the messages here are told") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view) { it.link.connection->pause_reading(); };
  it.link.peer.send("one\ntwo\n");
  it.run_until_messages(2);
  it.link.peer.send("three\n");
  passes(it.loop, 5);
  CHECK(it.link.connection->is_reading_paused());
  CHECK(it.messages.size() == 2);
  it.link.connection->resume_reading();
  it.run_until_messages(3);
}

// ---- what callbacks may do

TEST_CASE("Whatever on_message does to reader and connection, no message comes behind it") {
  Reading it(Framing::lines());
  const int act = GENERATE(0, 1, 2, 3, 4);
  std::string after;
  const std::string token = "what the callback has captured, too long to lie inside of it";
  it.on_message = [&, token](std::string_view message) {
    if (act == 0) it.link.connection.reset();
    if (act == 1) it.link.connection->abort();
    if (act == 2) it.link.connection->close();
    if (act == 3) it.reader.reset();
    if (act == 4) {
      it.link.connection.reset();
      it.reader.reset();
    }
    after = message;
    CHECK(token.size() == 60);
  };
  it.link.peer.send("one\ntwo\nthree\n");
  it.run_until_messages(1);
  passes(it.loop, 5);
  CHECK(it.messages == Messages{"one"});
  CHECK(after == "one");
  CHECK(it.ends == 0);
}

TEST_CASE("A message in pieces stays valid when its callback destroys the reader") {
  Reading it(Framing::lines());
  const std::string line(50'000, 'x');
  it.on_message = [&](std::string_view message) {
    it.reader.reset();
    CHECK(message == line + line);
  };
  it.link.peer.send(line);
  passes(it.loop, 3);
  it.link.peer.send(line + "\n");
  it.run_until_messages(1);
}

TEST_CASE("A reader that goes gives what it hasn't told to whoever reads next") {
  Reading it(Framing::lines());
  const bool is_inside = GENERATE(true, false);
  std::string raw;
  const auto hand_over = [&] {
    it.reader.reset();
    it.link.connection->on_data([&](Connection&, std::string_view bytes) { raw += bytes; });
  };
  if (is_inside) it.on_message = [&](std::string_view) { hand_over(); };
  it.link.peer.send("one\nbinary");
  it.run_until_messages(1);
  passes(it.loop, 3);
  if (!is_inside) hand_over();
  it.link.peer.send(" from here\n");
  run_until(it.loop, [&] { return raw == "binary from here\n"; });
}

TEST_CASE("A reader that goes leaves the connection reading, though it had stopped it") {
  Reading it(Framing::lines());
  std::string expected = "two\nthree\n";
  SECTION("by a pause, with messages here") {
    it.on_message = [&](std::string_view) { it.reader->pause(); };
    it.link.peer.send("one\ntwo\n");
    it.run_until_messages(1);
  }
  SECTION("by a pause, with nothing here") {
    it.reader->pause();
    expected = "three\n";
  }
  SECTION("because of an exception, until the messages behind it are told") {
    it.on_message = [](std::string_view) { throw Thrown(); };
    it.link.peer.send("one\ntwo\n");
    CHECK_THROWS_AS(it.run_until_messages(2), Thrown);
  }
  CHECK(it.link.connection->is_reading_paused());
  it.reader.reset();
  std::string raw;
  it.link.connection->on_data([&](Connection&, std::string_view bytes) { raw += bytes; });
  it.link.peer.send("three\n");
  run_until(it.loop, [&] { return raw == expected; });
}

TEST_CASE("One reader may follow another in the middle of what came") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view message) {
    if (message == "switch") it.attach(Framing::prefixed(LengthPrefix{1}));
  };
  it.link.peer.send("one\nswitch\n\3abc\2de");
  it.run_until_messages(4);
  CHECK(it.messages == Messages{"one", "switch", "abc", "de"});
}

TEST_CASE("An exception from on_message leaves run(), and the messages behind it still come") {
  Reading it(Framing::lines());
  it.on_message = [&](std::string_view message) {
    if (message == "two") throw Thrown();
  };
  it.link.peer.send("one\ntwo\nthree\nfo");
  CHECK_THROWS_AS(it.run_until_messages(3), Thrown);
  CHECK(it.messages == Messages{"one", "two"});
  it.run_until_messages(3);
  it.link.peer.send("ur\n");
  it.run_until_messages(4);
  CHECK(it.messages == Messages{"one", "two", "three", "four"});
}

TEST_CASE("on_end may destroy reader and connection") {
  Reading it(Framing::lines(3));
  const bool is_too_long = GENERATE(true, false);
  it.reader->on_end([&](Connection&, std::error_code) {
    it.link.connection.reset();
    it.reader.reset();
    ++it.ends;
  });
  it.link.peer.send(is_too_long ? "12345\n" : "12");
  it.link.peer.end();
  run_until(it.loop, [&] { return it.ends == 1; });
  passes(it.loop, 3);
}

TEST_CASE("A reader may outlive its connection") {
  Reading it(Framing::lines());
  it.link.peer.send("part");
  passes(it.loop, 3);
  it.link.connection.reset();
  CHECK(it.reader->partial() == "part");
  it.reader->pause();
  it.reader->resume();
  it.reader->set_framing(Framing::exactly(0));
  it.reader->pause();
  it.reader->resume();
  passes(it.loop, 3);
  CHECK(it.messages.empty());
}

TEST_CASE("A callback that is set anew from inside itself is the new one the next time") {
  Reading it(Framing::lines());
  Messages second;
  it.on_message = [&](std::string_view) {
    it.reader->on_message(
        [&](Connection&, std::string_view message) { second.emplace_back(message); });
  };
  it.link.peer.send("one\ntwo\n");
  run_until(it.loop, [&] { return !second.empty(); });
  CHECK(it.messages == Messages{"one"});
  CHECK(second == Messages{"two"});
}
